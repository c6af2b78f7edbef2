"""The rival: answering as the released codes of PAI and FixAttn do, on this transformers.

One prompt at a time, eager attention with the edit inside it in each edited layer, and for the logits refine a second
forward of the text alone for each token, both in Python. Written from their formula, to be timed only;
:class:`lmms_fixattn.methods.pai.PAI` is what to use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import DynamicCache, LogitsProcessor

from lmms_fixattn.models.family import family_of_model, text_model
from lmms_fixattn.models.transformers_api import attention_in_use, register_attention, with_cache

NAMES = {False: "released-style loop", True: "released-style loop, refine"}
"""The rivals by whether they refine."""
_ATTENTION = "lmms_fixattn_released"


class ReleasedLoop(LogitsProcessor):  # type: ignore[misc]
    """PAI's released loop: every image token's score amplified by its size, then the logits refined.

    With the refine on, the prefill is left alone, as released. FixAttn's code is the same loop with two lists of image
    tokens in place of all; PAI's is the cheaper one, so that what beats it beats both.

    Args:
        model: a model of a known family.
        alpha: amplification.
        gamma: strength of the refine; 1 turns it off.
        start: first edited layer.

    Raises:
        ValueError: a text model with positions in several dimensions, which runs no text beside an image's prompt.
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
        register_attention(_ATTENTION, self._attend, "eager")
        self.family.use_attention(self.model, _ATTENTION)
        try:
            yield self.model
        finally:
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
        self.second, self.amplifies = None, self.gamma == 1
        processors = [] if self.gamma == 1 else [self]
        with torch.inference_mode():
            sequences: torch.Tensor = self.model.generate(
                **inputs, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens,
                logits_processor=processors, **arguments,
            )  # fmt: skip
        return sequences

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Refine: gamma * (lc - lu) + lu over the tokens with at least a tenth of the top probability.

        lu is of the second forward, of the text without its image.
        """
        ids = input_ids[:, -1:]
        if self.second is None:
            self.second = DynamicCache(config=self.text.config)
            ids = torch.cat([input_ids[:, : self.image.start], input_ids[:, self.image.stop :]], dim=1)
        self.amplifies = False
        output = self.model(input_ids=ids, use_cache=True, **with_cache(self.model, self.second))
        self.amplifies = True
        lc, lu = scores.log_softmax(dim=-1), output.logits[:, -1].float().log_softmax(dim=-1)
        floor = math.log(0.1) + lc.max(dim=-1, keepdim=True).values
        refined: torch.Tensor = self.gamma * (lc - lu) + lu
        return refined.masked_fill(lc < floor, -torch.inf)

    def _attend(
        self, layer: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        groups = query.shape[1] // key.shape[1]
        key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
        scores = query @ key.transpose(2, 3) * kwargs["scaling"]
        if mask is not None:
            scores = scores + mask
        if self.amplifies and layer.layer_idx >= self.start:
            image = scores[:, :, -1, self.image]
            scores[:, :, -1, self.image] = image.abs() * self.alpha + image
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
        return (weights @ value).transpose(1, 2).contiguous(), weights


def refusal(model: Any) -> str | None:
    """Say why there is no such loop for a model; None: there is."""
    if "mrope_section" not in (getattr(text_model(model).config, "rope_parameters", None) or {}):
        return None
    return "a released-style loop is at hand for plain rotary attention, not where positions have several axes"
