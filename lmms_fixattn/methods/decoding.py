"""Decoding variants of transformers as methods, so that a table's row says what it was made with.

They are arguments of ``generate`` under a name, and win over what a task asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lmms_fixattn.methods.base import Method, count, number


@dataclass(frozen=True)
class Beam(Method):
    """Search for the answer of the largest mean log-probability with ``beams`` beams: transformers' ``num_beams``.

    Source: arXiv:1409.3215, section 3.2. The usual setting of papers that compare with beam search is 5 beams.
    """

    name: ClassVar[str] = "beam"
    summary: ClassVar[str] = "beam search"
    source: ClassVar[str] = "arXiv:1409.3215"
    cite: ClassVar[str] = "sutskever2014beam"
    verified: ClassVar[str] = "transformers asked for it directly"

    beams: int = count(5, "beams; 1 is greedy search", low=1)

    @property
    def generation(self) -> Mapping[str, Any]:
        return {"num_beams": self.beams} if self.beams > 1 else {}


@dataclass(frozen=True)
class Nucleus(Method):
    """Sample from the smallest set of tokens whose probability is at least ``top_p``, at ``temperature``.

    transformers' ``do_sample``, ``top_p`` and ``temperature``, with its ``top_k`` off. Source: arXiv:1904.09751, eq. 2.
    """

    name: ClassVar[str] = "nucleus"
    summary: ClassVar[str] = "nucleus sampling"
    source: ClassVar[str] = "arXiv:1904.09751"
    cite: ClassVar[str] = "holtzman2020nucleus"
    verified: ClassVar[str] = "transformers asked for it directly"

    top_p: float = number(0.9, "probability that the nucleus holds", low=1e-6, high=1)
    temperature: float = number(1.0, "divides the logits before sampling; 0 is greedy search", low=0)

    @property
    def generation(self) -> Mapping[str, Any]:
        if not self.temperature:
            return {}
        return {"do_sample": True, "top_p": self.top_p, "temperature": self.temperature, "top_k": 0}


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
