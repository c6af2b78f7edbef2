"""LLaVA written out by hand, one row at a time: what the engine is compared with.

Nothing here uses the package. Rows are computed in order, each attending to the keys before it, so a prefill and the
decoding after it are the same loop; the rows to edit are those from the last one of the prompt on, or all of the text
after the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch


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
    branch: Callable[[Any, list[int], Any], Any] | None = None
    """From model, ids and pixel values, the rows of embeddings that a contrastive branch reads."""
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


def rms_norm(x, norm, eps):
    return x / np.sqrt((x * x).mean() + eps) * numbers(norm.weight)


def rotate(vector, position, theta):
    """RoPE of one head's vector at one position, in the two-halves layout."""
    half = len(vector) // 2
    out = vector.copy()
    for i in range(half):
        angle = position * theta ** (-i / half)
        out[i] = vector[i] * np.cos(angle) - vector[i + half] * np.sin(angle)
        out[i + half] = vector[i + half] * np.cos(angle) + vector[i] * np.sin(angle)
    return out


def numbers(tensor):
    return tensor.detach().double().numpy()


def softmax(scores):
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


class Decoder:
    """The text model of a LlavaForConditionalGeneration in float64, fed one embedding at a time."""

    def __init__(self, model):
        self.text, self.head = model.model.language_model, model.lm_head
        config = model.config.text_config
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self.eps, self.theta = config.rms_norm_eps, config.rope_parameters["rope_theta"]
        self.keys = [[] for _ in self.text.layers]
        self.values = [[] for _ in self.text.layers]
        self.inputs = [[] for _ in self.text.layers]
        self.head_gains: dict[int, list[float]] = {}

    def row(self, hidden, gains, fix, edited, once_at_prefill):
        """Return the logits of one more row; gains has one entry a prompt column."""
        position = len(self.keys[0])
        kinds = kinds_of(gains["image"], position + 1)
        for index, layer in enumerate(self.text.layers):
            self.inputs[index].append(hidden)
            x = rms_norm(hidden, layer.input_layernorm, self.eps)
            project = {name: numbers(getattr(layer.self_attn, f"{name}_proj").weight) for name in "qkvo"}
            query = (project["q"] @ x).reshape(self.heads, -1)
            key = (project["k"] @ x).reshape(self.key_heads, -1)
            self.keys[index].append(np.stack([rotate(k, position, self.theta) for k in key]))
            self.values[index].append((project["v"] @ x).reshape(self.key_heads, -1))
            keys, values = np.stack(self.keys[index]), np.stack(self.values[index])
            rows, groups = [], [h * self.key_heads // self.heads for h in range(self.heads)]
            for h, group in enumerate(groups):
                q = rotate(query[h], position, self.theta)
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
            hidden = hidden + project["o"] @ np.concatenate(out)
            x = rms_norm(hidden, layer.post_attention_layernorm, self.eps)
            gate, up, down = (numbers(p.weight) for p in (layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj))
            gated = gate @ x
            hidden = hidden + down @ (gated / (1 + np.exp(-gated)) * (up @ x))
        return self.logits(hidden)

    def logits(self, hidden, normed=True):
        return numbers(self.head.weight) @ (rms_norm(hidden, self.text.norm, self.eps) if normed else hidden)

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


def select(model, pixel_values, fix):
    """Gains of one image's patches, from the tower's attention as transformers' eager code returns it."""
    tower = model.model.vision_tower
    before = tower.config._attn_implementation
    model.set_attn_implementation({"vision_config": "eager"})
    attentions = tower(pixel_values[None], output_attentions=True).attentions
    model.set_attn_implementation({"vision_config": before})
    first, second_last = attentions[0][0].numpy(), attentions[-2][0].numpy()
    n = first.shape[-1] - 1
    local = set(np.argsort(-first[:, 0, 1:].sum(0), kind="stable")[: int(fix.local * n)].tolist())
    received = first.mean(0).sum(0)[1:]
    local |= set(np.argsort(-received, kind="stable")[: int(fix.spatial * n)].tolist())
    cls = second_last[:, 0, 1:].sum(0)
    q1, q3 = np.percentile(cls, [25, 75])
    summary = {i for i in range(n) if cls[i] > q3 + 1.5 * (q3 - q1)}
    return [fix.beta if i in summary else fix.alpha if i in local else 0.0 for i in range(n)]


def embed(model, ids, pixel_values):
    """Embeddings of a prompt, image features put in place of image tokens."""
    rows = model.get_input_embeddings()(torch.tensor(ids))
    if pixel_values is not None and len(pixel_values):
        features = torch.cat(list(model.get_image_features(pixel_values).pooler_output))
        rows[torch.tensor(ids) == model.config.image_token_id] = features
    return numbers(rows)


def log_softmax(scores):
    return scores - scores.max() - np.log(np.exp(scores - scores.max()).sum())


@torch.no_grad()
def generate(model, ids, pixel_values, fix, steps, forced=None):
    """Greedy tokens (or the forced ones), raw logits and final scores of each step, for one prompt."""
    image_token = model.config.image_token_id
    is_image = [token == image_token for token in ids]
    if fix.local is None:
        flat = [fix.alpha] * sum(is_image)
    else:
        flat = [
            gain for image in (pixel_values if pixel_values is not None else []) for gain in select(model, image, fix)
        ]
    flat = iter(flat)
    gains = {"image": is_image, "gain": [next(flat) if image else 0.0 for image in is_image]}
    text_ids = [token for token in ids if token != image_token]
    main, branch = Decoder(model), Decoder(model)
    nothing, no_gain = {"image": [], "gain": []}, replace(fix, layers=(0, 0))
    refine = fix.gamma != 1 and any(is_image)
    branch_rows = embed(model, text_ids, None) if refine else []
    if fix.branch is not None and any(is_image):
        branch_rows = fix.branch(model, ids, pixel_values)
    kinds = kinds_of(is_image, len(ids))
    for column, row in enumerate(embed(model, ids, pixel_values)):
        last = column == len(ids) - 1
        edited = last or (fix.text_rows and kinds[column] == "after")
        with_image = main.row(row, gains, fix, edited=edited, once_at_prefill=last)
    without_image = None
    for row in branch_rows:
        without_image = branch.row(row, nothing, no_gain, False, False)
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
        row = embed(model, tokens[-1:], None)[0]
        with_image = main.row(row, gains, fix, edited=True, once_at_prefill=False)
        if without_image is not None:
            without_image = branch.row(row, nothing, no_gain, False, False)
    return tokens, torch.tensor(np.stack(logits)).float(), torch.tensor(np.stack(scores)).float()
