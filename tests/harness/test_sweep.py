"""Sweeps through lmms-eval on the packaged model: ordinary results, one load, nothing lost and nothing run twice."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import scripted_lm  # imports lmms-eval without its warnings
import torch
from demo_sweep import CONFIG, digests, one_error, plan_of, result, samples

from lmms_fixattn import make_method
from lmms_fixattn.cli import main
from lmms_fixattn.harness.model import FixattnModel
from lmms_fixattn.harness.sweep import SweepError, run_sweep
from lmms_fixattn.harness.sweep_config import Cell, SweepPlan, read_plan
from lmms_fixattn.models.checkpoint import Checkpoint

pytestmark = [pytest.mark.system, pytest.mark.filterwarnings("ignore")]  # lmms-eval's own warnings

BATCHES = 9  # three cells of four scenes of both halves, in batches of 3, 3 and 2


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("LMMS_FIXATTN_") or name == "WORLD_SIZE":
            monkeypatch.delenv(name)


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The batches that the model generates, each a list of digests of method, prompt and picture."""
    batches: list[list[str]] = []
    generate = FixattnModel._generate

    def recorded(self: FixattnModel, inputs: dict[str, torch.Tensor], settings: Any) -> Any:
        batches.append(digests(self, inputs))
        return generate(self, inputs, settings)

    monkeypatch.setattr(FixattnModel, "_generate", recorded)
    return batches


def test_every_cell_is_the_result_that_lmms_eval_gives_alone_and_the_model_is_loaded_once(
    tmp_path: Path, generated: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    load = Checkpoint.load_model
    monkeypatch.setattr(Checkpoint, "load_model", lambda *args: loads.append(1) or load(*args))
    plan = plan_of(tmp_path)
    folders = run_sweep(plan, tmp_path / "out", io.StringIO())
    assert loads == [1]
    assert [len(batch) for batch in generated] == [3, 3, 2] * 3
    assert len({row for batch in generated for row in batch}) == 24
    assert list(folders) == ["original", "fixattn alpha 0.3", "fixattn alpha 0.7"]

    tracker = scripted_lm.lmms_eval.evaluator.EvaluationTracker(output_path=str(tmp_path / "alone"))
    alone = scripted_lm.lmms_eval.evaluator.simple_evaluate(
        model="llava_fixattn",
        model_args="pretrained=demo,device=cpu,batch_size=3,method=fixattn,alpha=0.3",
        tasks=["chair_demo"],
        limit=4,
        task_manager=scripted_lm.TaskManager(include_path=str(scripted_lm.TASKS), include_defaults=False),
        evaluation_tracker=tracker,
    )
    logged = alone.pop("samples")
    tracker.save_results_aggregated(results=alone, samples=logged, datetime_str="now")
    for task in alone["configs"]:
        tracker.save_results_samples(task_name=task, samples=logged[task])
    ours, theirs = folders["fixattn alpha 0.3"], tmp_path / "alone"
    assert samples(ours) == samples(theirs)
    assert {path.relative_to(ours).parent for path in ours.rglob("*_samples_*")} == {Path("demo")}
    measured = {"throughput", "efficiency", "date", "start_time", "end_time", "total_evaluation_time_seconds", "config"}
    mine, other = result(ours), result(theirs)
    assert {key: mine[key] for key in mine if key not in measured} == {
        key: other[key] for key in other if key not in measured
    }
    assert mine["throughput"]["total_gen_tokens"] == other["throughput"]["total_gen_tokens"] > 0
    assert mine["config"]["model"] == other["config"]["model"]
    for name, folder in folders.items():
        cell = next(cell for cell in plan.cells if cell.name == name)
        recorded = result(folder)["lmms_fixattn"]["method"]
        assert recorded.pop("name") == cell.method.name
        assert make_method(cell.method.name, **recorded) == cell.method


def test_a_dry_run_lists_the_cells_and_checks_them_without_weights_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(*_: Any) -> None:
        raise AssertionError("the weights were loaded")

    path, out = tmp_path / "config.yaml", tmp_path / "out"

    def rehearsed(text: str = CONFIG) -> int:
        path.write_text(text)
        return main(["sweep", str(path), "--output", str(out), "--dry-run"])

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "load_model", load)
        assert rehearsed() == 0
        printed = capsys.readouterr().out
        for row in ("original vanilla 0 of 8", "fixattn alpha 0.3 fixattn, alpha=0.3 0 of 8"):
            assert row in re.sub(" +", " ", printed)
        assert "24 answers to go" in printed
        assert max(map(len, printed.splitlines()[:-1])) <= 100
        assert rehearsed(CONFIG.replace("alpha: [0.3, 0.7]", "layers: 7-9")) == 1
        assert "cell fixattn: " in capsys.readouterr().err
        assert rehearsed(CONFIG.replace("[chair_demo]", "[chair_dmeo]")) == 1
        assert "unknown task 'chair_dmeo' (did you mean 'chair_demo'?)" in capsys.readouterr().err
        assert not out.exists()
    run_sweep(plan_of(tmp_path, CONFIG.replace(", 0.7]", "]")), out, io.StringIO())
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    assert rehearsed() == 0
    assert "8 answers to go" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")}.keys() == before.keys()
    assert rehearsed(CONFIG.replace("limit: 4", "limit: 3")) == 1
    assert "was made with limit 4, which now is 3" in capsys.readouterr().err


