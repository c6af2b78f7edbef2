"""Every method as it fits the packaged demo model, which is shallower than those that constants were chosen on."""

from __future__ import annotations

from typing import Any

from statistics_files import statistics_file

from lmms_fixattn import METHODS
from lmms_fixattn.text_model import TextModel

_FITTED: dict[str, dict[str, Any]] = {
    "hgai": {"layers": "1-3"},
    "vaf": {"layers": "1-3"},
    "adhh": {"heads": "[2:0,3:1,3:2]", "threshold": 0.1},
    "var": {"sink_dims": "[6,67]", "tau": 1.8, "p": 0.1},
    "iat": {"layers": "1-3"},
    "deco": {"layers": "2-4"},
    "adaiat": {"layers": "1-3", "statistics": statistics_file(TextModel("llama", 128, 4, 4, 4))},
}
DEMO_METHODS = {name: _FITTED.get(name, {}) for name in METHODS}
"""By name, the settings to give beside ``method=``."""
