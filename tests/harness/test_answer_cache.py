"""A run with --use_cache that is stopped goes on where it was: nothing asked twice, nothing lost, nothing doubled."""

from __future__ import annotations

import fcntl
import json
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lmms_eval.api.instance import Instance
from lmms_eval.caching.response_cache import ResponseCache
from processes import LONGEST, held_in_its_second_batch
from shapes_task import CAP, TASK, make, request, requests, to_messages

from lmms_fixattn.harness.answer_cache import AnswerCache
from lmms_fixattn.harness.model import FixattnModel, FixattnModelSimple
from lmms_fixattn.models.checkpoint import Checkpoint
from lmms_fixattn.versions import installed

pytestmark = pytest.mark.system

GENERATE = FixattnModel._generate


class KilledError(BaseException):
    """What ends a run on the spot."""


class Task:
    """A task as lmms-eval writes its settings down."""

    def __init__(self, data: str) -> None:
        self.config = SimpleNamespace(task=TASK)
        self.data = data

    def dump_config(self) -> dict[str, str]:
        return {"data": self.data}


def run(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    die_at: int = 0,
    asked: Sequence[Instance] | None = None,
    data: str = "first",
    **settings: Any,
) -> tuple[list[str], int]:
    """One run of lmms-eval on its cache; return its answers and how many batches it generated."""
    batches: list[int] = []

    def generate(self: FixattnModel, inputs: Any, asked: Any) -> Any:
        batches.append(1)
        if len(batches) == die_at:
            raise KilledError
        return GENERATE(self, inputs, asked)

    monkeypatch.setattr(FixattnModel, "_generate", generate)
    lm = make(**{"method": "spin", "batch_size": 2, **settings})
    tasks = {TASK: Task(data)}
    cache = ResponseCache.create(str(folder), model="llava_fixattn", model_args="pretrained=demo", task_dict=tasks)
    asked = requests() if asked is None else asked
    kind = asked[0].request_type
    try:
        answers = AnswerCache(cache, tasks).execute(lm, kind, asked)
    except KilledError:
        return [], len(batches)
    finally:
        cache.finalize(success=True)
    rounds = [answer if isinstance(answer, list) else [answer.text] for answer in answers]
    counts = [getattr(answer, "token_counts", None) for answer in answers]
    facts = [[(str(text), text.terminated, text.tokens) for text in texts] for texts in rounds]
    return [repr(each) for each in zip(facts, counts, strict=True)], len(batches)


def stored(folder: Path) -> dict[str, Any]:
    """What the cache holds of each request; nothing twice."""
    lines = [line for path in folder.glob("llava_fixattn/*.jsonl") for line in path.read_text().splitlines()]
    pairs = [pair for line in lines for pair in json.loads(line)["answers"].items()]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_a_run_that_was_killed_twice_asks_for_no_answer_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, batches = run(tmp_path / "whole", monkeypatch)
    assert batches == 6
    killed = tmp_path / "killed"
    assert run(killed, monkeypatch, die_at=3) == ([], 3)
    assert run(killed, monkeypatch, die_at=3) == ([], 3)
    assert run(killed, monkeypatch) == (expected, 2)
    assert stored(killed) == stored(tmp_path / "whole")
    assert run(killed, monkeypatch) == (expected, 0)


def test_a_finished_run_is_answered_without_loading_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = run(tmp_path, monkeypatch)
    monkeypatch.setattr(Checkpoint, "load_model", None)
    assert run(tmp_path, monkeypatch) == (expected, 0)


def test_a_further_run_takes_what_is_there_whatever_else_it_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = run(tmp_path / "whole", monkeypatch)
    assert run(tmp_path / "some", monkeypatch, asked=requests([4, 1, 7]))[0] == [expected[i] for i in (4, 1, 7)]
    found, batches = run(tmp_path / "some", monkeypatch)
    assert (found, batches < 6) == (expected, True)
    simple = request(3, {"max_new_tokens": CAP}, lambda document: document["pictures"])
    assert run(tmp_path / "some", monkeypatch, asked=[simple], cls=FixattnModelSimple) == ([expected[3]], 0)


def test_rounds_come_back_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(doc: dict[str, Any], **_: Any) -> list[dict[str, Any]]:
        return to_messages(doc)

    asked = [request(i, write, {"max_new_tokens": 5}, kind="generate_until_multi_round") for i in range(3)]
    expected, batches = run(tmp_path, monkeypatch, asked=asked)
    assert batches > 0
    assert run(tmp_path, monkeypatch, asked=asked) == (expected, 0)


@pytest.mark.parametrize(
    "changed", [{"conversation": "pai"}, {"dtype": "bfloat16"}, {"method": "vanilla"}, {"data": "second"}]
)
def test_answers_of_other_settings_or_data_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    run(tmp_path, monkeypatch, die_at=6)
    assert run(tmp_path, monkeypatch, **changed)[1] == 6


def test_answers_of_another_version_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, monkeypatch)
    versions = installed()
    monkeypatch.setattr("lmms_fixattn.harness.model.installed", lambda: {**versions, "transformers": "0"})
    assert run(tmp_path, monkeypatch)[1] == 6


def test_sampled_answers_are_taken_for_the_same_seed_and_requests_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = requests(temperature=1.0)
    torch.manual_seed(5)
    expected, _ = run(tmp_path / "whole", monkeypatch, asked=asked)
    run(tmp_path / "killed", monkeypatch, die_at=4, asked=asked)
    torch.manual_seed(6)
    assert run(tmp_path / "killed", monkeypatch, die_at=7, asked=asked)[1] == 6
    torch.manual_seed(5)
    assert run(tmp_path / "killed", monkeypatch, asked=asked) == (expected, 3)
    assert run(tmp_path / "killed", monkeypatch, asked=asked[:2])[1] == 1


def test_answers_that_the_method_draws_are_taken_for_the_same_seed_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(5)
    expected, batches = run(tmp_path, monkeypatch, method="nucleus")
    assert run(tmp_path, monkeypatch, method="nucleus") == (expected, 0)
    torch.manual_seed(6)
    assert run(tmp_path, monkeypatch, method="nucleus")[1] == batches


def test_two_runs_at_once_do_not_share_a_journal(
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
    assert any("another process answers into" in line for line in said)


def test_a_cache_that_does_not_say_where_it_is_is_refused() -> None:
    with pytest.raises(RuntimeError, match="does not say where its cache is"):
        AnswerCache(SimpleNamespace(execute=None), {})


@pytest.mark.system
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