def test_a_finished_sweep_runs_nothing_again_and_a_further_cell_runs_alone(
    tmp_path: Path, generated: list[list[str]]
) -> None:
    out = tmp_path / "out"
    first = run_sweep(plan_of(tmp_path, limit=1), out, io.StringIO())
    written = [path for path in out.rglob("*") if path.is_file() and path.name != ".lock"]
    before = {path: path.stat().st_mtime_ns for path in written}
    generated.clear()
    screen = io.StringIO()
    assert run_sweep(plan_of(tmp_path, limit=1), out, screen) == first
    assert generated == []
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "6/6" in screen.getvalue()

    screen = io.StringIO()
    longer = plan_of(tmp_path, CONFIG.replace("[0.3, 0.7]", "[0.3, 0.7, 0.9]"), limit=1)
    run_sweep(longer, out, screen)
    assert [len(batch) for batch in generated] == [2]
    assert "6/8" in screen.getvalue()  # the bar begins at what was there
    assert "8/8" in screen.getvalue()


@pytest.mark.parametrize(
    ("changed", "limit", "message"),
    [
        (CONFIG, 2, "cell original: .* was made with limit 1, which now is 2; choose another --output, or delete"),
        (
            CONFIG.replace("pretrained: demo", "pretrained: demo, conversation: pai"),
            1,
            r"model.conversation \"default\"",
        ),
        (
            CONFIG.replace("method: vanilla", "method: pai"),
            1,
            "cell original: .*model.method.alpha null, which now is 0.2",
        ),
        (
            CONFIG.replace("tasks: [", "tasks: [pope_demo_random, "),
            1,
            r"prompt_settings_and_data\.pope_demo_random null, which now is",
        ),
    ],
)
def test_cells_that_were_made_otherwise_are_refused_and_nothing_is_mixed(
    tmp_path: Path, generated: list[list[str]], changed: str, limit: int, message: str
) -> None:
    out = tmp_path / "out"
    run_sweep(
        SweepPlan("p", {"pretrained": "demo", "device": "cpu"}, ("chair_demo",), 1, "original", None, ORIGINAL), out
    )
    generated.clear()
    with pytest.raises(SweepError, match=message):
        run_sweep(plan_of(tmp_path, changed, limit), out, io.StringIO())
    assert generated == []
    assert [path.name for path in (out / "cells").iterdir()] == ["original"]


ORIGINAL = (Cell("original", make_method("vanilla")),)


