"""Answers joined to questions in files of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lmms_fixattn import cli
from lmms_fixattn.errors import UserError
from lmms_fixattn.scoring.files.questions import read_answers_to

DOG, CAT = "Is there a dog in the image?", "Is there a cat in the image?"
SHORT = "\nAnswer the question using a single word or phrase."
QUESTIONS = [
    {"question_id": 1, "image": "COCO_val2014_000000000042.jpg", "text": DOG, "label": "yes"},
    {"question_id": 2, "image": "COCO_val2014_000000000042.jpg", "text": CAT, "label": "no"},
]
ANSWERS = [
    {"question_id": 2, "prompt": CAT + SHORT, "text": "No", "answer_id": "x", "model_id": "llava", "metadata": {}},
    {"question_id": 1, "prompt": DOG + SHORT, "text": "No", "answer_id": "y", "model_id": "llava", "metadata": {}},
]
ROWS = [
    {"question": CAT, "label": "no", "answer": "No", "image_id": 42, "question_id": 2, "split": "random"},
    {"question": DOG, "label": "yes", "answer": "No", "image_id": 42, "question_id": 1, "split": "random"},
]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    return write(tmp_path / "coco_pope_random.json", QUESTIONS)


def test_llavas_answers_take_their_labels_by_question_id(tmp_path: Path, questions: Path) -> None:
    assert read_answers_to(write(tmp_path / "a.jsonl", ANSWERS), [questions]) == ROWS
    indented = tmp_path / "seem_random.json"
    indented.write_text(json.dumps(QUESTIONS, indent=4))
    assert read_answers_to(write(tmp_path / "a.jsonl", ANSWERS), [indented]) == ROWS


def test_popes_answers_take_them_by_their_order(tmp_path: Path, questions: Path) -> None:
    answers = [{"question": DOG, "answer": "No"}, {"question": CAT, "answer": "No"}]
    assert read_answers_to(write(tmp_path / "a.json", answers), [questions]) == ROWS[::-1]
    with pytest.raises(UserError, match=r"line 1: asks .*cat.* but .*coco_pope_random.json, line 1 asks .*dog"):
        read_answers_to(write(tmp_path / "a.json", answers[::-1]), [questions])
    with pytest.raises(UserError, match="1 answers without 'question_id' to 2 questions"):
        read_answers_to(write(tmp_path / "a.json", answers[:1]), [questions])
    with pytest.raises(UserError, match="line 1: neither 'question_id' nor the question's text says"):
        read_answers_to(write(tmp_path / "a.json", [{"answer": "No"}] * 2), [questions])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.pop(), r"1 of 2 questions have no answer, the first is that of .*random.json, line 1"),
        (lambda rows: rows.append(rows[0]), r"line 3: a second answer to the question of .*line 2, after .*line 1"),
        (lambda rows: rows[0].update(question_id=3), "line 1: question 3 is none of the 2 questions"),
        (lambda rows: rows[0].update(question_id=1.5), "line 1: 'question_id' must be a whole number"),
        (lambda rows: rows[0].update(prompt=DOG), "line 1: asks .*dog.*, but .*line 2 asks .*cat"),
        (lambda rows: rows[0].update(image="000000000043.jpg"), "line 1: is about image 43, but .* about image 42"),
        (lambda rows: rows[0].update(label="yes"), "line 1: has the label 'yes', but .*'no'"),
        (lambda rows: rows[0].update(text=None), "line 1: 'text' must be text, not null"),
        (lambda rows: rows[1].pop("question_id"), "line 2: 'question_id' is given in some answers and not in others"),
        (lambda rows: rows.clear(), "no answers"),
    ],
)
def test_answers_that_do_not_fit_are_refused(tmp_path: Path, questions: Path, change: Any, said: str) -> None:
    rows = [dict(row) for row in ANSWERS]
    change(rows)
    with pytest.raises(UserError, match=said):
        read_answers_to(write(tmp_path / "a.jsonl", rows), [questions])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([*QUESTIONS, QUESTIONS[0]], "line 3: the question of .*line 1 once more"),
        ([*QUESTIONS, {**QUESTIONS[0], "text": CAT}], "line 3: the question of .*line 1 once more"),
        ([*QUESTIONS, {**QUESTIONS[0], "question_id": 3}], "1 of 3 questions have no answer"),
        ([*QUESTIONS, {**QUESTIONS[0], "question_id": 3, "label": "no"}], "line 3: .*'no', and 'yes' in .*line 1"),
        ([{"text": DOG, "label": "yes", "image": "7.jpg"}] * 2, "line 2: the question of .*line 1 once more"),
        ([QUESTIONS[0], {**QUESTIONS[1], "label": "maybe"}], "line 2: 'label' must be"),
        ([QUESTIONS[0], {**QUESTIONS[1], "label": None}], "line 2: no key 'label', which other questions"),
        ([{**row, "label": None} for row in QUESTIONS], r"line 1: no key 'label' \(of 2 questions\)"),
        ([{"question_id": 1}], "line 1: expected a question"),
        ([], "no questions"),
    ],
)
def test_a_question_file_is_held_to_its_form(tmp_path: Path, rows: list[Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_answers_to(write(tmp_path / "a.jsonl", ANSWERS), [write(tmp_path / "q.json", rows)])


def test_several_splits_are_told_apart_or_refused(tmp_path: Path, questions: Path) -> None:
    bus = "Is there a bus in the image?"
    popular = write(tmp_path / "coco_pope_popular.json", [QUESTIONS[0], {**QUESTIONS[1], "text": bus}])
    both = [questions, popular]
    said = [{**row, "split": "random"} for row in ANSWERS]
    said += [{**said[1], "split": "popular"}, {**said[0], "split": "popular", "prompt": bus, "text": "Yes"}]
    rows = read_answers_to(write(tmp_path / "a.jsonl", said), both)
    assert [(row["split"], row["question_id"], row["answer"]) for row in rows] == [
        ("random", 2, "No"),
        ("random", 1, "No"),
        ("popular", 1, "No"),
        ("popular", 2, "Yes"),
    ]
    with pytest.raises(UserError, match=r"question 1 may be that of .*random.json, line 1 and .*popular.json, line 1"):
        read_answers_to(write(tmp_path / "a.jsonl", ANSWERS), both)


def test_llavas_list_of_all_splits_takes_labels_from_popes_files(tmp_path: Path, questions: Path) -> None:
    listed = [
        {**{key: row[key] for key in ("question_id", "image")}, "text": row["text"] + SHORT, "category": "popular"}
        for row in QUESTIONS
    ]
    every = write(tmp_path / "llava_pope_test.jsonl", listed)
    rows = read_answers_to(write(tmp_path / "a.jsonl", ANSWERS), [every, questions])
    assert rows == [{**row, "split": "popular"} for row in ROWS]
    other = write(tmp_path / "other.json", [{**row, "label": "yes"} for row in QUESTIONS])
    with pytest.raises(UserError, match=r"other.json, line 2: .*has the label 'yes', and 'no' in .*random.json"):
        read_answers_to(tmp_path / "a.jsonl", [every, questions, other])


def test_the_commands_join_answers(tmp_path: Path, questions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = write(tmp_path / "a.jsonl", ANSWERS)
    assert cli.main(["pope", str(answers), "--questions", str(questions), "--format", "json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["accuracy"], figures["n"]) == (50, 2)
    assert cli.main(["compare", str(answers), "--questions", str(questions), "--format", "json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["rows"][0]["pope_random_accuracy"]["value"] == 50
    popular = write(tmp_path / "coco_pope_popular.json", QUESTIONS)
    told = [{**row, "split": split} for split in ("random", "popular") for row in ANSWERS]
    told[3]["text"] = "Yes"
    write(answers, told)
    command = ["pope", str(answers), "--questions", str(questions), str(popular), "--format", "json"]
    assert cli.main(command) == 0
    figures = json.loads(capsys.readouterr().out)
    assert [figures[key] for key in ("n", "accuracy", "accuracy_random", "accuracy_popular")] == [4, 75, 50, 100]
    assert cli.main(["pope", str(answers)]) == 1
    assert "give that with --questions" in capsys.readouterr().err
