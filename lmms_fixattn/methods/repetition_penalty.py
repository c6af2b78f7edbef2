"""Repetition penalty: make tokens that were there before less likely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lmms_fixattn.methods.base import Method, number


@dataclass(frozen=True)
class RepetitionPenalty(Method):
    """Divide the positive, and multiply the negative, scores of tokens of the prompt and the answer by ``penalty``.

    transformers' ``repetition_penalty``. Source: arXiv:1909.05858, section 4.1, whose penalty is the default.
    """

    name: ClassVar[str] = "repetition_penalty"
    summary: ClassVar[str] = "lower the scores of tokens that were there before"
    source: ClassVar[str] = "arXiv:1909.05858"
    cite: ClassVar[str] = "keskar2019ctrl"
    verified: ClassVar[str] = "transformers asked for it directly"

    penalty: float = number(1.2, "factor on the scores of tokens that were there before; 1 turns it off", low=1)

    @property
    def generation(self) -> Mapping[str, Any]:
        return {"repetition_penalty": self.penalty} if self.penalty > 1 else {}
