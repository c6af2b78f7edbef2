"""Files that are not what they seem, and values that are nearly right, through the commands that read them."""

from __future__ import annotations

import gzip
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmms_fixattn import cli
from lmms_fixattn.data.coco import CocoFolder
from lmms_fixattn.errors import UserError
from lmms_fixattn.scoring.files.questions import read_answers_to
from lmms_fixattn.scoring.files.reading import read_answers, read_captions, read_ground_truth

ROWS = [{"image_id": 1, "caption": "A dog."}, {"image_id": 2, "caption": "A cat."}]
LINES = "".join(f"{json.dumps(row)}\n" for row in ROWS).encode()


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("c.json", LINES)


WRITERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pipe": (os.mkfifo, "a pipe or a device"),
    "folder": (Path.mkdir, "is a folder"),
    "nothing": (lambda path: None, "no such file or folder"),
    "empty": (Path.touch, "no captions"),
    "zip": (_zip, "a zip archive; unpack it"),
    "UTF-16": (lambda path: path.write_bytes(LINES.decode().encode("utf-16")), "UTF-16; save it as UTF-8"),
    "half a gzip": (lambda path: path.write_bytes(gzip.compress(LINES)[:-9]), "not a complete gzip file"),
    "zeros": (lambda path: path.write_bytes(bytes(99)), "expected a JSON list, JSON lines"),
    "semicolons": (lambda path: path.write_text("image_id;caption\n1;A dog.\n"), 'not "image_id;caption"'),
    "unclosed quote": (lambda path: path.write_text('image_id\tcaption\n1\t"A dog.\n'), "line 2: malformed table"),
    "trailing comma": (lambda path: path.write_text('[{"image_id": 1, "caption": "A"},]'), "malformed JSON"),
    "Python's quotes": (lambda path: path.write_text("[{'image_id': 1}]"), "malformed JSON"),
    "number": (lambda path: path.write_text("5"), "expected a JSON list"),
    "deep": (lambda path: path.write_text("[" * 100_000), "nested too deep"),
    "captions by image": (lambda path: path.write_text('{"1": "A dog."}'), "not one object by image id"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_that_is_none_is_refused_in_one_line(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write, said = WRITERS[kind]
    path, truth = tmp_path / "captions.json", tmp_path / "truth.json"
    write(path)
    truth.write_text('{"1": ["dog"], "2": ["cat"]}')
    for command in ("chair", "compare"):
        if command == "compare" and kind in ("folder", "empty"):
            continue  # a folder is a run; an empty file may be of captions or of answers
        assert cli.main([command, str(path), "--ground-truth", str(truth)]) == 1
        error = capfd.readouterr().err
        assert error.count("\n") == 1
        assert said in error
        assert str(path) in error


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def coco(folder: Path, **changes: Any) -> CocoFolder:
    content = {
        "images": [{"id": 1, "file_name": "1.jpg"}],
        "annotations": [{"image_id": 1, "category_id": 1}],
        "categories": [{"id": 1, "name": "dog"}],
    }
    for key, value in changes.items():
        where, _, name = key.partition("__")
        content[where][0][name] = value  # type: ignore[index]
    write(folder / "annotations" / "instances_val2014.json", content)
    write(folder / "annotations" / "captions_val2014.json", {"annotations": []})
    return CocoFolder(folder)


def _read_instances(path: Path, key: str, value: Any) -> object:
    folder = coco(path.parent, **{key: value})
    return folder.image_ids("val2014"), list(folder.instances())


QUESTION = {"question_id": 1, "image": "000000000001.jpg", "text": "A dog?", "label": "yes"}
ANSWER = {"image_id": 1, "question": "A dog?", "label": "yes", "answer": "Yes"}
JOINED = {"question_id": 1, "prompt": "A dog?", "text": "Yes"}
NUMBERS: dict[str, Callable[[Path, Any], object]] = {
    "captions": lambda path, value: read_captions(write(path, [{"image_id": value, "caption": "A"}])),
    "AMBER's": lambda path, value: read_captions(write(path, [{"id": value, "response": "A"}])),
    "answers": lambda path, value: read_answers(write(path, [ANSWER | {"image_id": value}])),
    "question ids": lambda path, value: read_answers(write(path, [ANSWER | {"question_id": value}])),
    "joined answers": lambda path, value: read_answers_to(
        write(path, [JOINED | {"question_id": value}]), [write(path.with_name("q.json"), [QUESTION])]
    ),
    "questions": lambda path, value: read_answers_to(
        write(path, [JOINED]), [write(path.with_name("q.json"), [QUESTION | {"question_id": value}])]
    ),
    "samples": lambda path, value: read_captions(
        write(path, [{"doc_id": 0, "n": {"image_id": value, "caption": "A", "tokens": 3, "terminated": True}}])
    ),
    "images": lambda path, value: _read_instances(path, "images__id", value),
    "annotations": lambda path, value: _read_instances(path, "annotations__image_id", value),
    "annotated categories": lambda path, value: _read_instances(path, "annotations__category_id", value),
    "categories": lambda path, value: _read_instances(path, "categories__id", value),
}


@pytest.mark.parametrize("reader", NUMBERS)
def test_a_number_as_text_is_the_number_in_every_file(reader: str, tmp_path: Path) -> None:
    read = NUMBERS[reader]
    expected = read(tmp_path / "x.json", 1)
    for value in ("1", " 1", "1 ", "0001"):
        assert read(tmp_path / "x.json", value) == expected


@pytest.mark.parametrize("reader", NUMBERS)
@pytest.mark.parametrize(
    "value", [True, False, 1.0, -1, 2**63, 10**300, "1.0", "1e0", "+1", "-1", "1_0", "１", "", "one", [1], {"x": 1},
              float("nan"), float("inf")], ids=repr,
)  # fmt: skip
def test_what_is_no_number_is_refused_in_every_file(reader: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be a whole number") as caught:
        NUMBERS[reader](tmp_path / "x.json", value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("label", ["Yes", "yes ", " YES", "yes"])
def test_a_label_may_be_written_as_the_field_does(label: str, tmp_path: Path) -> None:
    assert read_answers(write(tmp_path / "a.json", [ANSWER | {"label": label}]))[0]["label"] == "yes"


@pytest.mark.parametrize("label", ["Yes.", "y", "1", 1, True, None, "", "yes no", ["yes"]])
def test_no_other_label_is_guessed_at(label: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="entry 1: 'label' must be"):
        read_answers(write(tmp_path / "a.json", [ANSWER | {"label": label}]))


def test_an_image_id_and_a_file_name_that_disagree_are_refused(tmp_path: Path) -> None:
    named = "COCO_val2014_000000000002.jpg"
    for read, row in ((read_answers, ANSWER), (read_captions, ROWS[0])):
        path = write(tmp_path / "a.json", [row | {"image": named}])
        with pytest.raises(UserError, match=f"entry 1: 'image_id' is 1, but 'image' is '{named}'"):
            read(path)
        write(path, [row | {"image": "kitchen.jpg"}])  # says nothing of a number
        assert len(read(path)) == 1


def test_half_a_surrogate_pair_survives_a_file(tmp_path: Path) -> None:
    captions = write(tmp_path / "c.json", [{"image_id": 1, "caption": "A dog \ud800."}])
    truth = write(tmp_path / "truth.json", {"1": ["dog"]})
    out = tmp_path / "rows.jsonl"
    assert cli.main(["chair", str(captions), "--ground-truth", str(truth), "--per-caption", str(out)]) == 0
    assert cli.main(["export", str(captions), "--to", "captions", "--output", str(tmp_path / "sent")]) == 0
    for path in (out, tmp_path / "sent" / "captions.jsonl"):
        assert read_captions(path)[0].text == "A dog \ud800."


def test_pictures_without_numbers_are_right_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = coco(tmp_path, images__file_name="rooms/kitchen.jpg")
    assert folder.image_id("kitchen.jpg") == 1
    captions = write(tmp_path / "c.json", [{"image_id": "kitchen.jpg", "caption": "A dog."}])
    for command in ("chair", "compare"):
        assert cli.main([command, str(captions), "--coco", str(tmp_path)]) == 1
        error = capsys.readouterr().err
        assert "an image id must be a whole number or a file name such as COCO_val2014_000000000042.jpg" in error
        assert error.count("\n") == 1
    answers = [ANSWER | {"image": "kitchen.jpg", "image_id": None}, ANSWER | {"image": "hall.jpg", "image_id": None}]
    assert len(read_answers(write(tmp_path / "a.json", answers))) == 2
    with pytest.raises(UserError, match=r"entry 2: a second answer to 'A dog\?' about image kitchen.jpg"):
        read_answers(write(tmp_path / "a.json", answers[:1] * 2))


def test_the_released_chats_give_the_released_figures(reference: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Six turns an image, in rows that say no image: a question may come again."""
    for name in ("chat", "single"):
        expected = json.loads((reference / "pope" / f"{name}.expected.json").read_text())
        answers = str(reference / "pope" / f"{name}.jsonl")
        assert cli.main(["pope", answers, "--parser", "pai", "--format", "json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert [found[key] for key in ("tp", "fp", "tn", "fn", "n")] == [
            expected[key] for key in ("TP", "FP", "TN", "FN", "n")
        ]
        assert found["accuracy"] == pytest.approx(100 * expected["accuracy"])


def test_truth_is_refused_where_a_word_is_none(tmp_path: Path) -> None:
    for words in ("dog", ["dogs"], [1], {"dog": 1}, None):
        with pytest.raises(UserError, match="image 1: "):
            read_ground_truth(write(tmp_path / "t.json", {"1": words}))
