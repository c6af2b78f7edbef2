"""`lmms-fixattn check`: its recorded answers are the naive ones, and it sees what is well and what is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from recorded_answers import PROMPTS, SETTINGS, record

from lmms_fixattn import METHODS, cli, versions
from lmms_fixattn.harness import check
from lmms_fixattn.harness.check import BOUND, Packaged, read_recorded

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def packaged():
    return Packaged(torch.device("cpu"), torch.float32)


@pytest.fixture(autouse=True)
def _insisting_ends_with_the_test(monkeypatch):
    monkeypatch.setenv(versions.INSIST, "")


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_recorded_is_what_the_naive_implementation_gives(packaged, tmp_path, name):
    asked, recorded = read_recorded()
    assert asked == [list(prompt) for prompt in PROMPTS]
    assert recorded[name].settings == SETTINGS[name]
    again = record(name, packaged, tmp_path, PROMPTS[1:2])
    assert torch.equal(again[f"{name}.tokens"], recorded[name].tokens[1:2])
    torch.testing.assert_close(again[f"{name}.scores"], recorded[name].scores[1:2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "vanilla"])
def test_each_recorded_method_is_told_from_vanilla_in_half_precision_too(packaged, name):
    """A method that does nothing lies further from its recorded answers than any bound."""
    asked, recorded = read_recorded()
    prompts = packaged.prompts(asked)
    start = max(len(prompt.ids) for prompt in prompts)
    apart, _ = recorded[name].distance(packaged.generate(prompts), range(len(prompts)), start, 2)
    assert apart > 2 * BOUND[torch.float16]


@pytest.mark.parametrize("dtype", [torch.float16], ids=str)
def test_half_precision_stays_within_its_bound(dtype):
    model = Packaged(torch.device("cpu"), dtype)
    asked, recorded = read_recorded()
    prompts = model.prompts(asked)
    start = max(len(prompt.ids) for prompt in prompts)
    apart, _ = recorded["vanilla"].distance(model.generate(prompts), range(len(prompts)), start, 2)
    assert apart < BOUND[dtype]


def test_every_method_has_a_line_and_is_well():
    found = {finding.what.partition(",")[0]: finding for finding in check.methods()}
    assert set(found) == set(METHODS)
    assert [finding for finding in found.values() if finding.well is not True] == []


def test_a_method_that_does_something_else_or_nothing_is_off(monkeypatch):
    monkeypatch.setattr(METHODS["hgai"], "edit_scores", lambda self, rows: None)
    monkeypatch.setattr(METHODS["truncate"], "ends", lambda self, answer: len(answer) > 3)
    own = METHODS["spin"].edit_weights
    monkeypatch.setattr(METHODS["spin"], "edit_weights", lambda self, rows, weights: own(self, rows, weights.flip(1)))
    off = {finding.what.partition(",")[0] for finding in check.methods() if finding.well is False}
    assert {"hgai", "spin"} <= off
    assert off <= {"hgai", "spin", "truncate"}


def test_the_command_says_what_is_off_and_ends_with_status_1(monkeypatch, capsys):
    monkeypatch.setattr(check, "methods", lambda: iter(()))
    real = versions.version
    monkeypatch.setattr(versions, "version", lambda name: "5.25.1" if name == "transformers" else real(name))
    assert cli.main(["check"]) == 1
    printed = capsys.readouterr()
    assert "OFF versions" in printed.out
    assert 'pip install "transformers<5.25,>=5.17"' in printed.err
    assert "newer than the newest tried" in printed.out


def test_it_passes_offline_from_an_empty_home(tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [str(Path(sys.executable).parent / "lmms-fixattn"), "check"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert sum(line.startswith("ok") for line in lines) == 2 + len(METHODS)
    assert lines[-1].startswith("All as it should be")
