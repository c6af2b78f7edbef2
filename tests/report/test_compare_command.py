from __future__ import annotations

import json
from pathlib import Path

import pytest
from runs_on_disk import answer_sample, caption_sample, write_lines, write_result

from lmms_fixattn import cli

SAYINGS = ("A dog and a cat.", "A dog", "A car next to a dog and a bus.", "A boat.")


def run(*arguments: object) -> int:
    return cli.main(["compare", *map(str, arguments)])


def caption_file(path: Path, shift: int, n: int = 40) -> Path:
    rows = [{"image_id": image, "caption": SAYINGS[(image + shift) % 4]} for image in range(n)]
    return write_lines(path, rows)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({str(image): ["dog", "bus"][: image % 3] for image in range(60)}))
    return path


def result(folder: Path, method: str, shift: int, prompt: str = "Describe.") -> Path:
    samples = {
        "chair_coco": [caption_sample(image, SAYINGS[(image + shift) % 4], ["dog"]) for image in range(40)],
        "pope_coco_random": [
            answer_sample(image, [("A dog?", "yes", "Yes" if image % (2 + shift) else "No")]) for image in range(40)
        ],
    }
    return write_result(folder, samples, method=method, prompt=prompt)


def test_files_are_compared_as_json(tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [caption_file(tmp_path / "a.jsonl", 0), f"other={caption_file(tmp_path / 'b.jsonl', 1)}"]
    assert run(*files, "--ground-truth", truth, "--format", "json", "--draws", 50, "--baseline", "other") == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    assert [row["name"] for row in found["rows"]] == ["other", "a"]
    assert found["settings"]["draws"] == 50
    assert run(*files, "--ground-truth", truth, "--draws", 50, "--baseline", files[1], "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == found


def test_folders_of_lmms_eval_need_no_truth_and_vanilla_is_the_baseline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [result(tmp_path / "pai", "pai", 1), result(tmp_path / "vanilla", "vanilla", 0)]
    assert run(*folders, "--draws", 50) == 0
    out = capsys.readouterr().out
    assert "baseline vanilla" in out
    assert "  pai: CHAIR_s" in out
    assert "POPE, minus vanilla" not in out
    assert run(*folders, "--draws", 50, "--full") == 0
    assert "POPE, minus vanilla" in capsys.readouterr().out


def test_runs_of_another_prompt_are_refused_unless_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [result(tmp_path / "a", "vanilla", 0), result(tmp_path / "b", "pai", 1, prompt="What is this?")]
    assert run(*folders, "--draws", 50) == 1
    error = capsys.readouterr().err
    assert error.startswith("lmms-fixattn compare: error: a and b differ in the prompt of chair_coco")
    assert error.count("\n") == 1
    assert run(*folders, "--draws", 50, "--allow-differences") == 0
    assert "a and b differ in the prompt of chair_coco" in capsys.readouterr().out


def test_missing_captions_are_refused_and_never_zeros(
    tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [caption_file(tmp_path / "a.jsonl", 0), caption_file(tmp_path / "b.jsonl", 1, n=39)]
    assert run(*files, "--ground-truth", truth, "--draws", 50) == 1
    assert "different images: 40 and 39, of which 39 are shared" in capsys.readouterr().err
    assert run(*files, "--ground-truth", truth, "--draws", 50, "--allow-differences", "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 39
    assert "only the 39 images that all caption are compared (of a 40, b 39)" in found["notes"]


def test_truth_comes_from_coco_annotations_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotations = tmp_path / "annotations"
    annotations.mkdir()
    images = [{"id": image, "file_name": f"{image}.jpg"} for image in range(40)]
    boxes = [{"id": image, "image_id": image, "category_id": 1} for image in range(40)]
    categories = [{"id": 1, "name": "dog"}]
    (annotations / "instances_val2014.json").write_text(
        json.dumps({"images": images, "categories": categories, "annotations": boxes})
    )
    (annotations / "captions_val2014.json").write_text(json.dumps({"images": images, "annotations": []}))
    files = [caption_file(tmp_path / "a.jsonl", 0), caption_file(tmp_path / "b.jsonl", 1)]
    assert run(*files, "--coco", tmp_path, "--draws", 50, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["n"] == 40


def test_without_truth_or_of_an_unknown_baseline_the_error_says_what_to_do(
    tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [caption_file(tmp_path / "alpha.jsonl", 0), caption_file(tmp_path / "beta.jsonl", 1)]
    assert run(*files) == 1
    assert "give the truth with --ground-truth or --coco" in capsys.readouterr().err
    assert run(*files, "--ground-truth", truth, "--baseline", "alhpa") == 1
    assert "did you mean 'alpha'" in capsys.readouterr().err
    assert run(*files, "--ground-truth", truth, "--format", "html") == 1
    assert "--output DIR" in capsys.readouterr().err
    for option, value, said in (("--draws", "0", "above 0, not '0'"), ("--seed", "-1", "from 0 on, not '-1'")):
        with pytest.raises(SystemExit):
            run(*files, f"{option}={value}")
        assert f"expected a whole number {said}" in capsys.readouterr().err


@pytest.mark.system
def test_output_holds_every_form_and_the_plots(tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [caption_file(tmp_path / "a.jsonl", 0), caption_file(tmp_path / "b.jsonl", 1)]
    out = tmp_path / "out"
    assert run(*files, "--ground-truth", truth, "--draws", 50, "--output", out, "--format", "csv") == 0
    printed = capsys.readouterr()
    assert printed.out == (out / "table.csv").read_text()
    assert printed.err.splitlines()[-1] == f"lmms-fixattn: open {out / 'page.html'}; --full prints every table here"
    names = {path.name for path in out.iterdir()}
    assert names >= {"comparison.json", "table.md", "table.tex", "table.csv", "page.html"}
    assert any(name.endswith(".svg") for name in names)
    assert run(*files, "--ground-truth", truth, "--draws", 50, "--output", out, "--format", "html") == 0
    assert capsys.readouterr().out == f"{out / 'page.html'}\n"


def test_runs_say_their_method_and_names_of_other_methods_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [f"{name}={result(tmp_path / name, 'fixattn', 0)}" for name in ("vanilla", "fixattn")]
    assert run(*folders, "--draws", 50) == 0
    out, err = capsys.readouterr()
    assert err == "lmms-fixattn: careful: the run called vanilla ran method=fixattn\n"
    notes = [line.strip() for line in out.partition("\nnotes\n")[2].splitlines()]
    assert "careful: the run called vanilla ran method=fixattn" in notes
    assert "vanilla ran method=fixattn" in notes
    assert "fixattn ran method=fixattn" in notes
    assert any(note.startswith("vanilla and fixattn ran the same method with the same settings") for note in notes)


def test_the_folder_of_a_sweep_is_all_of_its_finished_cells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, method, shift in (("plain", "vanilla", 0), ("pai_alpha_0.5", "pai", 1)):
        result(tmp_path / "sweep-a" / "cells" / name / "checkpoint", method, shift)
    (tmp_path / "sweep-a" / "unfinished" / "fixattn").mkdir(parents=True)
    assert run(tmp_path / "sweep-a", "--draws", 50, "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["rows"]] == ["plain", "pai_alpha_0.5"]
    other = result(tmp_path / "b", "hgai", 2)
    assert run(f"s={tmp_path / 'sweep-a'}", other, "--draws", 50, "--format", "json", "--baseline", other) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["rows"]] == ["b", "s pai_alpha_0.5", "s plain"]


@pytest.mark.parametrize("silent", [4, 5])
def test_above_a_tenth_of_silent_captions_no_verdict_is_given(
    tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str], silent: int
) -> None:
    rows = [{"image_id": image, "caption": "A dog and a cat." if image >= silent else "Sky."} for image in range(40)]
    quiet = write_lines(tmp_path / "quiet.jsonl", rows)
    loud = write_lines(tmp_path / "loud.jsonl", [{"image_id": n, "caption": "A dog, a car, a cat."} for n in range(40)])
    for files in ((loud, quiet), (quiet, loud)):
        assert run(*files, "--ground-truth", truth, "--draws", 50, "--format", "json") == 0
        said = json.loads(capsys.readouterr().out)["rows"][1]["verdict"]
        assert said.startswith("captions: no verdict, 5 of ") == (silent == 5)
        assert ("the baseline's" in said) == (silent == 5 and files[0] == quiet)
        assert ("CHAIR_s" in said) == (silent == 4)
    assert run(loud, quiet, "--ground-truth", truth, "--draws", 50, "--format", "latex") == 0
    assert ("textbf" in capsys.readouterr().out) == (silent == 4)


def test_the_key_that_the_captions_were_taken_from_is_said(
    tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = write_lines(tmp_path / "theirs.jsonl", [{"image_id": n, "text": SAYINGS[n % 4]} for n in range(40)])
    files = [caption_file(tmp_path / "a.jsonl", 0), theirs]
    assert run(*files, "--ground-truth", truth, "--draws", 50, "--format", "json") == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert [note for note in notes if "from the key" in note] == ["theirs: the captions were taken from the key 'text'"]


def test_other_images_are_refused_with_how_to_choose_them(
    tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [caption_file(tmp_path / "a.jsonl", 0), caption_file(tmp_path / "b.jsonl", 1, n=30)]
    assert run(*files, "--ground-truth", truth) == 1
    assert "LMMS_FIXATTN_IMAGES runs chair_coco on a list of yours" in capsys.readouterr().err
