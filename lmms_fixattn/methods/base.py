"""What a method is: a frozen dataclass of hyper-parameters and the few hooks that it needs."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from lmms_fixattn.errors import did_you_mean
from lmms_fixattn.methods.formulas.branches import Branch
from lmms_fixattn.methods.text_model import TextModel
from lmms_fixattn.methods.views import Rows, Step, VisionAttention

Layers = tuple[int, "int | None"]
Parser = Callable[[Any], Any]
PUBLISHED = "published"
"""A per-model constant that ``Method.for_model`` looks up."""
_PUBLISHED_DEPTH = 32
"""Layers of LLaVA-1.5-7B, to which the methods' default layers belong."""


@dataclass(frozen=True)
class Method:
    """A decoding-time method. The empty method leaves the model as it is.

    A subclass adds hyper-parameters with :func:`number`, :func:`switch`, :func:`choice` and :func:`layer_range`, which
    check and convert a value whether it came typed or as a string, and overrides the hooks that it needs:

    - ``select``: once an image, which of its tokens are selected, and how strongly (``rows.columns.gain``);
    - ``edit_scores``: in every edited layer, the scores of its rows before softmax: the newest row of each prompt, or
      in the prefill of a method with ``edits_text_rows`` all its text after the image;
    - ``edit_weights``: their weights after softmax;
    - ``observe_input``: what to keep for an edited layer when the prompt enters it;
    - ``for_model``: the same method with constants that were published for this model;
    - ``guide``: from the next-token scores, and those of a second ``branch`` or of ``early_layers``, new ones;
    - ``generation``: arguments of ``generate``;
    - ``ask``: from a task's question, the one to ask instead;
    - ``ends``: whether an answer so far is to end.

    The engine calls a hook only where it is overridden (``has``).
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    cite: ClassVar[str] = ""
    """The paper's key in references.bib, or in a bibliography of the method's own package; empty if there is none."""
    verified: ClassVar[str]
    """What the method's outputs were compared with."""
    edits_text_rows: ClassVar[bool] = False
    """Whether the prefill's edit is of every row of text after the image, not only of the newest row."""
    needs_tokenizer: ClassVar[bool] = False
    """Whether the method reads or writes text."""

    def __post_init__(self) -> None:
        for parameter in dataclasses.fields(self):
            value = getattr(self, parameter.name)
            try:
                parsed = parameter.metadata["parse"](value)
            except (TypeError, ValueError, OverflowError):
                hint = did_you_mean(value, parameter.metadata["options"])
                raise ValueError(
                    f"{self.name}: {parameter.name} must be {parameter.metadata['expected']}, got {value!r}{hint}"
                ) from None
            object.__setattr__(self, parameter.name, parsed)

    @classmethod
    def has(cls, hook: str) -> bool:
        """Say whether the method has a hook of its own."""
        return getattr(cls, hook) is not getattr(Method, hook)

    @classmethod
    def example(cls, text: TextModel, folder: Path) -> dict[str, Any]:
        """Return settings with which the method fits a model, where its defaults were made for another.

        For benchmarks and tests, which want every method to run on any model: what it costs and whether it acts can be
        seen with these, not how good it is. Ranges of layers are made as large a share of the model's as they are of
        LLaVA-1.5-7B's 32; a method with constants of one model overrides this.

        Args:
            folder: where a method that reads a file may write one.
        """
        ranges: list[Any] = [parameter for parameter in dataclasses.fields(cls) if parameter.metadata["is_layers"]]
        if text.layers >= _PUBLISHED_DEPTH:
            return {}
        return {parameter.name: share_of_layers(parameter.default, text.layers) for parameter in ranges}

    @property
    def vision_parts(self) -> frozenset[str]:
        """The parts of the vision tower's attention that ``select`` reads: names of VisionAttention's fields."""
        return frozenset()

    @property
    def edited_layers(self) -> Layers | frozenset[int] | None:
        """The decoder layers to edit: a range with the end excluded, or just these; None if there are none.

        By default those of the hyper-parameter ``layers``, where the method has it and edits attention.
        """
        edits = self.has("edit_scores") or self.has("edit_weights")
        return getattr(self, "layers", None) if edits else None

    @property
    def parts(self) -> tuple[Method, ...]:
        """The methods that this one is made of, in the order in which they act: itself, unless it is a composition."""
        return (self,)

    @property
    def branch(self) -> Branch | None:
        """What the contrastive branch reads, which costs a second row in every step; None if there is none."""
        return None

    @property
    def early_layers(self) -> Layers | None:
        """The layers whose inputs ``guide`` reads as logits, 0 for the embeddings: a range with the end excluded."""
        return None

    @property
    def guides(self) -> bool:
        """Whether ``guide`` is used."""
        return self.branch is not None or self.early_layers is not None

    @property
    def generation(self) -> Mapping[str, Any]:
        """Arguments of ``generate`` that the method sets."""
        return {}

    def settings(self) -> dict[str, Any]:
        """Return every hyper-parameter by name, for records."""
        return dataclasses.asdict(self)

    def changed(self) -> dict[str, Any]:
        """Return the hyper-parameters that are not at their defaults."""
        defaults = {
            parameter.name: parameter.metadata["parse"](parameter.default) for parameter in dataclasses.fields(self)
        }
        return {name: value for name, value in self.settings().items() if value != defaults[name]}

    def for_model(self, text: TextModel) -> Method:
        """Return this method with its per-model constants filled in; by default it has none.

        Raises:
            ValueError: none are published for such a model, and none are given; says how to find them.
        """
        return self

    def needs_row(self, prefill: bool) -> bool:
        """Say whether this phase is edited; where not, the row is left to the model's own kernel."""
        return True

    def select(self, vision: VisionAttention) -> torch.Tensor:
        """Return the gain of each image token, [images, tokens an image]; 0 for those that are not selected."""
        raise NotImplementedError(f"{self.name} selects no image tokens")

    def observe_input(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """Return what to keep for an edited layer, as ``rows.observed[layer]``, when the prompt enters it.

        Args:
            hidden: the states entering the layer, [prompts, prompt, hidden size], before its norm.

        Returns:
            A tensor whose first dimension is the prompts'; what goes by column has three, [prompts, 1, prompt].
        """
        raise NotImplementedError(f"{self.name} reads the inputs of layers but does not say what to keep")

    def edit_scores(self, rows: Rows) -> None:
        """Change ``rows.scores`` in place."""

    def edit_weights(self, rows: Rows, weights: torch.Tensor) -> None:
        """Change the weights, float32 [rows, heads, keys], in place; a masked key's is 0.

        A factor on all weights of a head is the same factor on its output.
        """

    def guide(self, scores: torch.Tensor, step: Step) -> torch.Tensor:
        """Return new next-token scores, [rows, vocabulary] like ``scores``; excluded tokens (-inf) stay excluded."""
        raise NotImplementedError(f"{self.name} guides but does not say how")

    def ask(self, question: str) -> str:
        """Return the question to ask in place of a task's; the caller asks it, before the prompt is made."""
        return question

    def ends(self, answer: str) -> bool:
        """Return whether an answer so far is to end here."""
        raise NotImplementedError(f"{self.name} ends answers but does not say where")


def share_of_layers(layers: Layers, depth: int) -> Layers:
    """Return the layers of a model of this depth that are as large a share of it as ``layers`` are of 32.

    Part of a layer counts as one; an open end stays open.
    """
    start, end = layers
    start = start * depth // _PUBLISHED_DEPTH
    return start, end and max(start + 1, -(-end * depth // _PUBLISHED_DEPTH))


def number(default: float, meaning: str, *, low: float = -math.inf, high: float = math.inf) -> Any:
    """Declare a finite real hyper-parameter in [low, high]."""
    return _bounded(default, meaning, "a number", _real, low, high)


def count(default: int, meaning: str, *, low: int = 0, high: float = math.inf) -> Any:
    """Declare a whole hyper-parameter of at least ``low`` and at most ``high``."""
    return _bounded(default, meaning, "a whole number", _whole, low, high)


def boolean(value: Any) -> bool:
    """Return what a word of ``--model_args`` says: true, 1, yes, on, or false, 0, no, off.

    Raises:
        ValueError: another word, or what is no word.
    """
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.strip().lower() not in words:
        raise ValueError(f"expected true or false, got {value!r}")
    return words[value.strip().lower()]


def switch(default: bool, meaning: str) -> Any:
    """Declare an on/off hyper-parameter."""
    return _declare(default, meaning, "true or false", boolean)


def choice(default: str, meaning: str, options: tuple[str, ...]) -> Any:
    """Declare a hyper-parameter that is one of a few words."""

    def parse(value: Any) -> str:
        if value not in options:
            raise ValueError
        return str(value)

    return _declare(default, meaning, f"one of {', '.join(options)}", parse, options)


def layer_range(default: Layers, meaning: str) -> Any:
    """Declare a range of decoder layers with the end excluded: (2, 32) or "2-32"; open: (2, None) or "2-"."""

    def parse(value: Any) -> Layers:
        if isinstance(value, str):
            first, dash, last = value.strip().partition("-")
            start, end = int(first), (int(last) if last else None)
            if not dash:
                raise ValueError
        else:
            start, end = value
            if any(isinstance(bound, bool) or not isinstance(bound, int | None) for bound in (start, end)):
                raise ValueError
        if start is None or start < 0 or (end is not None and end <= start):
            raise ValueError
        return start, end

    return _declare(default, meaning, 'a range of layers with the end excluded ("2-32", "2-")', parse, is_layers=True)


def head_list(meaning: str) -> Any:
    """Declare a list of heads, by default those published for the model: "16:29 26:9" or [(16, 29), (26, 9)]."""

    def pair(item: Any) -> tuple[int, int]:
        layer, head = item.split(":") if isinstance(item, str) else item
        return _whole(layer), _whole(head)

    return _per_model(meaning, 'published, or heads as layer:head ("[16:29,26:9]")', pair)


def dimension_list(meaning: str) -> Any:
    """Declare a list of dimensions of the hidden state, by default those published for the model: "[1415,2533]"."""
    return _per_model(meaning, 'published, or dimensions of the hidden state ("[1415,2533]")', _whole)


def word(default: str, meaning: str, expected: str, pattern: str) -> Any:
    """Declare a hyper-parameter that is a word by default, or a text that matches a pattern as a whole."""

    def parse(value: Any) -> str:
        if not isinstance(value, str) or (value != default and not re.fullmatch(pattern, value)):
            raise ValueError
        return value

    return _declare(default, meaning, expected, parse)


def _per_model(meaning: str, expected: str, item: Parser) -> Any:
    def parse(value: Any) -> Any:
        if value == PUBLISHED:
            return value
        items = value.strip(" []").replace(",", " ").split() if isinstance(value, str) else value
        if not (parsed := tuple(item(part) for part in items)):
            raise ValueError
        return parsed

    return _declare(PUBLISHED, meaning, expected, parse)


def _bounded(default: float, meaning: str, kind: str, convert: Parser, low: float, high: float) -> Any:
    def parse(value: Any) -> Any:
        if not low <= (parsed := convert(value)) <= high:
            raise ValueError
        return parsed

    bounds = f" in [{low:g}, {high:g}]" if math.isfinite(high) else f" >= {low:g}" if math.isfinite(low) else ""
    return _declare(default, meaning, f"{kind}{bounds}", parse)


def _real(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(parsed := float(value)):
        raise ValueError
    return parsed


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str) or (parsed := int(value)) < 0:
        raise ValueError
    return parsed


def _declare(
    default: Any, meaning: str, expected: str, parse: Parser, options: tuple[str, ...] = (), is_layers: bool = False
) -> Any:
    metadata = {"meaning": meaning, "expected": expected, "parse": parse, "options": options, "is_layers": is_layers}
    return field(default=default, metadata=metadata)
