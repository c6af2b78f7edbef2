"""Every reader against files with a changed value or broken text: read, or refused soon and in one line."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmms_fixattn.data import DataError
from lmms_fixattn.data.coco import CocoFolder
from lmms_fixattn.scoring import chair
from lmms_fixattn.scoring.files.entries import FileError
from lmms_fixattn.scoring.files.questions import read_answers_to
from lmms_fixattn.scoring.files.reading import read_answers, read_captions, read_ground_truth

TRIES = 2000
LONGEST = 2.0  # seconds
ODD = [None, True, 42.0, float("nan"), float("inf"), -1, 2**63, 10**400, "", " ", "x", "139", "\x00", "\ud800", [], {}]
DOG = "Is there a dog?"
IMAGES = [{"id": i, "file_name": f"{i}.jpg", "width": 7, "height": 5} for i in (1, 2)]
QUESTIONS = [{"question_id": i, "image": f"{i:012d}.jpg", "text": DOG, "label": "yes"} for i in (1, 2, 3)]
JOINED = [{"question_id": i, "prompt": DOG, "text": "Yes"} for i in (1, 2, 3)]
FILES: dict[str, Any] = {
    "captions": [{"image_id": i, "caption": "A dog."} for i in (1, 2, 3)],
    "answers": [{"image_id": i, "question": DOG, "label": "yes", "answer": "Yes"} for i in (1, 2, 3)],
    "truth": {"1": ["dog"], "2": ["cat"]},
    "questions": QUESTIONS,
    "joined answers": JOINED,
    "instances": {
        "images": IMAGES,
        "annotations": [{"id": i, "image_id": i, "category_id": i} for i in (1, 2)],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    },
    "reference captions": {"images": IMAGES, "annotations": [{"id": 1, "image_id": 1, "caption": "A dog."}]},
}


def changed(content: Any, chance: random.Random) -> Any:
    """Return a copy with one value replaced, taken out, doubled or wrapped."""
    whole = node = json.loads(json.dumps(content))
    while True:
        key = chance.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if isinstance(node[key], dict | list) and node[key] and chance.random() < 0.8:
            node = node[key]
            continue
        what = chance.random()
        if what < 0.6:
            node[key] = chance.choice(ODD)
        elif what < 0.8:
            del node[key]
        elif isinstance(node, list):
            node.append(node[key])
        else:
            node[key] = [node[key]]
        return whole


def written(content: Any, chance: random.Random) -> bytes:
    """Return JSON or JSON lines, half of them with bytes changed, lost or put in."""
    lines = isinstance(content, list) and chance.random() < 0.5
    text = bytearray(("\n".join(map(json.dumps, content)) if lines else json.dumps(content)).encode())
    for _ in range(chance.choice([0, 0, 0, 1, 2, 3])):
        place = chance.randrange(len(text) + 1)
        what = chance.random()
        if what < 0.4:
            text[place : place + 1] = bytes([chance.randrange(256)])
        elif what < 0.7:
            del text[place : place + chance.randint(1, 9)]
        else:
            text[place:place] = text[: chance.randint(1, 40)]
    return bytes(text)


@pytest.fixture
def reader(tmp_path: Path) -> Callable[[str], tuple[Path, Callable[[], object]]]:
    annotations = tmp_path / "annotations"
    annotations.mkdir()
    for name, kind in (("instances", "instances"), ("captions", "reference captions")):
        (annotations / f"{name}_val2014.json").write_text(json.dumps(FILES[kind]))
    questions, answers, path = (tmp_path / f"{name}.json" for name in ("questions", "answers", "mangled"))
    questions.write_text(json.dumps(QUESTIONS))
    answers.write_text(json.dumps(JOINED))
    analyser = chair.make_analyser()

    def truth() -> object:
        folder = CocoFolder(tmp_path)
        return folder.truth([1, 2], analyser), folder.sizes([1, 2])

    readers: dict[str, tuple[Path, Callable[[], object]]] = {
        "captions": (path, lambda: read_captions(path)),
        "answers": (path, lambda: read_answers(path)),
        "truth": (path, lambda: read_ground_truth(path)),
        "questions": (path, lambda: read_answers_to(answers, [path])),
        "joined answers": (path, lambda: read_answers_to(path, [questions])),
        "instances": (annotations / "instances_val2014.json", truth),
        "reference captions": (annotations / "captions_val2014.json", truth),
    }
    return readers.__getitem__


@pytest.mark.parametrize("kind", FILES)
def test_a_mangled_file_is_read_or_refused_in_one_line(
    kind: str, reader: Callable[[str], tuple[Path, Callable[[], object]]]
) -> None:
    chance = random.Random(kind)
    path, read = reader(kind)
    read_so_far = 0
    refused: list[str] = []
    for _ in range(TRIES):
        path.write_bytes(written(changed(FILES[kind], chance), chance))
        start = time.monotonic()
        try:
            read()
            read_so_far += 1
        except (FileError, DataError) as error:
            refused.append(str(error))
        except ValueError as error:
            if "COCO" not in str(error):  # a category that CHAIR does not know
                raise
            refused.append(str(error))
        assert time.monotonic() - start < LONGEST
    assert not [error for error in refused if "\n" in error]
    assert len(refused) > TRIES / 2
    assert read_so_far > 0
