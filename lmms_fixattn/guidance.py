"""Contrast with a branch that sees no image: its own cache, left padding, positions and beams."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import DynamicCache, LogitsProcessor

Guide = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Prompt = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Of a batch as its prefill saw it, each [rows, prompt]: input_ids, kept (False at padding), is_image."""


def contrast(with_image: torch.Tensor, without_image: torch.Tensor, gamma: float, cutoff: float) -> torch.Tensor:
    """Refine next-token scores: gamma * (lc - lu) + lu, and -inf where lc < log(cutoff) + max(lc).

    lc and lu are the log-softmax of the scores with and without the image, [rows, vocabulary]. A token that the
    scores with the image exclude (-inf) stays excluded. Source: PAI, arXiv:2407.21771, eq. 6, code LALBJ/PAI.
    """
    lc = with_image.float().log_softmax(dim=-1)
    lu = without_image.float().log_softmax(dim=-1)
    threshold = (math.log(cutoff) if cutoff else -math.inf) + lc.max(dim=-1, keepdim=True).values
    refined = gamma * (lc - lu) + lu
    return refined.masked_fill((lc < threshold) | (lc == -math.inf), -math.inf)


class ImageFreeBranch(LogitsProcessor):  # type: ignore[misc]
    """A logits processor that runs the same prompt and text without image tokens, and hands both scores to ``guide``.

    Rows whose prompt holds no image have nothing to contrast: their scores stay as they are.

    Args:
        guide: combines the scores with and without the image.
        model: the LlavaForConditionalGeneration.
        cache: the branch's own, empty cache, on which no attention is edited.
        prompt: returns the prompts, after any expansion for beams.
    """

    def __init__(self, guide: Guide, model: Any, cache: DynamicCache, prompt: Callable[[], Prompt]) -> None:
        self.guide = guide
        self.model = model
        self.cache = cache
        self.prompt = prompt
        self.previous: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        without_image = self._start() if self.previous is None else self._follow(input_ids, self.previous)
        self.previous = input_ids
        if without_image is None:
            return scores
        refined = self.guide(scores, without_image.to(scores.device)).to(scores.dtype)
        return torch.where(self.has_image, refined, scores)

    def _start(self) -> torch.Tensor | None:
        ids, kept, is_image = self.prompt()
        self.has_image = is_image.any(dim=1, keepdim=True)
        if not self.has_image.any():
            return None
        keep = kept & ~is_image
        if not bool(keep.any(dim=1).all()):
            raise ValueError("a prompt holds nothing but its image: without it no text is left to contrast with")
        # A stable sort by "kept" moves what is dropped to the left and keeps the order of the rest: left padding.
        width = int(keep.sum(dim=1).max())
        order = keep.long().argsort(dim=1, stable=True)[:, -width:]
        self.mask = keep.gather(1, order).long()
        pad = self.model.config.text_config.pad_token_id or 0
        return self._forward(ids.gather(1, order).masked_fill(self.mask == 0, pad))

    def _follow(self, input_ids: torch.Tensor, previous: torch.Tensor) -> torch.Tensor | None:
        if not self.has_image.any():
            return None
        history = input_ids[:, :-1]
        if not torch.equal(history, previous):
            # Beam search reordered the rows; equal histories are equal branches.
            same = (history[:, None] == previous[None]).all(dim=-1)
            if not bool(same.any(dim=1).all()):
                raise RuntimeError(
                    "the text changed between two steps, so the branch without image cannot follow; "
                    "use greedy search, sampling or beam search, or turn the refine off with gamma=1"
                )
            source = same.int().argmax(dim=1)
            self.cache.reorder_cache(source)
            self.mask = self.mask[source]
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        return self._forward(input_ids[:, -1:])

    def _forward(self, ids: torch.Tensor) -> torch.Tensor:
        positions = (self.mask.cumsum(dim=1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        hidden = self.model.model.language_model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        logits: torch.Tensor = self.model.lm_head(hidden[:, -1])
        return logits.float()
