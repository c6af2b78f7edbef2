"""What is measured: methods at settings that fit the model, however shallow it is."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from lmms_fixattn.attention_statistics import AttentionStatistics
from lmms_fixattn.methods import METHODS, Method, make_method, parameters_of
from lmms_fixattn.methods.base import PUBLISHED, Layers, layer_range
from lmms_fixattn.model_args import split_args
from lmms_fixattn.text_model import TextModel

_DEPTH = 32
"""Layers of LLaVA-1.5-7B, to which the methods' default layers belong."""
_LAYER_RANGE: str = layer_range((0, None), "").metadata["expected"]
"""What marks a hyper-parameter as a range of layers."""
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

    What a method's defaults take from LLaVA-1.5-7B, and the text does not say, is put in proportion to the model:
    default layers become the same share of a shallower one's, AD-HH's heads as large a share of its heads, VAR looks at
    two dimensions, and AdaIAT gets statistics with which it always acts. Costs depend on these; answers are not judged.

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
        methods[label] = make_method(name, **_proportionate(name, given, text, folder), **given)
        methods[label].for_model(text)
    return methods


def share_of_layers(layers: Layers, depth: int) -> Layers:
    """Return the layers of a model of this depth that are as large a share of it as ``layers`` are of 32.

    Part of a layer counts as one; an open end stays open.
    """
    start, end = layers
    start = start * depth // _DEPTH
    return start, end and max(start + 1, -(-end * depth // _DEPTH))


def _proportionate(name: str, given: Collection[str], text: TextModel, folder: Path) -> dict[str, Any]:
    """Return settings in proportion to the model, of what is not given."""
    settings: dict[str, Any] = {}
    names = [part.strip() for part in name.split("+")]
    for part in names:
        for parameter in dataclasses.fields(METHODS[part]) if part in METHODS else ():
            key = parameter.name if len(names) == 1 else f"{part}.{parameter.name}"
            value = _in_proportion(parameter, text, folder)
            if value is not None and key not in given and parameter.name not in given:
                settings[key] = value
    return settings


def _in_proportion(parameter: dataclasses.Field[Any], text: TextModel, folder: Path) -> Any:
    """Return what stands for LLaVA-1.5-7B's value in another model, None if the default does."""
    if parameter.metadata["expected"] == _LAYER_RANGE and text.layers < _DEPTH:
        layers: Any = parameter.default
        return share_of_layers(layers, text.layers)
    if parameter.name == "heads" and parameter.default == PUBLISHED:
        return _heads(text)
    if parameter.name == "sink_dims":
        return [0, text.hidden_size - 1]
    if parameter.name == "statistics":
        path = folder / "statistics.safetensors"
        means = torch.ones(text.layers, text.heads)
        AttentionStatistics(1.2 * means, means, text, {}).save(path)
        return str(path)
    return None


def _heads(text: TextModel) -> list[tuple[int, int]]:
    """Return 20 of every 32 x 32 heads, of the deeper half of the layers in turns, as the published ones are."""
    count = -(-20 * text.layers * text.heads // _DEPTH**2)
    deeper = range(text.layers // 2, text.layers)
    return [(layer, head) for head, layer in itertools.islice(itertools.product(range(text.heads), deeper), count)]
