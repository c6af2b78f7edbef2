"""ICD: lean away from what the model would say if it were told to be vague."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lmms_fixattn.methods.base import Method, number
from lmms_fixattn.methods.formulas.branches import Instructed
from lmms_fixattn.methods.formulas.contrast import contrast
from lmms_fixattn.methods.views import Step

DISTURBANCE = "You are a confused objects detector to provide a fuzzy overview or impression of the image."


@dataclass(frozen=True)
class ICD(Method):
    """Contrast the next-token scores with those of the same image and text behind a disturbing instruction.

    With z and z' the logits of the prompt and of the prompt after ``DISTURBANCE``, right behind the token that begins
    the sequence::

        out = (1 + alpha) z - alpha z',   -inf where z < log(cutoff) + max(z)

    Source: arXiv:2403.18715 and the released code p1k0pan/ICD at 91ed22f, whose strength and cutoff are the
    defaults. Of its five disturbances, none of which is marked as the default, this is the fourth. There the words
    stand in place of LLaVA's system prompt; here they stand before the whole prompt, which is the same where the prompt
    has no system prompt.
    """

    name: ClassVar[str] = "icd"
    summary: ClassVar[str] = "contrast the logits with those after an instruction to be vague"
    source: ClassVar[str] = "arXiv:2403.18715; github.com/p1k0pan/ICD"
    cite: ClassVar[str] = "wang2024icd"
    verified: ClassVar[str] = "its formula, on LLaVA written out by hand"
    needs_tokenizer: ClassVar[bool] = True

    alpha: float = number(1.0, "strength of the contrast; 0 turns it off", low=0)
    cutoff: float = number(0.1, "keep tokens with at least this share of the top probability", low=0, high=1)

    @property
    def branch(self) -> Instructed | None:
        return Instructed(DISTURBANCE) if self.alpha else None

    def guide(self, scores: torch.Tensor, step: Step) -> torch.Tensor:
        return contrast(scores, step.branch, self.alpha, self.cutoff).log_softmax(dim=-1)
