"""M3ID: lean away from what the text alone would say, the more the longer the answer is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from lmms_fixattn.methods.base import Method, number
from lmms_fixattn.methods.formulas.branches import WithoutImage
from lmms_fixattn.methods.formulas.contrast import contrast
from lmms_fixattn.methods.views import Step

_LARGEST = 50.0
"""Of the exponent: from here on lc is lost beside the contrast, and a larger one would only overflow."""


@dataclass(frozen=True)
class M3ID(Method):
    """Contrast the next-token scores with those without the image, with a weight that grows with the answer.

    With lc and lu the log-softmax with and without the image, at the t-th token of the answer, t from 1::

        out = lc + (1 - g) / g * (lc - lu),   g = exp(-rate * t),   -inf where lc < log(cutoff) + max(lc)

    so that the weight is exp(rate * t) - 1: by default 0.02 at the first token, 1.7 at the 50th, 6.4 at the 100th.

    Source: arXiv:2403.14003; no code of its authors is known. ``rate``, the paper's lambda, and the cutoff are those
    of the re-implementations in sangminwoo/AvisC at 40b3fc0 and sangminwoo/RITUAL at 6cabb6f; t is counted as in the
    former (the latter counts from 0, and so leaves the first token alone). Like both, this contrasts every token; the
    paper's further condition on the model's confidence is not applied.
    """

    name: ClassVar[str] = "m3id"
    summary: ClassVar[str] = "contrast the logits with a text-only branch, more with every token"
    source: ClassVar[str] = "arXiv:2403.14003"
    cite: ClassVar[str] = "favero2024m3id"
    verified: ClassVar[str] = "its formula, on LLaVA written out by hand"

    rate: float = number(0.02, "growth of the contrast with every token; 0 turns it off", low=0)
    cutoff: float = number(0.1, "keep tokens with at least this share of the top probability", low=0, high=1)

    @property
    def branch(self) -> WithoutImage | None:
        return WithoutImage() if self.rate else None

    def guide(self, scores: torch.Tensor, step: Step) -> torch.Tensor:
        weight = math.expm1(min(self.rate * (step.index + 1), _LARGEST))
        return contrast(scores, step.branch, weight, self.cutoff).log_softmax(dim=-1)
