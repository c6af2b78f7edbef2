"""The unmodified model, down the same road as every method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmms_fixattn.methods.base import Method


@dataclass(frozen=True)
class Vanilla(Method):
    """Change nothing: the baseline that every method is compared with."""

    name: ClassVar[str] = "vanilla"
    summary: ClassVar[str] = "the unmodified model"
    source: ClassVar[str] = "LLaVA-1.5, arXiv:2310.03744"
    cite: ClassVar[str] = "liu2024llava15"
    verified: ClassVar[str] = "itself without the plugin, to the bit"
