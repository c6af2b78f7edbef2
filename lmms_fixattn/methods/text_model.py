"""Which text model a checkpoint has, for constants that were published for particular ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class TextModel:
    """What tells text models apart that others' constants were found on.

    The number of layers and heads does not: BakLLaVA and LLaVA on Llama 3 have 32 of each, as LLaVA-1.5-7B has. Nor do
    all sizes: LLaVA-NeXT on Vicuna has those of LLaVA-1.5, and other weights.
    """

    family: str
    hidden_size: int
    layers: int
    heads: int
    key_heads: int
    within: str = "llava"
    """The ``model_type`` of the vision-language model around it."""

    @classmethod
    def of(cls, config: Any, within: str = "llava") -> TextModel:
        """Read a transformers text configuration."""
        shape = config.hidden_size, config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads
        return cls(config.model_type, *shape, within)

    def published(self, constants: Mapping[TextModel, T], what: str, instead: str) -> T:
        """Return the constants published for this model.

        Args:
            what, instead: for the error, what they are and how to give one's own.

        Raises:
            ValueError: none are.
        """
        if self not in constants:
            raise ValueError(
                f"{what} are published for {' and '.join(map(str, constants))}, this model is {self}; {instead}"
            )
        return constants[self]

    def __str__(self) -> str:
        known = _NAMES.get(self)
        shape = f"{self.family}, {self.layers} layers, {self.heads} heads, {self.key_heads} key heads"
        place = "" if self.within == "llava" else f" of a {self.within}"
        return known or f"another{place} ({shape}, hidden size {self.hidden_size})"


LLAVA_7B = TextModel("llama", 4096, 32, 32, 32)
LLAVA_13B = TextModel("llama", 5120, 40, 40, 40)
_NAMES = {LLAVA_7B: "LLaVA-1.5-7B", LLAVA_13B: "LLaVA-1.5-13B"}
