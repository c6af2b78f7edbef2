"""Nucleus sampling: draw each token from the likeliest ones that make up most of the probability."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lmms_fixattn.methods.base import Method, number


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
