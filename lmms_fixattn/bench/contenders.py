"""What is measured: methods at settings that fit the model, however shallow it is."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from lmms_fixattn.methods import METHODS, Method, make_method, parameters_of
from lmms_fixattn.methods.text_model import TextModel
from lmms_fixattn.models.arguments import split_args

ALL = "all"
"""The word for every method at its defaults, and again without its logits refine where it has one."""


def all_methods() -> list[str]:
    """Write out what :data:`ALL` stands for."""
    refined = {name for name in METHODS if "gamma" in parameters_of(name)}
    named = ((name, *([f"{name},gamma=1"] if name in refined else [])) for name in METHODS if name != "vanilla")
    return [text for texts in named for text in texts]


def make_methods(texts: Sequence[str], text: TextModel, folder: Path) -> dict[str, Method]:
    """Make methods of "NAME" or "NAME,key=value,...", labelled "NAME, key=value, ...", the unmodified model first.

    "all" stands for :func:`all_methods`.

    What the text does not say, and a method's defaults take from LLaVA-1.5-7B, comes from its ``Method.example`` for
    the model. Costs depend on these; answers are not judged.

    Args:
        folder: where statistics are written, which methods read on each use.

    Raises:
        ValueError: one given twice, an unknown method or hyper-parameter, or a value that does not fit the model.
    """
    methods: dict[str, Method] = {"vanilla": make_method("vanilla")}
    for written in itertools.chain.from_iterable(all_methods() if each == ALL else [each] for each in texts):
        name, _, others = written.partition(",")
        name, given = name.strip(), split_args(others)
        label = ", ".join([name, *(f"{key}={value}" for key, value in given.items())])
        if label == "vanilla":
            continue
        if label in methods:
            raise ValueError(f"method {label} is given twice")
        methods[label] = make_method(name, **_examples(name, given, text, folder), **given)
        methods[label].for_model(text)
    return methods


def _examples(name: str, given: Collection[str], text: TextModel, folder: Path) -> dict[str, Any]:
    """Return each part's example settings for the model, of what is not given."""
    names = [part.strip() for part in name.split("+")]
    return {
        key if len(names) == 1 else f"{part}.{key}": value
        for part in names
        if part in METHODS
        for key, value in METHODS[part].example(text, folder).items()
        if key not in given and f"{part}.{key}" not in given
    }
