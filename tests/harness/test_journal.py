"""Answers on disk: what was kept comes back as it was, whatever moment the writer was killed at."""

from __future__ import annotations

from pathlib import Path

import pytest
from lmms_eval.api.instance import GenerationResult, TokenCounts

from lmms_fixattn.engine.generation import Answer
from lmms_fixattn.harness.journal import Journal

ONE = GenerationResult(Answer("A cat.\nIt – sits. ", True, 7), TokenCounts(input_tokens=31, output_tokens=7))
TWO = GenerationResult(Answer("", False, 13), TokenCounts(input_tokens=29, output_tokens=13))
TALK = [Answer("Yes", True, 2), Answer("No", False, 3)]


def facts(result: object) -> object:
    answers = result if isinstance(result, list) else [result.text]  # type: ignore[attr-defined]
    counts = None if isinstance(result, list) else result.token_counts  # type: ignore[attr-defined]
    return [(type(a), str(a), a.terminated, a.tokens) for a in answers], counts


def write(path: Path) -> None:
    with Journal(path) as journal:
        journal.keep("generate_until", ["a", "b"], [ONE, TWO], 0.5, 20)
        journal.keep("generate_until_multi_round", ["c"], [TALK], 0.25, 5)
        journal.keep("generate_until", ["d"], [TWO], 2.0, 13)


def test_answers_come_back_with_their_ends_and_counts_and_the_time_they_took(tmp_path: Path) -> None:
    write(tmp_path / "j")
    with Journal(tmp_path / "j") as journal:
        found = journal.recall(["d", "x", "c", "a", "b"])
        assert {index: facts(result) for index, result in found.items()} == {
            0: facts(TWO),
            2: facts(TALK),
            3: facts(ONE),
            4: facts(TWO),
        }
        assert len(journal) == 4
        assert journal.spent("generate_until") == (2.5, 33)
        assert journal.spent("generate_until_multi_round") == (0.25, 5)
        assert journal.spent("loglikelihood") == (0, 0)


def test_a_file_cut_at_any_byte_keeps_its_whole_batches_and_can_be_gone_on_with(tmp_path: Path) -> None:
    write(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    ends = [index + 1 for index, byte in enumerate(content) if byte == ord("\n")]
    answers_of = [0, 2, 3, 4]
    for cut in range(len(content) + 1):
        path = tmp_path / "cut"
        path.write_bytes(content[:cut])
        batches = sum(end <= cut for end in ends)
        with Journal(path) as journal:
            assert len(journal) == answers_of[batches]
            journal.keep("generate_until", ["e"], [ONE], 1.0, 7)
        assert path.read_bytes().startswith(content[: ends[batches - 1] if batches else 0])
        with Journal(path) as journal:
            assert len(journal) == answers_of[batches] + 1
            assert facts(journal.recall(["e"])[0]) == facts(ONE)


def test_a_batch_is_on_disk_before_the_next_is_asked_for(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.keep("generate_until", ["a"], [ONE], 1.0, 7)
        with Journal(tmp_path / "j") as reader:
            assert len(reader) == 1


@pytest.mark.parametrize("line", ["no json", "[]", '{"kind": "generate_until"}', "7"])
def test_a_whole_line_that_is_no_batch_is_named_and_not_skipped(tmp_path: Path, line: str) -> None:
    write(tmp_path / "j")
    lines = (tmp_path / "j").read_text().splitlines()
    (tmp_path / "j").write_text("\n".join([lines[0], line, lines[1], ""]))
    with pytest.raises(ValueError, match=r"j, line 2: expected a batch of answers .* delete the file"):
        Journal(tmp_path / "j")


def test_answers_of_another_version_of_a_task_are_not_taken(tmp_path: Path) -> None:
    keys = ["a/b/1/f0/1", "c/1/f0/1"]
    with Journal(tmp_path / "j", {"a/b": "new"}) as journal:
        journal.keep("generate_until", keys, [ONE, TWO], 0.5, 20)
        assert set(journal.recall(keys)) == {0, 1}
    with Journal(tmp_path / "j", {"a/b": "newer"}) as journal:
        assert set(journal.recall(keys)) == {1}
