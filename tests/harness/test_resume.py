"""A run with --use_cache that is stopped goes on where it was: nothing asked twice, nothing lost, nothing doubled."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lmms_eval.caching.response_cache import ResponseCache
from loguru import logger
from processes import LONGEST, held_in_its_second_batch
from shapes_task import TASK, make, requests

from lmms_fixattn.harness.model import LlavaFixattn
from lmms_fixattn.harness.results import KeyedCache

pytestmark = pytest.mark.system

GENERATE = LlavaFixattn._generate


class KilledError(BaseException):
    """What ends a run on the spot."""


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What is logged."""
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{level}: {message}")
    yield lines
    logger.remove(sink)


def run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, die_at: int = 0, finalize: bool = True, **settings: Any
) -> tuple[list[str], int]:
    """One run of lmms-eval on its cache; return its answers and how many batches it generated."""
    batches: list[int] = []

    def generate(self: LlavaFixattn, inputs: Any, asked: Any) -> Any:
        batches.append(1)
        if len(batches) == die_at:
            raise KilledError
        return GENERATE(self, inputs, asked)

    monkeypatch.setattr(LlavaFixattn, "_generate", generate)
    lm = make(method="spin", batch_size=2, **settings)
    cache = ResponseCache.create(str(folder), model="llava_fixattn", model_args="pretrained=demo", task_dict={})
    try:
        answers = KeyedCache(cache, lm).execute(lm, "generate_until", requests())
    except KilledError:
        return [], len(batches)
    if finalize:
        cache.finalize(success=True)
    return [repr((str(a.text), a.text.terminated, a.token_counts)) for a in answers], len(batches)


def rows(folder: Path) -> list[Any]:
    with sqlite3.connect(folder / "cache.db") as cache:
        return cache.execute("SELECT cache_key, response FROM responses ORDER BY cache_key").fetchall()


def test_a_run_that_was_killed_twice_asks_for_no_answer_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, batches = run(tmp_path / "whole", monkeypatch)
    assert batches == 6
    killed = tmp_path / "killed"
    assert run(killed, monkeypatch, die_at=3) == ([], 3)
    assert run(killed, monkeypatch, die_at=3) == ([], 3)
    assert run(killed, monkeypatch) == (expected, 2)
    assert rows(killed) == rows(tmp_path / "whole")
    assert not (killed / "llava_fixattn").exists()
    assert run(killed, monkeypatch) == (expected, 0)
    assert not (killed / "llava_fixattn").exists()


def test_answers_of_a_run_that_was_killed_before_they_were_merged_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = run(tmp_path, monkeypatch, finalize=False)
    assert run(tmp_path, monkeypatch) == (expected, 0)


@pytest.mark.parametrize("changed", [{"conversation": "pai"}, {"dtype": "bfloat16"}])
def test_answers_of_other_settings_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    run(tmp_path, monkeypatch, die_at=6)
    assert run(tmp_path, monkeypatch, **changed)[1] == 6


def test_sampled_answers_are_taken_for_the_same_seed_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = requests(temperature=1.0)
    monkeypatch.setattr(sys.modules[__name__], "requests", lambda: asked)
    torch.manual_seed(5)
    expected, _ = run(tmp_path / "whole", monkeypatch)
    run(tmp_path / "killed", monkeypatch, die_at=4)
    torch.manual_seed(6)
    assert run(tmp_path / "killed", monkeypatch, die_at=7)[1] == 6
    torch.manual_seed(5)
    assert run(tmp_path / "killed", monkeypatch) == (expected, 3)


def test_two_runs_of_the_same_requests_at_once_do_not_share_a_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    expected, _ = run(tmp_path / "whole", monkeypatch)
    run(tmp_path / "both", monkeypatch, die_at=3)
    (journal,) = (tmp_path / "both" / "llava_fixattn").glob("*.jsonl")
    before = journal.read_bytes()
    with journal.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as another process does
        assert run(tmp_path / "both", monkeypatch) == (expected, 6)
    assert journal.read_bytes() == before
    assert any("another process answers the same requests" in line for line in said)


def test_a_lock_of_a_killed_merge_is_removed_and_that_of_a_running_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    lock = tmp_path / "runs" / ".merge.lock"
    gone = 99_999_999  # above the highest number that the kernel gives a process
    lock.mkdir(parents=True)
    (lock / "owner.json").write_text(json.dumps({"pid": gone, "hostname": socket.gethostname()}))
    with monkeypatch.context() as impatient:
        impatient.setattr(time, "sleep", lambda seconds: pytest.fail("lmms-eval waits for the lock to go"))
        expected, _ = run(tmp_path, monkeypatch)
    assert len(rows(tmp_path)) == len(expected)
    assert any("which a killed run left" in line for line in said)

    lock.mkdir()
    os.utime(lock, (0, 0))
    run(tmp_path, monkeypatch, finalize=False)
    assert not lock.exists()
    for owner in ({"pid": os.getpid(), "hostname": socket.gethostname()}, {"pid": gone, "hostname": "elsewhere"}):
        lock.mkdir(exist_ok=True)
        (lock / "owner.json").write_text(json.dumps(owner))
        run(tmp_path, monkeypatch, finalize=False)
        assert lock.exists()


@pytest.mark.parametrize(("number", "cached"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_signal_ends_a_run_of_lmms_eval_in_one_line(tmp_path: Path, number: signal.Signals, cached: bool) -> None:
    command = "eval --model llava_fixattn --model_args pretrained=demo,device=cpu --tasks chair_demo --limit 2 "
    command += "--batch_size 2 --output_path out --log_samples" + " --use_cache cache" * cached
    with held_in_its_second_batch("lmms_eval.cli.dispatch", command, tmp_path) as running:
        running.send_signal(number)
        running.wait(LONGEST)
    said = (tmp_path / "printed.txt").read_text()
    assert running.returncode == 128 + number
    assert "Traceback" not in said
    kept = "what was answered is kept in cache, and" if cached else "nothing of it is kept; with --use_cache DIR,"
    assert len(re.findall(rf"llava_fixattn stopped by {number.name}: {kept} the same command", said)) == 1
    assert not list(tmp_path.glob("out/**/*.json*"))
    journals = [path.read_text() for path in tmp_path.glob("cache/llava_fixattn/*.jsonl")]
    assert [len(json.loads(journal)["answers"]) for journal in journals] == [2] * cached
    assert TASK not in said