def test_what_cannot_run_is_said_before_the_first_cell(
    tmp_path: Path, generated: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with pytest.raises(SweepError, match=r"unknown task 'chair_dema' \(did you mean 'chair_demo'\?\)"):
        run_sweep(plan_of(tmp_path, CONFIG.replace("chair_demo", "chair_dema")), out)
    with pytest.raises(ValueError, match=r"cell fixattn alpha 0.3 layers 2-99: layers 2-99 lie outside the model"):
        run_sweep(plan_of(tmp_path, CONFIG.replace("[0.3, 0.7]", "[0.3, 0.7], layers: [2-4, 2-99]")), out)
    with (out / ".lock").open("w") as file:
        # As another process's FileLock does. In this process lmms-eval makes FileLocks of one path the same lock.
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(SweepError, match="another sweep is at work"):
            run_sweep(plan_of(tmp_path), out)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SweepError, match="without torchrun"):
        run_sweep(plan_of(tmp_path), out)
    assert generated == []
    assert not (out / "cells").exists()


def test_answers_of_an_unknown_basis_are_not_taken_over(tmp_path: Path, generated: list[list[str]]) -> None:
    for place, name in (("unfinished", "answers.jsonl"), ("cells", "note.txt")):
        folder = tmp_path / place / place / "original"
        folder.mkdir(parents=True)
        (folder / name).write_text("")
        with pytest.raises(SweepError, match=rf"{place}/original holds something but no cell.json; .*delete"):
            run_sweep(plan_of(tmp_path), tmp_path / place, io.StringIO())
    assert generated == []


