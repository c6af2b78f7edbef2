"""Files by their content, and the values in them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from lmms_fixattn.errors import UserError
from lmms_fixattn.scoring.files.entries import image_number, read_entries, whole_number
from lmms_fixattn.scoring.files.reading import read_answers, read_captions, what_is_in

ROWS = [{"image_id": 42, "caption": "A dog."}, {"image_id": 73, "caption": 'Two\nlines, a "cat" and\ta bicycle.'}]
LINES = "".join(f"{json.dumps(row)}\n" for row in ROWS)
LAST = ROWS[1]["caption"].replace('"', '""')  # type: ignore[attr-defined]
FORMS = {
    "lines": LINES,
    "list": json.dumps(ROWS),
    "indented list": json.dumps(ROWS, indent=4),
    "indented objects": "\n".join(json.dumps(row, indent=1) for row in ROWS),
    "sentences": json.dumps({"sentences": ROWS, "overall_metrics": {"CHAIRs": 0.5}}),
    "csv": f'image_id,caption\n42,A dog.\n73,"{LAST}"\n',
    "tsv": f'image_id\tcaption\n42\tA dog.\n73\t"{LAST}"\n',
    "csv of Windows": f'image_id,caption\r\n42,A dog.\r\n73,"{LAST}"\r\n',
}


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.txt", "x"])
@pytest.mark.parametrize("form", FORMS)
def test_the_content_says_the_form_and_not_the_name(tmp_path: Path, form: str, name: str) -> None:
    for encoded in (FORMS[form].encode(), FORMS[form].encode("utf-8-sig"), gzip.compress(FORMS[form].encode())):
        path = tmp_path / name
        path.write_bytes(encoded)
        assert what_is_in(path) == "captions"
        assert [(caption.image_id, caption.text) for caption in read_captions(path)] == [
            (row["image_id"], row["caption"]) for row in ROWS
        ]


def test_a_table_holds_answers_and_what_captions_say_besides(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,label,answer,image_id,split\nIs there a dog?,yes,,,\nA cat?,No,Not one,7,random\n")
    assert read_answers(path) == [
        {"question": "Is there a dog?", "label": "yes", "answer": ""},
        {"question": "A cat?", "label": "no", "answer": "Not one", "image_id": 7, "split": "random"},
    ]
    path.write_text("image_id,caption,terminated,tokens\n1,A dog.,true,5\n2,,FALSE,\n3,A cat,,7\n")
    assert [tuple(caption)[:4] for caption in read_captions(path)] == [
        (1, "A dog.", True, 5),
        (2, "", False, None),
        (3, "A cat", None, 7),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("image_id,caption\n1,A dog.,and more\n", "line 2: 3 cells under 2 columns"),
        ('image_id,caption\n1,"A dog.\n', "malformed table"),
        ("image_id,image_id\n1,2\n", "line 1: two columns are called 'image_id'"),
        (
            'image_id,caption\n1,"A\ndog."\n2,A cat.\n2,A bus.\n',
            "line 5: a second caption for image 2, after .* line 4",
        ),
        ("A dog.\n", "expected a JSON list, JSON lines"),
        (LINES + LINES[:20] + "\n", r"line 3, column \d+: malformed JSON"),
        ('{"image_id": 1, "caption": "A", "image_id": 2}', "line 1: an object has the key 'image_id' twice"),
        (LINES + f'{{"image_id": {"9" * 5000}, "caption": "A"}}', "line 3: a number has too many digits"),
        (f'{{"image_id": "{"9" * 5000}", "caption": "A"}}', "line 1: an image id must be a whole number"),
        (LINES + '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "line 3: lists or objects are nested too deep"),
        ("[" * 100_000 + "]" * 100_000, "line 1: lists or objects are nested too deep"),
        (LINES + '{"image_id": NaN, "caption": "A"}', "line 3: an image id must be a whole number .* not NaN"),
        ('{"42": "A dog."}', "not one object by image id"),
        ("[null]", "entry 1: expected a .* object, not null"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(UserError, match=said) as caught:
        read_captions(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) * 2 + 400


@pytest.mark.parametrize(
    ("given", "number"),
    [
        (42, 42),
        ("42", 42),
        (" 0042 ", 42),
        ("000000000042.jpg", 42),
        ("COCO_val2014_000000000042.jpg", 42),
        ("/data/val2014/COCO_train2014_000000000042", 42),
        ("C:\\images\\000000000042.JPG", 42),
        ("2405722.jpg", 2405722),
    ],
)
def test_an_image_id_may_be_a_file_name(given: Any, number: int) -> None:
    assert image_number(given, "here") == number


@pytest.mark.parametrize(
    "given",
    [42.0, None, True, [42], {"id": 42}, -1, "-1", 2**63, "9" * 99, "", " ", "cam1_0007.png", "dog.jpg", "42.jpg.bak",
     float("nan"), float("inf"), "٤٢", "x42", "4 2", "42.0"],
)  # fmt: skip
def test_nothing_else_is_an_image_id(given: Any) -> None:
    with pytest.raises(UserError, match=r"^here: an image id must be a whole number"):
        image_number(given, "here")


def test_the_bounds_of_a_whole_number() -> None:
    assert whole_number(0, "here", "it") == 0
    assert whole_number(str(2**63 - 1), "here", "it") == 2**63 - 1


@pytest.mark.parametrize("key", ["caption", "text", "response", "answer", "output", "generated_text"])
def test_a_caption_may_be_called_what_released_files_call_it(tmp_path: Path, key: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"image": "000000000042.jpg", key: "A dog."}) + "\n")
    assert what_is_in(path) == "captions"
    assert [tuple(caption)[:5] for caption in read_captions(path)] == [(42, "A dog.", None, None, "000000000042.jpg")]


def test_two_keys_that_may_be_the_caption_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"image_id": 42, "text": "Describe the image.", "answer": "A dog."}) + "\n")
    with pytest.raises(UserError, match="'text' and 'answer' may each be the caption"):
        read_captions(path)
    path.write_text(json.dumps({"image_id": 42, "text": "Describe the image.", "caption": "A dog."}) + "\n")
    assert read_captions(path)[0].text == "A dog."


def test_entries_keep_their_order_and_place(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text("\n\n" + LINES)
    assert [place for place, _ in read_entries(path, "{}")] == [f"{path}, line 3", f"{path}, line 4"]
