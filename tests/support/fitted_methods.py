"""Every method with settings that fit the tests' models, which are shallower than what defaults are made for."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from statistics_files import statistics_file
from tiny_llava import text_model

from lmms_fixattn import METHODS, make_method
from lmms_fixattn.methods import Method
from lmms_fixattn.methods.text_model import TextModel

_FOLDER = tempfile.TemporaryDirectory()
_DEMO = TextModel("llama", 128, 4, 4, 4)
_SHORT: dict[str, dict[str, Any]] = {"truncate": {"words": 2}, "no_repeat_ngram": {"size": 1}}
"""What acts on answers of a few tokens."""


def _settings(name: str, text: TextModel) -> dict[str, Any]:
    settings = METHODS[name].example(text, Path(_FOLDER.name))
    return {**settings, "statistics": statistics_file(text)} if "statistics" in settings else settings


def fitted(name: str, key_heads: int = 6, **settings: Any) -> Method:
    """Make a method that fits the model of ``tiny_llava``, and acts on answers of a few tokens."""
    return make_method(name, **_settings(name, text_model(key_heads)) | _SHORT.get(name, {}) | settings)


DEMO_METHODS = {name: _settings(name, _DEMO) for name in METHODS}
"""By name, the settings to give beside ``method=`` on the packaged demo model."""
