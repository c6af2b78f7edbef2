"""SPIN: turn down the heads that look at the image least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lmms_fixattn.methods.base import Layers, Method, layer_range, number
from lmms_fixattn.methods.formulas.selection import largest
from lmms_fixattn.methods.views import Rows


@dataclass(frozen=True)
class SPIN(Method):
    """Scale down the output of the heads whose scores on the image are lowest, anew in each layer and step.

    Newest row (prefill included), layers ``layers``, H heads, s the scores before softmax::

        r[h] = sum of s[h, j] over the image tokens j
        output[h] *= 1 for the int(kept * H) heads with the largest r, factor for the others

    Heads are ranked by raw scores, as the code does, not by their attention mass on the image. A prompt without image
    ranks no heads and keeps all.

    Source: Image-guided Head Suppression, arXiv:2505.16411, and the released code YUECHE77/SPIN at a6ddf4a
    (attentionSPIN.py); its routed_head is our ``kept``, its small_num_mask our ``factor`` (None there is 0 here). The
    defaults are its settings for captions; for yes/no questions it uses kept 0.8, factor 0.1. That code lays its
    prefill mask out wrongly for batches and beams; here each row has its own.
    """

    name: ClassVar[str] = "spin"
    summary: ClassVar[str] = "scale down the heads whose scores on the image are lowest"
    source: ClassVar[str] = "arXiv:2505.16411; github.com/YUECHE77/SPIN"
    cite: ClassVar[str] = "sarkar2025spin"
    verified: ClassVar[str] = "the released code's outputs"

    kept: float = number(0.95, "share of a layer's heads that stay as they are", low=0, high=1)
    factor: float = number(0.08, "factor on the output of the other heads; 1 turns the method off", low=0, high=1)
    layers: Layers = layer_range((0, None), "decoder layers to edit, end excluded")

    def edit_weights(self, rows: Rows, weights: torch.Tensor) -> None:
        visual = (rows.scores[..., : rows.prompt] * rows.columns.image).sum(dim=-1)
        keeps = largest(visual, int(self.kept * visual.shape[-1])) | ~rows.columns.has_image[:, 0]
        weights.mul_((keeps + ~keeps * self.factor)[:, :, None])
