"""The notebook in examples/ runs from top to bottom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "examples" / "first_steps.ipynb"


@pytest.mark.system
@pytest.mark.filterwarnings("ignore")  # transformers' own
def test_the_notebook_runs_from_top_to_bottom(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"], "clear the notebook's outputs: they are of somebody's machine"
            exec(compile("".join(cell["source"]), str(NOTEBOOK), "exec"), names)
    assert set(names["runs"]) == {"vanilla", "pai", "fixattn"}
    assert names["runs"]["vanilla"] != names["runs"]["pai"]
    assert names["table"]["value"].unstack().loc["vanilla", "recall"] > 80
    assert "fixattn: CHAIR_s" in capsys.readouterr().out