def test_the_shipped_demo_tables_figures_are_those_of_its_results(
    tmp_path: Path, generated: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["sweep", "demo_table1", "--limit", "2", "--output", str(out)]) == 0
    printed = capsys.readouterr().out
    names = [cell.name for cell in read_plan("demo_table1").cells]
    assert names == ["original", "PAI", "FixAttn", "FixAttn with spatial"]
    markdown = (out / "paper_table1.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if "[" in line]
    assert [row[0] for row in rows[: len(names)]] == names
    assert "; n = 4." in markdown
    compared = {row["name"]: row for row in json.loads((out / "comparison.json").read_text())["rows"]}
    for row in rows[: len(names)]:
        found = result(out / "cells" / row[0].replace(" ", "_"))
        group = found["groups"]["chair_demo"]
        halves = [rows for task, rows in samples(out / "cells" / row[0].replace(" ", "_")).items() if "chair" in task]
        counts = [sample["n"] for half in halves for sample in half]
        wrong, mentioned = (sum(len(count[key]) for count in counts) for key in ("hallucinated", "objects"))
        assert float(row[1].split()[0]) == pytest.approx(group["chair_s,none"], abs=0.05)
        assert float(row[2].split()[0]) == pytest.approx(100 * wrong / mentioned, abs=0.05)
        assert float(row[4].split()[0]) == pytest.approx(group["words,none"], abs=0.05)
        answered = found["results"]["pope_demo_random"]["accuracy,none"]
        assert compared[row[0]]["pope_random_accuracy"]["value"] == pytest.approx(answered)
    assert (out / "paper_table1.txt").read_text() in printed
    assert "beyond brevity" in printed
    assert (out / "paper_table1.tex").read_text().count(r" \\") == 1 + len(names)

    before = len(generated)
    assert main(["sweep", "demo_table1", "--limit", "2", "--output", str(out)]) == 0
    assert len(generated) == before
    assert capsys.readouterr().out == printed


def test_an_error_in_an_answer_is_one_line_and_its_traceback_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def trips(self: FixattnModel, inputs: Any, settings: Any) -> Any:
        nothing: Any = None
        return nothing["key"]

    monkeypatch.setattr(FixattnModel, "_generate", trips)
    plan_of(tmp_path)
    log = tmp_path / "out" / "log.txt"
    assert main(["sweep", str(tmp_path / "config.yaml"), "--output", str(tmp_path / "out")]) == 1
    assert re.fullmatch(
        r"lmms-fixattn sweep: error: llava_fixattn stopped: TypeError: 'NoneType' object is not subscriptable; "
        r"at document \d+ of chair_demo\S+ \(split \w+\) and 2 more; with .*: run `lmms-fixattn check`; "
        rf"traceback in {log}",
        one_error(capsys),
    )
    written = log.read_text()
    assert written.count("in trips") == 1
    assert re.search(
        r"^documents: document \d+ of \S+ .split \w+., document \d+ .*, document \d+ ", written, re.MULTILINE
    )
    assert "CRITICAL" in written


def test_what_lmms_eval_cannot_import_at_its_start_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reentrant = scripted_lm.lmms_eval.evaluator._enable_reentrant_filelocks
    monkeypatch.setattr(reentrant, "_patched", False, raising=False)
    monkeypatch.setitem(sys.modules, "filelock._api", None)  # as of filelock 4
    plan_of(tmp_path)
    assert main(["sweep", str(tmp_path / "config.yaml"), "--output", str(tmp_path / "out")]) == 1
    assert re.fullmatch(
        r"lmms-fixattn sweep: error: ModuleNotFoundError: .*filelock\._api.*; filelock [\d.]+ is installed: "
        r"`pip install lmms-fixattn` brings versions that fit; run `lmms-fixattn check`; "
        rf"traceback in {tmp_path}/out/log.txt",
        one_error(capsys),
    )
    assert "_enable_reentrant_filelocks" in (tmp_path / "out" / "log.txt").read_text()


def test_an_import_that_fails_before_lmms_eval_starts_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "stubs" / "filelock").mkdir(parents=True)
    (tmp_path / "stubs" / "filelock" / "__init__.py").write_text("")
    plan_of(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "lmms_fixattn", "sweep", "config.yaml", "--output", "out"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "stubs")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(
        r"\nlmms-fixattn sweep: error: ImportError: cannot import name .*; filelock [\d.]+ is installed: "
        r".*; traceback in out/log.txt\n$",
        done.stderr,
    )
    assert "Traceback" in (tmp_path / "out" / "log.txt").read_text()


FATAL = """
    import os, signal, sys
    from pathlib import Path

    sys.path.insert(0, {tests!r})
    from demo_sweep import digests
    from lmms_fixattn.cli import main
    from lmms_fixattn.harness.model import FixattnModel

    log, moment, *arguments = sys.argv[1:]
    generate, rename = FixattnModel._generate, Path.rename
    calls = 0

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def counted(self, inputs, settings):
        global calls
        calls += 1
        if moment == f"batch {{calls}}":
            die()
        answers = generate(self, inputs, settings)
        with open(log, "a") as file:
            print(*digests(self, inputs), file=file)
        return answers

    FixattnModel._generate = counted
    if moment == "finish":
        Path.rename = die
    sys.exit(main(["sweep", *arguments]))
"""


def test_a_sweep_killed_twice_generates_every_answer_once_and_ends_as_if_never_killed(
    tmp_path: Path, generated: list[list[str]]
) -> None:
    expected = run_sweep(plan_of(tmp_path), tmp_path / "whole", io.StringIO())
    driver, log, out = tmp_path / "driver.py", tmp_path / "log", tmp_path / "killed"
    driver.write_text(textwrap.dedent(FATAL).format(tests=str(Path(__file__).parents[1] / "support")))

    def sweep(moment: str) -> int:
        command = [sys.executable, driver, log, moment, tmp_path / "config.yaml", "--output", out]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode

    def answered() -> list[list[str]]:
        return [line.split() for line in log.read_text().splitlines()]

    assert sweep("batch 5") == -signal.SIGKILL  # in the second cell, with one of its batches answered
    assert answered() == generated[:4]
    assert [path.name for path in (out / "cells").iterdir()] == ["original"]
    assert sweep("finish") == -signal.SIGKILL  # the second cell's results are written but it is not marked finished
    assert answered() == generated[:6]
    assert [path.name for path in (out / "cells").iterdir()] == ["original"]
    assert sweep("never") == 0
    assert answered() == generated
    assert len(generated) == BATCHES

    for folder in expected.values():
        resumed = out / "cells" / folder.name
        assert samples(resumed) == samples(folder)
        assert result(resumed)["results"] == result(folder)["results"]
        spent, unbroken = result(resumed)["throughput"], result(folder)["throughput"]
        assert spent["total_gen_tokens"] == unbroken["total_gen_tokens"]
    assert not (out / "unfinished").exists()
