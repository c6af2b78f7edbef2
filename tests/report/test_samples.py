from __future__ import annotations

import base64
import io
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lmms_fixattn.report import samples as module
from lmms_fixattn.report.compare import Comparison
from lmms_fixattn.report.runs import AnswerEntry
from lmms_fixattn.report.samples import answers, captions, thumbnail
from lmms_fixattn.scoring.chair import make_analyser


def of(comparison: Comparison) -> dict[str, Any]:
    found = captions(comparison, make_analyser())
    assert found is not None
    return found


def test_every_caption_is_there_whole_with_its_marks_and_counts(comparison: Comparison) -> None:
    found = of(comparison)
    assert found["runs"] == [row.name for row in comparison.rows]
    shown = json.loads(json.dumps(found))["samples"]
    assert len(shown) == 40
    for run, row in enumerate(comparison.rows):
        for sample, scored in zip(shown, row.captions, strict=True):
            assert (sample["id"], sample["task"]) == (scored["image_id"], "chair")
            assert sample["truth"] == scored["truth"]
            caption = sample["captions"][run]
            assert "".join(part if isinstance(part, str) else part[0] for part in caption["text"]) == scored["caption"]
            marks = [part for part in caption["text"] if not isinstance(part, str)]
            assert [name for _, name, _ in marks] == scored["objects"]
            assert [name for _, name, supported in marks if not supported] == scored["hallucinated"]
            assert caption["mentions"] == len(scored["objects"])
            assert caption["wrong"] == sorted(set(scored["hallucinated"]))
            assert caption["missed"] == [name for name in scored["truth"] if name not in scored["objects"]]
            assert caption["ended"] is True


def test_pictures_are_small_and_those_with_the_largest_differences_come_first(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = of(comparison)
    assert whole["pictures"] == "Pictures of 40 of 40 images."
    monkeypatch.setattr(module, "MOST_PICTURES", 7)
    some = of(comparison)
    spread = [
        max(len(caption["wrong"]) for caption in sample["captions"])
        - min(len(caption["wrong"]) for caption in sample["captions"])
        for sample in some["samples"]
    ]
    having = [number for number, sample in enumerate(some["samples"]) if sample["picture"]]
    assert len(having) == 7
    assert min(spread[number] for number in having) >= max(
        value for number, value in enumerate(spread) if number not in having
    )
    assert some["pictures"].startswith("Pictures of 7 of 40 images. There are at most 7,")


def test_pictures_that_are_gone_or_broken_are_counted(comparison: Comparison, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")

    def moved(row: Any, path: Path | None) -> Any:
        return replace(row, captions=tuple({**caption, "image": path and str(path)} for caption in row.captions))

    rows = comparison.rows
    gone = of(replace(comparison, rows=tuple(moved(row, tmp_path / "gone.png") for row in rows)))
    assert gone["pictures"].startswith("Pictures of 0 of 40 images. ")
    unreadable = of(replace(comparison, rows=tuple(moved(row, broken) for row in rows)))
    assert unreadable["pictures"] == gone["pictures"]
    # One run that logged its pictures is enough.
    assert of(replace(comparison, rows=(moved(rows[0], None), *rows[1:])))["pictures"] == "Pictures of 40 of 40 images."


@pytest.mark.parametrize(("mode", "size"), [("RGB", (640, 427)), ("L", (90, 300)), ("P", (20, 20)), ("RGBA", (500, 9))])
def test_a_thumbnail_keeps_the_shape_and_is_no_larger_than_it_must(
    mode: str, size: tuple[int, int], tmp_path: Path
) -> None:
    noise = random.Random(0).randbytes(size[0] * size[1])
    Image.frombytes("L", size, noise).convert(mode).save(tmp_path / "a.png")
    address = thumbnail(tmp_path / "a.png")
    assert address is not None
    head, _, content = address.partition(";base64,")
    with Image.open(io.BytesIO(base64.b64decode(content))) as found:
        assert head == f"data:image/{str(found.format).lower()}"
        assert max(found.size) == min(max(size), 400)
        assert found.width / found.height == pytest.approx(size[0] / size[1], rel=0.5 if min(found.size) < 9 else 0.02)
    assert len(address) < 60_000


def test_a_comparison_of_answers_alone_has_no_captions(answers_alone: Comparison) -> None:
    assert captions(answers_alone, make_analyser()) is None


def test_every_question_has_its_label_and_each_runs_answer_as_it_was_read(answers_alone: Comparison) -> None:
    found = answers(answers_alone)
    assert found is not None
    assert (found["runs"], found["splits"], len(found["questions"])) == (["a", "b"], ["random"], 120)
    entries = zip(*answers_alone.answers["random"].values(), strict=True)
    for asked, (first, _) in zip(found["questions"], entries, strict=True):
        assert asked == {
            "split": "random",
            "image": first.image_id,
            "question": first.question,
            "label": first.label,
            "answers": [["Yes", "yes"], ["No", "no"]],
        }


def test_what_is_read_as_neither_and_what_a_run_was_not_asked_is_said(answers_alone: Comparison) -> None:
    odd = AnswerEntry(None, "Is there a <cat>?", "no", "Perhaps.")
    settings = dict(answers_alone.settings) | {"parser": "exact"}
    having = {"": {"b": (odd,)}, "chat_random": {"a": (odd,), "b": (odd,)}}
    found = answers(replace(answers_alone, answers=having, settings=settings))
    assert found is not None
    assert found["splits"] == ["", "chat random"]
    assert [one["answers"] for one in found["questions"]] == [[None, ["Perhaps.", None]], [["Perhaps.", None]] * 2]
    assert answers(replace(answers_alone, answers={})) is None
