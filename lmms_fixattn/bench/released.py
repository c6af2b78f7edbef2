"""The rival: answering as the released codes of PAI and FixAttn do, on this transformers.

One prompt at a time, eager attention, an edit inside a patched attention forward of each edited layer, and for the
logits refine a second forward of the text alone for each token, both in Python. Written from their formula, to be timed
only; :class:`lmms_fixattn.methods.pai.PAI` is what to use.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from transformers import DynamicCache, LogitsProcessor

from lmms_fixattn.models.family import family_of_model, text_model
from lmms_fixattn.models.transformers_api import attention_in_use, cache_of, with_cache

NAMES = {False: "released-style loop", True: "released-style loop, refine"}
"""The rivals by whether they refine."""
_NEEDED = ("apply_rotary_pos_emb", "repeat_kv")
"""Functions beside an attention module, of which the loop makes its own."""


class ReleasedLoop:
    """PAI's released loop: every image token's score amplified by its size, then the logits refined.

    With the refine on, the prefill is left alone, as released. FixAttn's code is the same loop with two lists of image
    tokens in place of all; PAI's is the cheaper one, so that what beats it beats both.

    Args:
        model: a model of a known family.
        alpha: amplification.
        gamma: strength of the refine; 1 turns it off.
        start: first edited layer.

    Raises:
        ValueError: a text model whose attention is another than that of the released codes' models.
    """

    def __init__(self, model: Any, alpha: float = 0.2, gamma: float = 1.1, start: int = 2) -> None:
        self.family = family_of_model(model)
        self.text = self.family.text(model)
        if why := refusal(model):
            raise ValueError(why)
        self.model, self.alpha, self.gamma, self.start = model, alpha, gamma, start
        self.amplifies = False
        self.image: slice
        self.second: DynamicCache | None = None

    @contextmanager
    def installed(self) -> Iterator[Any]:
        """Patch the model inside the block."""
        own = attention_in_use(self.text)
        layers = [layer.self_attn for layer in self.text.layers[self.start :]]
        self.family.use_attention(self.model, "eager")
        try:
            for attention in layers:
                attention.forward = MethodType(self._attend, attention)
            yield self.model
        finally:
            for attention in layers:
                del attention.forward
            self.family.use_attention(self.model, own)

    def answer(self, inputs: dict[str, torch.Tensor], tokens: int, **arguments: Any) -> torch.Tensor:
        """Answer one prompt with one image greedily; return its sequence, [1, length].

        Raises:
            ValueError: more than one prompt.
        """
        ids = inputs["input_ids"]
        if len(ids) != 1:
            raise ValueError(f"the released-style loop answers one prompt at a time, got {len(ids)}")
        places = (ids[0] == self.family.image_token_id).nonzero().flatten().tolist()
        self.image = slice(places[0], places[-1] + 1)
        self.second = None
        refines = self.gamma != 1
        self.amplifies = not refines
        processors = [_Refine(self)] if refines else []
        with torch.inference_mode():
            sequences: torch.Tensor = self.model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                logits_processor=processors,
                **arguments,
            )
        return sequences

    def without_image(self, ids: torch.Tensor) -> torch.Tensor:
        """Run the second forward, of the text without its image: next-token scores [1, vocabulary]."""
        self.amplifies = False
        if self.second is None:
            self.second = DynamicCache(config=self.text.config)
            ids = torch.cat([ids[:, : self.image.start], ids[:, self.image.stop :]], dim=1)
        else:
            ids = ids[:, -1:]
        scores: torch.Tensor = self.model(input_ids=ids, use_cache=True, **with_cache(self.model, self.second)).logits[
            :, -1
        ]
        self.amplifies = True
        return scores.float()

    def _attend(
        self,
        attention: Any,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        code = _code_of(attention)
        rows, length, _ = hidden_states.shape
        projected = (
            project(hidden_states).view(rows, length, -1, attention.head_dim).transpose(1, 2)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        query, key, value = projected
        query, key = code.apply_rotary_pos_emb(query, key, *position_embeddings)
        if (past := cache_of(attention, kwargs)) is not None:
            key, value = past.update(key, value, attention.layer_idx)
        key = code.repeat_kv(key, attention.num_key_value_groups)
        value = code.repeat_kv(value, attention.num_key_value_groups)
        scores = query @ key.transpose(2, 3) / math.sqrt(attention.head_dim)
        if attention_mask is not None:
            scores = scores + attention_mask[..., : key.shape[-2]]
        if self.amplifies:
            image = scores[:, :, -1, self.image]
            scores[:, :, -1, self.image] = image.abs() * self.alpha + image
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
        output = (weights @ value).transpose(1, 2).reshape(rows, length, -1)
        return attention.o_proj(output), weights


def refusal(model: Any) -> str | None:
    """Say why there is no such loop for a model; None: there is."""
    text = text_model(model)
    attention, rotary = text.layers[0].self_attn, getattr(text.config, "rope_parameters", None) or {}
    plain = not hasattr(attention, "q_norm") and "mrope_section" not in rotary
    if plain and all(hasattr(_code_of(attention), name) for name in _NEEDED):
        return None
    return (
        "a released-style loop is at hand for plain rotary attention, as of the released codes' text models, "
        f"not for {type(attention).__name__}"
    )


def _code_of(attention: Any) -> Any:
    return sys.modules[type(attention).__module__]


class _Refine(LogitsProcessor):  # type: ignore[misc]
    """PAI's refine: gamma * (lc - lu) + lu over the tokens with at least a tenth of the top probability."""

    def __init__(self, loop: ReleasedLoop) -> None:
        self.loop = loop

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        lc = scores.log_softmax(dim=-1)
        lu = self.loop.without_image(input_ids).log_softmax(dim=-1)
        refined = self.loop.gamma * (lc - lu) + lu
        floor = math.log(0.1) + lc.max(dim=-1, keepdim=True).values
        return refined.masked_fill(lc < floor, -torch.inf)
