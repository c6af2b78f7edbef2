"""VCD: lean away from what the model would say of a picture that it can hardly make out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lmms_fixattn.methods.base import Method, count, number
from lmms_fixattn.methods.formulas.branches import NoisedImage
from lmms_fixattn.methods.formulas.contrast import contrast
from lmms_fixattn.methods.views import Step


@dataclass(frozen=True)
class VCD(Method):
    """Contrast the next-token scores with those of the same prompt and text beside a noised image.

    With z and z' the logits with the image and with :class:`~lmms_fixattn.methods.formulas.branches.NoisedImage`::

        out = (1 + alpha) z - alpha z',   -inf where z < log(cutoff) + max(z)

    Source: arXiv:2311.16922 (our cutoff is its beta) and the released code DAMO-NLP-SG/VCD at d6568ff, whose
    command line gives the defaults. Two defects of that code are not followed: it replaces sampling only, so that under
    greedy search and beams it is the unmodified model; and up to 039af55 every token after the first is contrasted
    with itself. It draws the noise anew for each image; here ``seed`` is all that it depends on, so that an answer is
    the same in any batch.
    """

    name: ClassVar[str] = "vcd"
    summary: ClassVar[str] = "contrast the logits with those for a noised image"
    source: ClassVar[str] = "arXiv:2311.16922; github.com/DAMO-NLP-SG/VCD"
    cite: ClassVar[str] = "leng2024vcd"
    verified: ClassVar[str] = "its formula, on LLaVA written out by hand"

    alpha: float = number(1.0, "strength of the contrast; 0 turns it off", low=0)
    cutoff: float = number(0.1, "keep tokens with at least this share of the top probability", low=0, high=1)
    noise_step: int = count(500, "diffusion step of the noise", high=999)
    seed: int = count(42, "seed of the noise")

    @property
    def branch(self) -> NoisedImage | None:
        return NoisedImage(self.noise_step, self.seed) if self.alpha else None

    def guide(self, scores: torch.Tensor, step: Step) -> torch.Tensor:
        return contrast(scores, step.branch, self.alpha, self.cutoff).log_softmax(dim=-1)
