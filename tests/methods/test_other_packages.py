"""A method of another package: found by its entry point, run and compared like our own, and refused in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOY = '''
from dataclasses import dataclass
from typing import ClassVar

from lmms_fixattn.methods import Method
from lmms_fixattn.methods.base import number


@dataclass(frozen=True)
class Toy(Method):
    """Add ``push`` to the scores of the image."""

    name: ClassVar[str] = "toy"
    summary: ClassVar[str] = "push every head towards the image"
    source: ClassVar[str] = "nowhere"
    verified: ClassVar[str] = "nothing"

    push: float = number(1.0, "added to the scores of image tokens", low=0)

    @property
    def edited_layers(self):
        return 0, None

    def edit_scores(self, rows):
        rows.scores[..., : rows.prompt] += self.push * rows.columns.image
'''
PLAN = """
model: {pretrained: demo, batch_size: 4}
tasks: [chair_demo]
limit: 2
cells:
  - {name: vanilla, method: vanilla}
  - {name: pushed, method: toy, push: 3}
"""


@pytest.fixture
def packaged(tmp_path: Path) -> Path:
    """Return a folder of installed packages, with the toy method's and one whose method cannot be used."""
    site = tmp_path / "site"
    for name, entry, code in (
        ("toy-method", "toy = toy_method:Toy", TOY),
        ("broken-method", "broken = broken_method:Broken", "raise ImportError('no fastlib here')\n"),
        ("taken-method", "misnamed = taken_method:Toy", TOY),
    ):
        module = name.replace("-", "_")
        about = site / f"{module}-0.3.dist-info"
        about.mkdir(parents=True)
        (site / f"{module}.py").write_text(code)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.3\n")
        (about / "entry_points.txt").write_text(f"[lmms_fixattn.methods]\n{entry}\n")
    return site


def ours(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "import sys; from lmms_fixattn.cli import main; sys.exit(main())", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=site.parent, check=False)


@pytest.mark.system
def test_it_is_listed_and_told_about_and_a_broken_one_costs_nobody_the_others(packaged: Path) -> None:
    listing = ours(packaged, "methods", "--format", "json")
    assert {"pai", "toy"} < {method["name"] for method in json.loads(listing.stdout)}
    assert "the method 'broken' of broken-method 0.3 cannot be loaded: ImportError: no fastlib here" in listing.stderr
    assert "Add ``push`` to the scores of the image." in ours(packaged, "methods", "toy").stdout
    for name, said in (
        ("broken", "method 'broken' of broken-method 0.3 cannot be loaded: ImportError: no fastlib here"),
        ("misnamed", "method 'misnamed' of taken-method 0.3 calls itself 'toy'; its entry point must have that name"),
    ):
        refused = ours(packaged, "methods", name)
        assert refused.returncode == 1
        assert said in refused.stderr
        assert refused.stderr.count("\n") == 1


@pytest.mark.system
def test_a_sweep_runs_and_compares_it(packaged: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN)
    done = ours(packaged, "sweep", "plan.yaml", "--output", "out")
    assert done.returncode == 0, done.stderr
    (result,) = (tmp_path / "out/cells/pushed").rglob("*_results.json")
    method = json.loads(result.read_text())["lmms_fixattn"]["method"]
    assert method == {"name": "toy", "push": 3.0, "package": "toy-method 0.3"}
    answers = [(tmp_path / f"out/cells/{cell}/answers.jsonl").read_text() for cell in ("vanilla", "pushed")]
    assert answers[0] != answers[1]
    compared = ours(packaged, "compare", "out/cells/vanilla", "out/cells/pushed")
    assert compared.returncode == 0, compared.stderr
    assert "pushed" in compared.stdout
