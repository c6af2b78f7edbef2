"""AD-HH: stop the heads that hallucinate from reading text instead of the image."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from lmms_fixattn.methods.base import Method, head_list, number
from lmms_fixattn.methods.text_model import LLAVA_7B, LLAVA_13B, TextModel
from lmms_fixattn.methods.views import Rows

Heads = tuple[tuple[int, int], ...]

_HEADS: dict[TextModel, Heads] = {
    LLAVA_7B: (
        (16, 29), (26, 9), (13, 31), (15, 10), (20, 12), (30, 9), (19, 18), (17, 0), (18, 9), (26, 28),
        (19, 27), (18, 26), (15, 25), (14, 16), (31, 26), (15, 24), (31, 3), (22, 20), (27, 29), (17, 28),
    ),
    LLAVA_13B: (
        (0, 8), (29, 27), (23, 18), (20, 11), (36, 26), (19, 37), (22, 16), (22, 34), (21, 31), (20, 34), (37, 11),
        (17, 25), (35, 10), (17, 5), (15, 26), (0, 22), (19, 5), (19, 0), (14, 1), (23, 20), (21, 6), (30, 24),
        (26, 27), (21, 32), (15, 28), (15, 31), (19, 30), (20, 8), (19, 14), (14, 9), (39, 26), (25, 1), (18, 32),
        (17, 27), (39, 32),
    ),
}  # fmt: skip
"""Hallucination heads as (layer, head), from the released code."""


@dataclass(frozen=True)
class ADHH(Method):
    """Cut the attention of hallucination heads to text, whenever they mostly read text.

    Weights after softmax, newest row (prefill included), the listed heads, T the text after the image, prompt and
    answer, the row itself included; what comes before the image stays, and nothing is renormalised::

        w[h, T] = 0   if sum of w[h, j] over j in T >= threshold

    Source: Adaptive Deactivation of Hallucination Heads, in "Understanding and Mitigating Hallucination in Large
    Vision-Language Models via Modular Attribution and Intervention", ICLR 2025, openreview.net/forum?id=Bjq4W7P2Us,
    and the released code TianyunYoung/Hallucination-Attribution at 841fc1b, which gives the heads of LLaVA-1.5-7B and
    13B. That code sums a head's mass over the batch; here each row is judged by itself.

    For another model, give its heads. The paper finds them by attribution: for each head, set its output to zero, and
    take how much less likely that makes the hallucinated object words of the model's own captions, against the true
    ones; those with the largest difference, about 2% of all heads, are the list.
    """

    name: ClassVar[str] = "adhh"
    summary: ClassVar[str] = "cut known hallucination heads off from text when they mostly read text"
    source: ClassVar[str] = "openreview.net/forum?id=Bjq4W7P2Us; github.com/TianyunYoung/Hallucination-Attribution"
    cite: ClassVar[str] = "yang2025adhh"
    verified: ClassVar[str] = "the released code's outputs"

    heads: str | Heads = head_list("hallucination heads; published: of LLaVA-1.5-7B or 13B, whichever the model is")
    threshold: float = number(0.4, "mass on text from which a head is cut off; above 1 turns the method off", low=0)

    @classmethod
    def example(cls, text: TextModel, folder: Path) -> dict[str, Any]:
        """Return as large a share of heads as the published 20 of 32 x 32, of the deeper half, and a low threshold."""
        count = -(-20 * text.layers * text.heads // 32**2)
        heads = itertools.product(range(text.heads), range(text.layers // 2, text.layers))
        return {"heads": [(layer, head) for head, layer in itertools.islice(heads, count)], "threshold": 0.1}

    def for_model(self, text: TextModel) -> ADHH:
        heads = self.heads
        if isinstance(heads, str):
            instead = "find its own as ADHH's documentation says, and give heads=[LAYER:HEAD,...]"
            heads = text.published(_HEADS, "adhh: heads", instead)
        for layer, head in heads:
            if layer >= text.layers or head >= text.heads:
                raise ValueError(
                    f"adhh: head {layer}:{head} lies outside the model, which has {text.layers} layers of {text.heads}"
                )
        return dataclasses.replace(self, heads=heads)

    @property
    def edited_layers(self) -> frozenset[int]:
        return frozenset(layer for layer, _ in self._listed)

    @property
    def _listed(self) -> Heads:
        return () if isinstance(self.heads, str) else self.heads

    def edit_weights(self, rows: Rows, weights: torch.Tensor) -> None:
        text = rows.after_image()[:, 0]
        for head in [head for layer, head in self._listed if layer == rows.layer]:
            of_head = weights[:, head]
            cut = (of_head * text).sum(dim=-1, keepdim=True) >= self.threshold
            of_head.masked_fill_(cut & text, 0)
