"""A small sweep on the packaged model: its configuration, its results, and the line that it ended with."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import scripted_lm  # noqa: F401  imports lmms-eval without its warnings
import torch

from lmms_fixattn.harness.model import FixattnModel
from lmms_fixattn.harness.sweep_config import SweepPlan, read_plan

CONFIG = """
model: {pretrained: demo, device: cpu, batch_size: 3}
tasks: [chair_demo]
limit: 4
cells:
  - {name: original, method: vanilla}
grid: {method: fixattn, alpha: [0.3, 0.7]}
"""


def digests(lm: FixattnModel, inputs: dict[str, torch.Tensor]) -> list[str]:
    rows = zip(inputs["input_ids"], inputs["pixel_values"], strict=True)
    return [
        hashlib.sha256(repr((lm.method, ids.tolist(), pixels.tolist())).encode()).hexdigest()[:12]
        for ids, pixels in rows
    ]


def plan_of(tmp_path: Path, text: str = CONFIG, limit: int | None = None) -> SweepPlan:
    (tmp_path / "config.yaml").write_text(text)
    return read_plan(str(tmp_path / "config.yaml"), limit)


def samples(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The logged samples of a result folder by task."""
    found = {path.name.partition("_samples_")[2]: path for path in folder.rglob("*_samples_*.jsonl")}
    return {name: [json.loads(line) for line in path.read_text().splitlines()] for name, path in found.items()}


def result(folder: Path) -> dict[str, Any]:
    (path,) = folder.rglob("*_results.json")
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    """The line that a sweep ended with; nothing else that it printed tells of an error."""
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if "error:" in line or "stopped" in line]
    assert len(lines) == 1
    assert err.endswith(f"{lines[0]}\n")
    return lines[0]
