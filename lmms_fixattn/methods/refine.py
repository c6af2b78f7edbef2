"""PAI's logits refine, which more than one method ends in. Not a method of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lmms_fixattn.methods.base import Method, number, switch
from lmms_fixattn.methods.formulas.branches import WithoutImage
from lmms_fixattn.methods.formulas.contrast import contrast
from lmms_fixattn.methods.views import Step


@dataclass(frozen=True)
class Refined(Method):
    """Refine the next-token scores against the same prompt and text without the image.

    With lc = log-softmax with the image and lu = log-softmax without it, from a branch that is never amplified::

        out = gamma * (lc - lu) + lu,   -inf where lc < log(cutoff) + max(lc)

    Source: PAI, arXiv:2407.21771, eq. 6, and its code LALBJ/PAI. With the refine on, that code, and FixAttn's, which
    builds on it, does not amplify the prefill, from which the first token comes; their published tables were made so.
    By default it is amplified, as the papers describe; ``released_first_token=True`` does as the code does.
    """

    gamma: float = number(1.1, "strength of the logits refine; 1 turns it off", low=1)
    cutoff: float = number(0.1, "refine keeps tokens with at least this share of the top probability", low=0, high=1)
    released_first_token: bool = switch(False, "with the refine on, leave the prefill unamplified, as released")

    @property
    def branch(self) -> WithoutImage | None:
        return WithoutImage() if self.gamma != 1 else None

    def amplifies(self, prefill: bool) -> bool:
        """Say whether the attention of this phase is amplified."""
        return not (prefill and self.guides and self.released_first_token)

    def guide(self, scores: torch.Tensor, step: Step) -> torch.Tensor:
        return contrast(scores, step.branch, self.gamma - 1, self.cutoff)
