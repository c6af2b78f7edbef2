"""Every method with settings that fit the tests' models, which are shallower than what defaults are made for."""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path
from typing import Any

from method_cases import METHOD_CASES
from statistics_files import statistics_file
from tiny_llava import text_model

from lmms_fixattn import METHODS, make_method
from lmms_fixattn.methods import Method
from lmms_fixattn.methods.text_model import TextModel

_FOLDER = tempfile.TemporaryDirectory()
atexit.register(_FOLDER.cleanup)  # at its end the interpreter would warn
_DEMO = TextModel("llama", 128, 4, 4, 4)
_SINKS = {text_model(): "[6,23]", text_model(3): "[6,23]", _DEMO: "[6,67]"}
"""Dimensions in which some states of these models are large, and others are not."""

_HEADS = {text_model(): "[1:4,1:2,4:0,4:3]", text_model(3): "[1:4,1:2,4:0,4:3]", _DEMO: "[2:0,3:1,3:2]"}
"""More heads of these models than AD-HH's share."""


def _settings(name: str, text: TextModel) -> dict[str, Any]:
    settings = METHODS[name].example(text, Path(_FOLDER.name))
    own = {"statistics": statistics_file(text), "sink_dims": _SINKS[text], "heads": _HEADS[text]}
    return {**settings, **{key: value for key, value in own.items() if key in settings}}


def fitted(name: str, key_heads: int = 6, **settings: Any) -> Method:
    """Make a method that fits the model of ``tiny_llava``, and acts on answers of a few tokens."""
    return make_method(name, **_settings(name, text_model(key_heads)) | dict(METHOD_CASES[name].short) | settings)


DEMO_METHODS = {name: _settings(name, _DEMO) for name in METHODS}
"""By name, the settings to give beside ``method=`` on the packaged demo model."""
