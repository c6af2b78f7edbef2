"""Sample logs of lmms-eval, of this package's tasks and of its own, as single files and as folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from runs_on_disk import answer_sample, caption_sample, write_lines, write_result

from lmms_fixattn import cli
from lmms_fixattn.errors import UserError
from lmms_fixattn.report.runs import AnswerEntry, CaptionEntry, read_run
from lmms_fixattn.scoring.files.reading import Caption, read_answers, read_captions

SHORT = "\nAnswer the question using a single word or phrase."


def chair_row(image_id: int, caption: str, words: list[str], response: Any = None) -> dict[str, Any]:
    """Return a row as lmms-eval logs one of coco_cap_chair."""
    metric = {"answer": words, "pred": [], "image_id": image_id}
    return {
        "doc_id": image_id,
        "target": str(words),
        "filtered_resps": caption if response is None else response,
        "doc_hash": "x",
        "coco_cap_chair_s": metric,
        "coco_cap_chair_i": metric,
        "input": "Describe.",
    }


def pope_row(doc_id: int, question: str, label: str, answer: str, **more: Any) -> dict[str, Any]:
    """Return a row as lmms-eval logs one of its pope, whose question ids begin anew in each part."""
    metric = {"question_id": "1", "score": 1.0, "prediction": answer.lower(), "ground_truth": label}
    return {
        "doc_id": doc_id,
        "target": label,
        "filtered_resps": answer,
        "pope_accuracy": metric,
        "input": question,
    } | more


def test_samples_of_our_captions_are_read_alone(tmp_path: Path) -> None:
    rows = [caption_sample(1, "A dog.", ["dog"], tokens=4, terminated=False), caption_sample(2, "A cat.", [])]
    path = write_lines(tmp_path / "20260102_samples_chair_coco.jsonl", rows)
    assert read_captions(path) == [
        Caption(1, "A dog.", False, 4, None, frozenset({"dog"})),
        Caption(2, "A cat.", None, None, None, frozenset()),
    ]


def test_samples_of_our_answers_are_read_alone(tmp_path: Path) -> None:
    rows = [answer_sample(1, [("Is there a dog?", "yes", "Yes"), ("A cat?", "no", "No")])]
    path = write_lines(tmp_path / "s.jsonl", rows)
    assert [(row["image_id"], row["question"], row["label"], row["answer"]) for row in read_answers(path)] == [
        (1, "Is there a dog?", "yes", "Yes"),
        (1, "A cat?", "no", "No"),
    ]
    write_lines(path, rows * 2)
    with pytest.raises(UserError, match="line 2: a second answer to 'Is there a dog\\?' about image 1"):
        read_answers(path)


@pytest.mark.parametrize("response", [None, ["A dog."], [["A dog."]]])
def test_samples_of_coco_cap_chair_are_read_with_their_truth(tmp_path: Path, response: Any) -> None:
    path = write_lines(tmp_path / "s.jsonl", [chair_row(42, "A dog.", ["puppy", "person"], response)])
    assert read_captions(path) == [Caption(42, "A dog.", None, None, None, frozenset({"dog", "person"}))]
    entry = CaptionEntry(42, "A dog.", truth=frozenset({"dog", "person"}))
    assert read_run(str(path)).captions == {"": (entry,)}
    folder = write_result(
        tmp_path / "out", {"coco_cap_chair": [chair_row(42, "A dog.", ["puppy", "person"], response)]}
    )
    assert read_run(str(folder)).captions == {"coco_cap_chair": (entry,)}


def test_samples_of_lmms_evals_pope_are_read_and_counted_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        pope_row(0, f"Is there a dog?{SHORT}", "yes", "Yes"),
        pope_row(1, "", "no", "Yes", doc={"question": "Is there a cat?"}),
        pope_row(3000, f"Is there a dog?{SHORT}", "yes", "Yes"),
    ]
    path = write_lines(tmp_path / "s.jsonl", rows)
    entries = (
        AnswerEntry(None, "Is there a dog?", "yes", "Yes", 0),
        AnswerEntry(None, "Is there a cat?", "no", "Yes", 1),
        AnswerEntry(None, "Is there a dog?", "yes", "Yes", 3000),
    )
    assert read_run(str(path)).answers == {"": entries}
    assert read_run(str(write_result(tmp_path / "out", {"pope": rows}))).answers == {"pope": entries}
    assert cli.main(["pope", str(path), "--format", "json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["n"], figures["tp"], figures["fp"]) == (3, 2, 1)
    write_lines(path, [*rows, rows[0]])
    with pytest.raises(UserError, match="line 4: a second answer"):
        read_answers(path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"doc_id": 1, "filtered_resps": "A", "mme_score": {"score": 1}}, "of none of the tasks"),
        (chair_row(1, "", ["dog"], ["A", "B"]), "expected one answer under 'filtered_resps', not a list"),
        (chair_row(1, "A dog.", ["unicorn"]), "expected the objects of the image"),
        (chair_row(None, "A dog.", ["dog"]), "'doc_id' must be a whole number"),  # type: ignore[arg-type]
        (pope_row(1, "", "yes", "Yes"), "expected the question under 'input'"),
        (pope_row(1, "A dog?", "maybe", "Yes"), "'label' must be"),
    ],
)
def test_what_a_sample_lacks_is_said(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=f"line 1: .*{said}"):
        read_run(str(write_lines(tmp_path / "s.jsonl", [row])))
