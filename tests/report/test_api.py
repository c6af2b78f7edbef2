"""Scoring and comparing from Python: the figures of the command line, from values in memory and from files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lmms_fixattn
from lmms_fixattn import compare, score_answers, score_captions, to_frame
from lmms_fixattn.cli import main

TRUTH = {number: ["dog"] if number % 2 else ["cat", "couch"] for number in range(40)}
PLAIN = {number: "A dog sits on a couch. There is a cat." if number % 3 else "A dog." for number in TRUTH}
SHORT = dict.fromkeys(TRUTH, "A dog.")


def files(folder: Path) -> tuple[Path, Path, Path]:
    for name, captions in (("plain", PLAIN), ("short", SHORT)):
        rows = [{"image_id": number, "caption": text} for number, text in captions.items()]
        (folder / f"{name}.json").write_text(json.dumps(rows))
    (folder / "truth.json").write_text(json.dumps({str(number): words for number, words in TRUTH.items()}))
    return folder / "plain.json", folder / "short.json", folder / "truth.json"


def test_captions_in_memory_and_in_files_have_the_figures_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, _, truth = files(tmp_path)
    assert main(["chair", str(plain), "--ground-truth", str(truth), "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    del shown["analyser"]
    assert score_captions(PLAIN, TRUTH) == score_captions(plain, truth) == shown
    with pytest.raises(ValueError, match="1 of 40 captions have no truth, the first is of image 39"):
        score_captions(PLAIN, {number: words for number, words in TRUTH.items() if number < 39})


def test_answers_have_the_figures_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"question": f"Is there a {word}?", "label": label, "answer": answer}
        for word, label, answer in (("dog", "yes", "Yes, there is."), ("cat", "no", "Yes."), ("cup", "no", "No"))
    ]
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(rows))
    assert main(["pope", str(path), "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert score_answers(rows) == score_answers(path)
    assert score_answers(rows).items() <= shown.items()
    assert score_answers(rows)["accuracy"] == pytest.approx(100 * 2 / 3)


def test_runs_compare_as_on_the_command_line_and_as_a_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, short, truth = files(tmp_path)
    assert main(["compare", str(plain), str(short), "--ground-truth", str(truth), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    for comparison in (compare({"plain": PLAIN, "short": SHORT}, TRUTH), compare([plain, short], truth)):
        table = to_frame(comparison)
        for row in rows:
            found = table.loc[row["name"], "chair_s"]
            assert found["value"] == row["chair_s"]["value"]
            assert found["low"] == row["chair_s"]["low"]
        assert table.loc[("short", "chair_s"), "minus"] == rows[1]["differences"]["chair_s"]["value"]
        assert table["value"].unstack().loc["short", "words"] == pytest.approx(score_captions(SHORT, TRUTH)["words"])
        assert ("short", "chair_s_beyond_brevity") in table.index


def test_public_names_are_listed_and_load_when_asked_for() -> None:
    assert set(lmms_fixattn.__all__) <= set(dir(lmms_fixattn))
    for name in lmms_fixattn.__all__:
        assert getattr(lmms_fixattn, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = lmms_fixattn.nonsense
