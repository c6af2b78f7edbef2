"""A sweep on a machine that works against it: one clear line, nothing overwritten or faked, and it goes on later."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import scripted_lm  # noqa: F401  (imports lmms-eval without its warnings)
from demo_sweep import one_error, plan_of, result, samples
from processes import LONGEST, held_in_its_second_batch

from lmms_fixattn.cli import main
from lmms_fixattn.harness.journal import Journal
from lmms_fixattn.harness.model import FixattnModel
from lmms_fixattn.harness.sweep import run_sweep

pytestmark = [pytest.mark.system, pytest.mark.filterwarnings("ignore")]  # lmms-eval's own warnings

CONFIG = """
model: {pretrained: demo, device: cpu, batch_size: 2}
tasks: [pope_demo]
limit: 2
cells:
  - {name: original, method: vanilla}
  - {name: spin, method: spin}
"""
BATCHES = 3  # a cell
GENERATE = FixattnModel._generate


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The cells of a sweep that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    return run_sweep(plan_of(folder, CONFIG), folder / "out", io.StringIO())


def sweep(tmp_path: Path) -> int:
    plan_of(tmp_path, CONFIG)
    return main(["sweep", str(tmp_path / "config.yaml"), "--output", str(tmp_path / "out")])


def goes_on(tmp_path: Path, whole: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """See to it that the same command finishes the sweep, as if nothing had happened."""
    capsys.readouterr()
    assert sweep(tmp_path) == 0
    for name, folder in whole.items():
        ours = tmp_path / "out" / "cells" / name
        assert samples(ours) == samples(folder)
        assert result(ours)["results"] == result(folder)["results"]
        batches = map(json.loads, (ours / "answers.jsonl").read_text().splitlines())
        keys = [key for batch in batches for key in batch["answers"]]
        assert len(keys) == len(set(keys)) == 6


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: the kernel writes what fits, and refuses the rest, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def at_batch(monkeypatch: pytest.MonkeyPatch, number: int, happens: Any) -> None:
    """Let something happen once, right before a batch is generated."""
    calls: list[int] = []

    def generate(self: FixattnModel, inputs: Any, settings: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            happens()
        return GENERATE(self, inputs, settings)

    monkeypatch.setattr(FixattnModel, "_generate", generate)


def test_answers_that_the_disk_has_no_room_for_stop_the_sweep_with_its_file(
    tmp_path: Path, whole: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "out" / "unfinished" / "original" / "answers.jsonl"
    with ExitStack() as disk:
        at_batch(monkeypatch, 2, lambda: disk.enter_context(small_disk(journal.stat().st_size + 100)))
        assert sweep(tmp_path) == 1
    assert one_error(capsys) == (
        f"lmms-fixattn sweep: error: {journal}: a batch of answers could not be written: File too large; mend that, "
        "and the same command goes on after the batches before it"
    )
    assert journal.read_bytes().count(b"\n") == 1  # whole
    assert journal.read_bytes().endswith(b"\n")
    assert not (tmp_path / "out" / "cells").exists()
    goes_on(tmp_path, whole, capsys)


def test_a_disk_without_any_room_is_said_with_the_file(
    tmp_path: Path, whole: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(400):
        assert sweep(tmp_path) == 1
    assert one_error(capsys) == (
        f"lmms-fixattn sweep: error: {tmp_path}/out/unfinished/original/cell.json: nothing can be written there "
        "(File too large); mend that, and the same command goes on"
    )
    goes_on(tmp_path, whole, capsys)


def test_a_result_that_the_disk_has_no_room_for_is_not_taken_for_finished(
    tmp_path: Path, whole: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    size = max(path.stat().st_size for path in whole["original"].rglob("*_results.json")) - 10
    assert size > max(path.stat().st_size for path in whole["original"].rglob("*.jsonl"))
    with small_disk(size):
        assert sweep(tmp_path) == 1
    assert re.search(
        rf"the result of cell original could not be written whole to {tmp_path}/out/unfinished/original "
        r"\([\d.]+ MB free there\); mend that, and the same command writes it from the answers that are kept$",
        one_error(capsys),
    )
    assert not (tmp_path / "out" / "cells").exists()
    goes_on(tmp_path, whole, capsys)


@pytest.mark.parametrize("deleted", ["out", "out/unfinished/original", "out/unfinished/original/answers.jsonl"])
def test_what_is_deleted_midway_is_missed_at_once(
    tmp_path: Path,
    whole: dict[str, Path],
    deleted: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def delete() -> None:
        path = tmp_path / deleted
        path.unlink() if path.is_file() else shutil.rmtree(path)

    at_batch(monkeypatch, 2, delete)
    assert sweep(tmp_path) == 1
    journal = tmp_path / "out" / "unfinished" / "original" / "answers.jsonl"
    assert one_error(capsys) == (
        f"lmms-fixattn sweep: error: {journal} was deleted or replaced while it was written, and the answers with it; "
        "the same command generates again what is missing"
    )
    assert not (tmp_path / "out" / "cells").exists()
    if deleted.endswith("answers.jsonl"):
        shutil.rmtree(journal.parent)  # as nothing tells what it was made with
    goes_on(tmp_path, whole, capsys)


def test_another_output_in_the_place_of_a_deleted_one_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "out" / "unfinished" / "original" / "answers.jsonl"

    def replace() -> None:
        journal.unlink()
        journal.write_text("of somebody else\n")

    at_batch(monkeypatch, 2, replace)
    assert sweep(tmp_path) == 1
    assert "was deleted or replaced" in one_error(capsys)
    assert journal.read_text() == "of somebody else\n"


def test_a_finished_cell_that_is_deleted_midway_is_missed_by_name(
    tmp_path: Path, whole: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_batch(monkeypatch, BATCHES + 1, lambda: shutil.rmtree(tmp_path / "out" / "cells" / "original"))
    assert sweep(tmp_path) == 1
    assert f"{tmp_path}/out/cells/original" in one_error(capsys)
    goes_on(tmp_path, whole, capsys)


@contextmanager
def nobody() -> Iterator[None]:
    """Be a user who may write nothing of the folder's owner, where this is root, who may write everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that everybody may read and nobody write."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_loaded(
    tmp_path: Path, read_only: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan_of(read_only, CONFIG)
    read_only.chmod(0o555)
    for output in (read_only / "out", read_only):
        with nobody():
            assert main(["sweep", str(read_only / "config.yaml"), "--output", str(output)]) == 1
        assert one_error(capsys) == (
            f"lmms-fixattn sweep: error: {output}/log.txt: nothing can be written there (Permission denied); choose "
            "another --output"
        )
    assert [path.name for path in read_only.iterdir()] == ["config.yaml"]


