"""The text models of all families written out by hand, one row at a time: what the engine is compared with.

Nothing here uses the package. Rows are computed in order, each attending to the keys before it, so a prefill and the
decoding after it are the same loop; the rows to edit are those from the last one of the prompt on, or all of the text
after the image. What a family makes of a prompt, ``read``, stands in a file of its own, named in ``FAMILIES``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import numpy as np
import torch

FAMILIES = {
    "llava": "naive_llava",
    "llava_next": "naive_llava_next",
    "qwen2_vl": "naive_qwen",
    "qwen2_5_vl": "naive_qwen",
    "qwen3_vl": "naive_qwen",
}
"""The module with ``read``, and ``select`` where image tokens are selected by the tower, by ``model_type``."""


@dataclass
class Column:
    """One position of a prompt, as the text model reads it."""

    embedding: Any
    position: tuple[int, int, int]
    """Of time, height and width; three times the same for a word."""
    deep: list[Any] = field(default_factory=list)
    """What is added to the state behind the first layers, one each (DeepStack)."""


@dataclass
class Row:
    """One row of one layer: what the edits of naive_methods.py read and change."""

    layer: int
    kinds: list[str]
    """Of each key: before, image, after or generated; plain everywhere where the prompt has no image."""
    inputs: list[Any]
    """The hidden state of each position as it entered the layer."""
    scores: list[Any]
    """By head, [keys]."""
    weights: list[Any]


@dataclass
class Guided:
    """What a guide of naive_methods.py knows of a step, [vocabulary] each."""

    index: int
    branch: Any
    early: Any
    """From a layer and whether to norm, the logits that the state entering it gives right away."""


@dataclass(frozen=True)
class Fix:
    """An intervention in plain numbers; gains are those of PAI if local is None."""

    edit_scores: Callable[[Row], None] = lambda row: None
    edit_weights: Callable[[Row], None] = lambda row: None
    text_rows: bool = False
    branch: Callable[[Any, list[int], Any], list[Column]] | None = None
    """From model, ids and pictures, the columns that a contrastive branch reads."""
    guide: Callable[[Any, Guided], Any] | None = None
    """From the scores of a step, new ones."""

    alpha: float = 0.0
    beta: float = 0.0
    local: float | None = None
    spatial: float = 0.0
    layers: tuple[int, int] = (0, 0)
    gamma: float = 1.0
    edit_prefill: bool = True
    modulation: str = "off"
    g_max: float = 2.0
    share: float = 0.5


def numbers(tensor):
    return tensor.detach().double().numpy()


def softmax(scores):
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def log_softmax(scores):
    return scores - scores.max() - np.log(np.exp(scores - scores.max()).sum())


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean() + eps) * weight


def linear(module):
    """A linear layer as a function of a vector."""
    weight = numbers(module.weight)
    bias = 0.0 if module.bias is None else numbers(module.bias)
    return lambda x: weight @ x + bias


def rotate(vector, angles):
    """RoPE of one head's vector, in the two-halves layout: one angle for each pair."""
    half = len(vector) // 2
    out = vector.copy()
    for i, angle in enumerate(angles):
        out[i] = vector[i] * np.cos(angle) - vector[i + half] * np.sin(angle)
        out[i + half] = vector[i + half] * np.cos(angle) + vector[i] * np.sin(angle)
    return out


def axes(rope, half):
    """Which of the three positions turns each pair: in sections, or one after the other while a section lasts."""
    section = rope.get("mrope_section")
    if section is None:
        return [0] * half
    if rope.get("mrope_interleaved"):
        return [i % 3 if i < 3 * section[i % 3] else 0 for i in range(half)]
    return [axis for axis, length in enumerate(section) for _ in range(length)]


class Layer:
    """The weights of a decoder layer in float64."""

    def __init__(self, layer):
        attention, mlp = layer.self_attn, layer.mlp
        self.query, self.key, self.value, self.out = (linear(getattr(attention, f"{name}_proj")) for name in "qkvo")
        self.head_norms = [
            numbers(getattr(attention, name).weight) for name in ("q_norm", "k_norm") if hasattr(attention, name)
        ]
        self.before_attention = numbers(layer.input_layernorm.weight)
        self.before_mlp = numbers(layer.post_attention_layernorm.weight)
        self.gate, self.up, self.down = linear(mlp.gate_proj), linear(mlp.up_proj), linear(mlp.down_proj)


