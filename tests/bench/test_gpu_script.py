"""benchmarks/gpu.py runs from end to end on a tiny shape, and keeps what it has when a step fails."""

from __future__ import annotations

import importlib.util
import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import CompileConfig

from lmms_fixattn.models import transformers_api

pytestmark = pytest.mark.system

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture
def gpu(monkeypatch):
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu", module)  # where dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.system
def test_the_whole_measurement_runs_on_a_tiny_shape(gpu, tmp_path, capsys):
    path = tmp_path / "gpu.json"
    assert gpu.main(["--smoke", "--modes", "growing", "static", "--output", str(path)]) == 0
    found = json.loads(path.read_text())
    kinds = ["batch 1", "batch 2", "captions, fixattn, gamma=1", "captions, fixattn"]
    assert list(found["steps"]) == [f"{mode}, {kind}" for mode in ("growing", "static") for kind in kinds]
    captions = found["steps"]["growing, captions, fixattn"]
    assert (captions["captions"], captions["tokens"]) == (8, 8 * 4)
    by_name = {row["method"]: row for row in found["steps"]["static, batch 2"]["rows"]}
    aims = {(where, what): reached for where, what, _, reached in found["targets"]}
    assert len(aims) == 2 * (1 + 3 + 2)
    ratio = by_name["fixattn, gamma=1"]["step_ratio"]
    assert aims["static, batch 2", "fixattn, gamma=1: decode, times vanilla"] == f"{ratio:.3f}"
    assert "at least 15" in capsys.readouterr().out


@pytest.mark.system
def test_compiled_steps_are_compiled_once_and_measured_afterwards(gpu, tmp_path, monkeypatch):
    torch.compiler.reset()
    graphs = []

    def backend(graph, example):
        graphs.append(graph)
        return graph

    monkeypatch.setattr(transformers_api, "CompileConfig", partial(CompileConfig, backend=backend, mode=None))
    path = tmp_path / "gpu.json"
    try:
        assert gpu.main(["--smoke", "--modes", "compiled", "--output", str(path)]) == 0
    finally:
        torch.compiler.reset()
    steps = json.loads(path.read_text())["steps"]
    assert [name for name, step in steps.items() if "error" in step] == []
    # Vanilla and both settings of FixAttn at batch 1 and at others, whose number of rows a graph leaves open.
    assert len(graphs) == 3 * 2
    rows = [row for step in steps.values() for row in step.get("rows", ())]
    assert len(rows) == 2 * 6
    assert {row["compilations"] for row in rows} == {0}
    assert steps["compiled, captions, fixattn"]["tokens"] == 8 * 4


def test_a_step_that_fails_is_recorded_and_the_others_run(gpu, tmp_path, monkeypatch, capsys):
    def fails(*arguments):
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(gpu, "measure", fails)
    path = tmp_path / "gpu.json"
    assert gpu.main(["--smoke", "--modes", "growing", "--output", str(path)]) == 1
    steps = json.loads(path.read_text())["steps"]
    assert steps["growing, batch 1"]["error"] == "RuntimeError: out of memory"
    assert steps["growing, captions, fixattn"]["seconds"] > 0
    assert "growing, batch 2: RuntimeError: out of memory" in capsys.readouterr().out


def test_results_are_there_after_each_step(gpu, tmp_path, monkeypatch):
    path, ran = tmp_path / "gpu.json", []

    def attempt(run):
        ran.append(len(json.loads(path.read_text())["steps"]) if path.exists() else 0)
        return {"error": "none"}

    monkeypatch.setattr(gpu, "attempt", attempt)
    gpu.main(["--smoke", "--modes", "growing", "--output", str(path)])
    assert ran == [0, 1, 2, 3]


def test_what_is_not_begun_in_time_is_left_out_and_said(gpu, tmp_path):
    path = tmp_path / "gpu.json"
    assert gpu.main(["--smoke", "--minutes", "0", "--output", str(path)]) == 1
    steps = json.loads(path.read_text())["steps"]
    assert len(steps) == 8
    assert {step["error"] for step in steps.values()} == {"not begun in 0 minutes"}


def test_without_a_gpu_it_says_so(gpu, monkeypatch, capsys):
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "torch sees no CUDA GPU here; --smoke" in capsys.readouterr().err
