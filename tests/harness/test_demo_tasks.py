"""Every method on the packaged tasks, through lmms-eval, as a user compares them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from fitted_methods import DEMO_METHODS

from lmms_fixattn import cli

pytestmark = [pytest.mark.system, pytest.mark.filterwarnings("ignore")]  # lmms-eval's own warnings


def test_every_method_answers_and_acts_on_the_demo_tasks(tmp_path: Path) -> None:
    cells = [{"name": name, "method": name, **settings} for name, settings in DEMO_METHODS.items()]
    tasks = ["chair_demo_unfamiliar", "pope_demo_random"]
    config = tmp_path / "all.yaml"
    model = {"pretrained": "demo", "batch_size": 6}
    config.write_text(yaml.safe_dump({"model": model, "tasks": tasks, "cells": cells}))
    assert cli.main(["sweep", str(config), "--limit", "6", "--output", str(tmp_path / "out")]) == 0
    captions = {}
    for name in DEMO_METHODS:
        result = json.loads(next((tmp_path / "out" / "cells" / name).rglob("*_results.json")).read_text())
        assert result["lmms_fixattn"]["method"]["name"] == name
        assert set(tasks) <= set(result["results"])
        samples = next((tmp_path / "out" / "cells" / name).rglob("*_samples_chair_demo_unfamiliar.jsonl"))
        captions[name] = [json.loads(line)["filtered_resps"] for line in samples.read_text().splitlines()]
        assert len(captions[name]) == 6
    assert [name for name, texts in captions.items() if texts == captions["vanilla"]] == ["vanilla"]