class Decoder:
    """The text model of a vision-language model in float64, fed one embedding at a time."""

    def __init__(self, model):
        text = model.model.language_model
        config = text.config
        self.layers = [Layer(layer) for layer in text.layers]
        self.norm, self.head = numbers(text.norm.weight), numbers(model.lm_head.weight)
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self.eps, self.rope = config.rms_norm_eps, config.rope_parameters
        assert self.rope["rope_type"] == "default"
        self.keys = [[] for _ in self.layers]
        self.values = [[] for _ in self.layers]
        self.inputs = [[] for _ in self.layers]
        self.head_gains: dict[int, list[float]] = {}
        self.next_position = 0

    def row(self, column, gains, fix, edited, once_at_prefill):
        """Return the logits of one more row; gains has one entry a prompt column."""
        hidden = column.embedding
        self.next_position = max(self.next_position, *(place + 1 for place in column.position))
        kinds = kinds_of(gains["image"], len(self.keys[0]) + 1)
        for index, layer in enumerate(self.layers):
            self.inputs[index].append(hidden)
            x = rms_norm(hidden, layer.before_attention, self.eps)
            query = list(layer.query(x).reshape(self.heads, -1))
            key = list(layer.key(x).reshape(self.key_heads, -1))
            if layer.head_norms:
                query = [rms_norm(q, layer.head_norms[0], self.eps) for q in query]
                key = [rms_norm(k, layer.head_norms[1], self.eps) for k in key]
            angles = self.angles(column.position, len(key[0]) // 2)
            self.keys[index].append(np.stack([rotate(k, angles) for k in key]))
            self.values[index].append(layer.value(x).reshape(self.key_heads, -1))
            keys, values = np.stack(self.keys[index]), np.stack(self.values[index])
            rows, groups = [], [h * self.key_heads // self.heads for h in range(self.heads)]
            for h, group in enumerate(groups):
                q = rotate(query[h], angles)
                rows.append(keys[:, group] @ q / len(q) ** 0.5)
            row = Row(index, kinds, self.inputs[index], rows, [])
            edits = edited and fix.layers[0] <= index < fix.layers[1]
            if edits and not fix.text_rows:
                row.scores = self.edit(index, rows, gains, fix, once_at_prefill)
            if edits:
                fix.edit_scores(row)
            row.weights = [softmax(scores) for scores in row.scores]
            if edits:
                fix.edit_weights(row)
            out = [weights @ values[:, group] for weights, group in zip(row.weights, groups, strict=True)]
            hidden = hidden + layer.out(np.concatenate(out))
            x = rms_norm(hidden, layer.before_mlp, self.eps)
            gated = layer.gate(x)
            hidden = hidden + layer.down(gated / (1 + np.exp(-gated)) * layer.up(x))
            if index < len(column.deep):
                hidden = hidden + column.deep[index]
        return self.logits(hidden)

    def angles(self, position, half):
        theta = self.rope["rope_theta"]
        return [position[axis] * theta ** (-i / half) for i, axis in enumerate(axes(self.rope, half))]

    def after(self, embedding):
        """The column of a token that follows what was read."""
        return Column(embedding, (self.next_position,) * 3)

    def logits(self, hidden, normed=True):
        return self.head @ (rms_norm(hidden, self.norm, self.eps) if normed else hidden)

    def early(self, layer, normed):
        """Return the logits that the latest row gives as it enters a layer."""
        return self.logits(self.inputs[layer][-1], normed)

    def edit(self, index, rows, gains, fix, once_at_prefill):
        if once_at_prefill:
            mass = [
                sum(float(w) for w, is_image in zip(softmax(scores), gains["image"], strict=False) if is_image)
                for scores in rows
            ]
            self.head_gains[index] = modulate(mass, fix)
            if not fix.edit_prefill:
                return rows
        edited = []
        for head_gain, scores in zip(self.head_gains[index], rows, strict=True):
            scores = scores.copy()
            for j, gain in enumerate(gains["gain"]):
                scores[j] = scores[j] + gain * head_gain * abs(scores[j])
            edited.append(scores)
        return edited


def kinds_of(is_image, count):
    """What the first ``count`` positions are, for a prompt with these image tokens."""
    if not any(is_image):
        return ["plain"] * count
    first = is_image.index(True)
    prompt = ["image" if image else "before" if j < first else "after" for j, image in enumerate(is_image)]
    return (prompt + ["generated"] * count)[:count]


def modulate(mass, fix):
    if fix.modulation == "off" or sum(mass) == 0:
        return [1.0] * len(mass)
    if fix.modulation == "proportional":
        mean = sum(mass) / len(mass)
        return [min(max(m / mean, 0.0), fix.g_max) for m in mass]
    best = sorted(range(len(mass)), key=lambda h: -mass[h])[: int(fix.share * len(mass))]
    return [1.0 if h in best else 0.0 for h in range(len(mass))]


def as_pictures(pictures):
    """What the model is given of each picture; pixel values [pictures, 3, height, width] are one picture a row."""
    if pictures is None:
        return []
    if isinstance(pictures, torch.Tensor):
        return [{"pixel_values": pixels[None]} for pixels in pictures]
    return list(pictures)


def family_of(model):
    return import_module(FAMILIES[model.config.model_type])


@torch.no_grad()
def read(model, ids, pictures):
    """The columns of a prompt, by the model's family."""
    return family_of(model).read(model, ids, as_pictures(pictures))


def without_pictures(model, ids):
    """The tokens that are no image's, nor what stands around one."""
    marks = ("image_token_id", "vision_start_token_id", "vision_end_token_id")
    return [token for token in ids if token not in [getattr(model.config, mark, None) for mark in marks]]


def words(model, ids):
    """The embeddings of tokens."""
    return numbers(model.get_input_embeddings()(torch.tensor(ids, dtype=torch.long)))


def in_a_row(embeddings):
    """Columns whose positions count up from 0."""
    return [Column(embedding, (place,) * 3) for place, embedding in enumerate(embeddings)]


@torch.no_grad()
def forward(model, ids, pictures):
    """Logits at every position of one prompt, [columns, vocabulary], with nothing edited."""
    decoder, nothing = Decoder(model), {"image": [], "gain": []}
    rows = [decoder.row(column, nothing, Fix(), False, False) for column in read(model, ids, pictures)]
    return torch.tensor(np.stack(rows)).float()


@torch.no_grad()
def generate(model, ids, pictures, fix, steps, forced=None):
    """Greedy tokens (or the forced ones), raw logits and final scores of each step, for one prompt.

    ``pictures`` is a list of what the model is given of each picture (``{"pixel_values": ..., ...}``), or pixel values
    [pictures, 3, height, width] where these are all, or None.
    """
    pictures = as_pictures(pictures)
    image_token = model.config.image_token_id
    is_image = [token == image_token for token in ids]
    if fix.local is None:
        flat = [fix.alpha] * sum(is_image)
    else:
        flat = [gain for picture in pictures for gain in family_of(model).select(model, picture, fix)]
    flat = iter(flat)
    gains = {"image": is_image, "gain": [next(flat) if image else 0.0 for image in is_image]}
    text_ids = without_pictures(model, ids)
    main, branch = Decoder(model), Decoder(model)
    nothing, no_gain = {"image": [], "gain": []}, replace(fix, layers=(0, 0))
    refine = fix.gamma != 1 and any(is_image)
    branch_columns = read(model, text_ids, []) if refine else []
    if fix.branch is not None and any(is_image):
        branch_columns = fix.branch(model, ids, pictures)
    kinds = kinds_of(is_image, len(ids))
    for place, column in enumerate(read(model, ids, pictures)):
        last = place == len(ids) - 1
        edited = last or (fix.text_rows and kinds[place] == "after")
        with_image = main.row(column, gains, fix, edited=edited, once_at_prefill=last)
    without_image = None
    for column in branch_columns:
        without_image = branch.row(column, nothing, no_gain, False, False)
    tokens, logits, scores = [], [], []
    for step in range(steps):
        logits.append(with_image)
        score = with_image
        if refine:
            lc, lu = log_softmax(with_image), log_softmax(without_image)
            score = fix.gamma * (lc - lu) + lu
            score[lc < np.log(0.1) + lc.max()] = -np.inf
        if fix.guide is not None and (fix.branch is None or without_image is not None):
            score = fix.guide(score, Guided(step, without_image, main.early))
        scores.append(score)
        tokens.append(int(score.argmax()) if forced is None else int(forced[step]))
        embedding = words(model, tokens[-1:])[0]
        with_image = main.row(main.after(embedding), gains, fix, edited=True, once_at_prefill=False)
        if without_image is not None:
            without_image = branch.row(branch.after(embedding), nothing, no_gain, False, False)
    return tokens, torch.tensor(np.stack(logits)).float(), torch.tensor(np.stack(scores)).float()