def test_an_output_that_became_read_only_keeps_what_it_has(
    tmp_path: Path, whole: dict[str, Path], read_only: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = read_only / "out"
    shutil.copytree(whole["original"].parents[1], out)
    shutil.rmtree(out / "cells" / "spin")
    plan_of(read_only, CONFIG)
    (out / "log.txt").touch()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for path in [out, *out.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    (out / "log.txt").chmod(0o666)
    with nobody():
        assert main(["sweep", str(read_only / "config.yaml"), "--output", str(out)]) == 1
    assert one_error(capsys).endswith(
        f"{out}: nothing can be written there (Permission denied); choose another --output"
    )
    del before[out / "log.txt"]
    assert {path: path.read_bytes() for path in before} == before
    for path in [out, *out.rglob("*")]:
        path.chmod(0o755)


def journal_of_half_a_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stop a sweep in its second batch; return the journal of what it had."""

    def stop() -> None:
        raise KeyboardInterrupt

    at_batch(monkeypatch, 2, stop)
    assert sweep(tmp_path) == 130
    monkeypatch.setattr(FixattnModel, "_generate", GENERATE)
    return tmp_path / "out" / "unfinished" / "original" / "answers.jsonl"


def test_a_torn_last_line_is_generated_again(
    tmp_path: Path, whole: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = journal_of_half_a_cell(tmp_path, monkeypatch)
    line = journal.read_bytes()
    journal.write_bytes(line + line[: len(line) // 2])
    goes_on(tmp_path, whole, capsys)


@pytest.mark.parametrize("of", ["answers as bare texts", "a batch without its budget", "another form", "zeros"])
def test_a_journal_of_another_version_is_refused_and_left_alone(
    tmp_path: Path, of: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = journal_of_half_a_cell(tmp_path, monkeypatch)
    batch: Any = json.loads(journal.read_text())
    if of == "answers as bare texts":
        batch["answers"] = {key: answer["rounds"][0]["text"] for key, answer in batch["answers"].items()}
    elif of == "a batch without its budget":
        batch["budget"] = {"rows": 2}
    elif of == "another form":
        batch = {"version": 2, "batches": [batch]}
    changed = b"\0\0\0\n" if of == "zeros" else json.dumps(batch).encode() + b"\n"
    journal.write_bytes(changed)
    capsys.readouterr()
    assert sweep(tmp_path) == 1
    assert re.fullmatch(
        rf"lmms-fixattn sweep: error: {journal}, line 1: expected a batch of answers as lmms-fixattn [\d.]+ writes it; "
        "delete the file to have its answers generated again",
        one_error(capsys),
    )
    assert journal.read_bytes() == changed


@pytest.mark.parametrize("basis", ["", '{"model": {"dty', '["of another version"]', '{"model": {}}'])
def test_a_cell_of_another_version_or_half_written_is_refused_and_left_alone(
    tmp_path: Path, basis: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = journal_of_half_a_cell(tmp_path, monkeypatch)
    before = journal.read_bytes()
    (journal.parent / "cell.json").write_text(basis)
    capsys.readouterr()
    assert sweep(tmp_path) == 1
    told = one_error(capsys)
    assert str(journal.parent) in told
    assert "choose another --output, or delete" in told
    assert len(told) < 1500
    assert journal.read_bytes() == before


def test_a_lock_that_a_killed_sweep_left_does_not_block(
    tmp_path: Path, whole: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").write_text("99999999\n")
    goes_on(tmp_path, whole, capsys)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_sweep_in_one_line_and_a_second_sweep_is_refused_meanwhile(
    number: signal.Signals, tmp_path: Path, whole: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    plan_of(tmp_path, CONFIG)
    command = f"sweep {tmp_path}/config.yaml --output {tmp_path}/out"
    with held_in_its_second_batch("lmms_fixattn.cli", command, tmp_path) as running:
        before = sorted((tmp_path / "out").rglob("*"))
        assert sweep(tmp_path) == 1
        assert one_error(capsys) == (
            f"lmms-fixattn sweep: error: another sweep is at work in {tmp_path}/out; wait for it, or choose another "
            "--output"
        )
        assert sorted((tmp_path / "out").rglob("*")) == before
        running.send_signal(number)
        running.wait(LONGEST)
    said = (tmp_path / "printed.txt").read_text()
    assert running.returncode == 128 + number
    assert said.splitlines()[-1] == (
        f"lmms-fixattn sweep: stopped by {number.name}; what was answered is kept in {tmp_path}/out, and the same "
        "command goes on from there"
    )
    assert "Traceback" not in said
    with Journal(tmp_path / "out" / "unfinished" / "original" / "answers.jsonl") as journal:
        assert len(journal) == 2  # the batch before
    goes_on(tmp_path, whole, capsys)
