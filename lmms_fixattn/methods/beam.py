"""Beam search: keep the few likeliest beginnings of an answer, not one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lmms_fixattn.methods.base import Method, count


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
