"""No-repeat-ngram: never write the same n tokens twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lmms_fixattn.methods.base import Method, count


@dataclass(frozen=True)
class NoRepeatNgram(Method):
    """Exclude every token that would repeat ``size`` tokens of the prompt or the answer in a row.

    transformers' ``no_repeat_ngram_size``. Source: arXiv:1705.04304, section 2.5, with its trigrams.
    """

    name: ClassVar[str] = "no_repeat_ngram"
    summary: ClassVar[str] = "exclude tokens that would repeat an n-gram"
    source: ClassVar[str] = "arXiv:1705.04304"
    cite: ClassVar[str] = "paulus2018trigrams"
    verified: ClassVar[str] = "transformers asked for it directly"

    size: int = count(3, "length of the n-grams that may not come twice; 0 turns the method off", low=0)

    @property
    def generation(self) -> Mapping[str, Any]:
        return {"no_repeat_ngram_size": self.size} if self.size else {}
