"""Attention statistics of the tests' models, made up, in files that last as long as the tests."""

from __future__ import annotations

import atexit
import tempfile
from functools import cache
from pathlib import Path

import torch

from lmms_fixattn.methods.statistics import AttentionStatistics
from lmms_fixattn.methods.text_model import TextModel

_FOLDER = tempfile.TemporaryDirectory()
atexit.register(_FOLDER.cleanup)  # at its end the interpreter would warn


@cache
def statistics_file(text_model: TextModel, seed: int = 0) -> str:
    """Write means of 0.025 to 0.1, true ones mostly larger, and return the file's path."""
    draw = torch.Generator().manual_seed(seed)
    shape = (text_model.layers, text_model.heads)
    hallucinated = 0.025 + 0.075 * torch.rand(shape, generator=draw)
    true = hallucinated * (0.7 + torch.rand(shape, generator=draw))
    path = Path(_FOLDER.name) / f"{seed}-{'-'.join(map(str, vars(text_model).values()))}.safetensors"
    AttentionStatistics(true, hallucinated, text_model, {"seed": seed}).save(path)
    return str(path)
