from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from coco_folders import write_coco

from lmms_fixattn import cli
from lmms_fixattn.cli.console import Parser

CAPTIONS = [{"image_id": 7, "caption": "A dog next to a car."}, {"image_id": "11", "caption": "Two women and a cat."}]
TRUTH = {"7": ["dog"], "11": ["person", "cat"], "13": []}
ANSWERS = [
    {"question": "Is there a dog?", "label": "yes", "answer": "Yes, there is."},
    {"question": "Is there a cat?", "label": "no", "answer": "There isn't."},
    {"question": "Is there a car?", "label": "no", "answer": "No."},
]
CHAIR_KEYS = [
    "chair_s",
    "chair_i",
    "recall",
    "precision",
    "f1",
    "words",
    "chair_i_unique",
    "rep_4",
    "looped",
    "unterminated",
    "n",
    "analyser",
]
POPE_KEYS = ["accuracy", "precision", "recall", "f1", "yes_ratio", "tp", "fp", "tn", "fn", "unparsed", "n"]


def lines(rows: list[Any]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(TRUTH))
    return path


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("name", ["c.jsonl", "c.json", "c.jsonl.gz", "c.json.gz"])
def test_chair_scores_every_form_of_file(
    name: str, tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (lines(CAPTIONS) if "jsonl" in name else json.dumps(CAPTIONS)).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert run("chair", path, "--ground-truth", truth, "--format", "json") == 0
    out, err = capsys.readouterr()
    figures = json.loads(out)
    assert list(figures) == CHAIR_KEYS
    assert figures["chair_s"] == 50
    assert figures["chair_i"] == 25
    assert figures["recall"] == 100
    assert (figures["n"], figures["analyser"]) == (2, "lexicon")
    assert "1 of 3 images" in err


def test_chair_writes_a_row_a_caption(tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "c.jsonl", tmp_path / "rows.jsonl"
    path.write_text(lines([{**CAPTIONS[0], "terminated": False}, CAPTIONS[1]]))
    assert run("chair", path, "--ground-truth", truth, "--per-caption", out) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["image_id"], row["hallucinated"], row["terminated"]) for row in rows] == [
        (7, ["car"], False),
        (11, [], True),
    ]
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table] == CHAIR_KEYS
    assert next(line for line in table if line.startswith("unterminated")).split()[1] == "50.00"


def test_chair_reads_truth_from_a_coco_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotations = tmp_path / "annotations"
    annotations.mkdir()
    for split, image_id, box, caption in (("val", 7, "car", "A puppy."), ("train", 11, "person", "A kitten")):
        images = [{"id": image_id, "file_name": f"{image_id}.jpg"}]
        (annotations / f"instances_{split}2014.json").write_text(
            json.dumps(
                {
                    "images": images,
                    "categories": [{"id": 3, "name": box}],
                    "annotations": [{"id": 1, "image_id": image_id, "category_id": 3}],
                }
            )
        )
        (annotations / f"captions_{split}2014.json").write_text(
            json.dumps({"images": images, "annotations": [{"id": 1, "image_id": image_id, "caption": caption}]})
        )
    path = tmp_path / "c.jsonl"
    path.write_text(lines(CAPTIONS))
    assert run("chair", path, "--coco", tmp_path, "--format", "json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["chair_s"], figures["recall"], figures["n"]) == (0, 100, 2)
    path.write_text(lines([*CAPTIONS, {"image_id": 99, "caption": "A dog."}]))
    assert run("chair", path, "--coco", tmp_path) == 1
    assert "99" in capsys.readouterr().err


def test_a_coco_image_without_truth_is_refused_as_the_task_refuses_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_coco(tmp_path, {139: ["person", "dog"], 285: []}, {139: ["A man and a dog."]}, pictures=False)
    path = tmp_path / "c.jsonl"
    rows = [{"image_id": 139, "caption": "A man with a dog."}, {"image_id": 285, "caption": "A brown bear."}]
    path.write_text(lines(rows))
    for command in ("chair", "compare"):
        assert run(command, path, "--coco", tmp_path) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert "1 of 2 images have neither instances nor captions" in err
    path.write_text(lines(rows[:1]))
    assert run("chair", path, "--coco", tmp_path, "--format", "json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["chair_s"], figures["n"]) == (0, 1)


@pytest.mark.parametrize(
    ("again", "said"),
    [
        ({}, "line 2: a second answer to 'Is there a dog?' about image 1, after "),
        ({"label": "no"}, "line 2: 'Is there a dog?' about image 1 has the labels yes and no"),
        ({"image_id": "1"}, "line 2: a second answer"),
        ({"image_id": None, "image": "COCO_val2014_000000000001.jpg"}, "line 2: a second answer"),
        ({"split": "popular"}, None),
        ({"image_id": 2}, None),
        ({"image_id": None}, None),
        ({"question": "Is there a cat?"}, None),
        ({"question_id": 5}, "line 2: a second answer"),
        ({"question_id": 6}, None),
    ],
)
def test_a_question_answered_twice_about_an_image_is_refused(
    again: dict[str, Any], said: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"image_id": 1, "question": "Is there a dog?", "label": "yes", "answer": "Yes"}
    row |= {"question_id": 5} if "question_id" in again else {}
    path = tmp_path / "answers.jsonl"
    path.write_text(lines([row, row | again]))
    for command in ("pope", "compare"):
        assert run(command, path) == (0 if said is None else 1)
        assert said is None or said in capsys.readouterr().err


def test_rows_that_name_no_image_may_repeat_a_question_but_no_question_id(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"question": "Is there a dog?", "label": "yes", "answer": "Yes"}
    path = tmp_path / "answers.jsonl"
    path.write_text(lines([row, row]))
    assert run("pope", path, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["n"] == 2
    for origin in ({"question_id": 5}, {"image": "kitchen.jpg"}):
        path.write_text(lines([row | origin, row | origin]))
        assert run("pope", path) == 1
        assert "line 2: a second answer" in capsys.readouterr().err


def test_what_was_taken_for_captions_and_image_ids_is_said(
    tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(lines([{"image_id": "COCO_val2014_000000000007.jpg", "text": "A dog and a car."}]))
    assert run("chair", path, "--ground-truth", truth, "--format", "json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["chair_i"] == 50
    assert "captions were taken from the key 'text'" in err
    assert "1 image ids were read from file names, such as 7 from 'COCO_val2014_000000000007.jpg'" in err


def test_a_file_name_is_read_as_an_id_only_where_the_coco_folder_agrees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file_name, given, status in (
        ("COCO_{split}_{image_id:012d}.png", "000000000007.jpg", 0),
        ("{image_id:04d}.png", "0007.png", 0),
        ("picture {image_id}.png", "0007.png", 1),
        ("cam1/{image_id:04d}.png", "cam2/0007.png", 1),
    ):
        write_coco(tmp_path, {7: ["dog"]}, {7: ["A dog."]}, file_name=file_name, pictures=False)
        path = tmp_path / "c.jsonl"
        path.write_text(lines([{"image": given, "caption": "A dog."}]))
        for command in ("chair", "compare"):
            assert run(command, path, "--coco", tmp_path) == status
            assert ("was read as image 7, which is" in capsys.readouterr().err) is bool(status)


def test_the_reference_scorers_own_figures_stand_beside_ours(
    tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "reference.json"
    metrics = {"CHAIRs": 0.5, "CHAIRi": 0.2, "Recall": 1.0, "Len": 0.065, "Bleu": None}
    path.write_text(json.dumps({"sentences": CAPTIONS, "overall_metrics": metrics}))
    assert run("chair", path, "--ground-truth", truth, "--format", "json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["chair_s"] == 50
    assert "CHAIRs 50.00 (50.00), CHAIRi 20.00 (25.00), Recall 100.00 (100.00), Len 6.50 (6.50)" in err


def test_captions_without_objects_are_scored_with_a_word_about_them(
    tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(lines([{"image_id": 7, "caption": ""}, {"image_id": 11, "caption": "Zwei Frauen, eine Katze."}]))
    assert run("chair", path, "--ground-truth", truth, "--format", "json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["chair_s"] == 0
    assert "1 of 2 captions are empty (image 7) and 1 of 2 captions name none of the 80 objects (image 11)" in err


def test_pope_scores_with_the_parser_that_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(lines(ANSWERS))
    found, otherwise = {}, {}
    for parser in ("official", "pai", "vcd", "exact"):
        assert run("pope", path, "--parser", parser, "--format", "json") == 0
        figures = json.loads(capsys.readouterr().out)
        others = [f"otherwise_{other}" for other in ("official", "pai", "vcd", "exact") if other != parser]
        assert list(figures) == [*POPE_KEYS, *others, "parser"]
        assert figures["parser"] == parser
        found[parser] = [figures[key] for key in ("tp", "fp", "tn", "fn")]
        otherwise[parser] = [figures[key] for key in others]
    assert found == {"official": [1, 1, 1, 0], "pai": [1, 0, 2, 0], "vcd": [1, 1, 1, 0], "exact": [0, 0, 0, 0]}
    assert otherwise == {"official": [1, 0, 3], "pai": [1, 1, 3], "vcd": [0, 1, 3], "exact": [3, 3, 3]}
    assert run("pope", path) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table] == [
        *POPE_KEYS,
        *(f"otherwise_{name}" for name in ("pai", "vcd", "exact")),
        "parser",
    ]
    assert table[-1].split() == ["parser", "official"]


def test_methods_are_listed_with_their_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    from lmms_fixattn import make_method

    assert run("methods", "--format", "json") == 0
    methods = {method["name"]: method for method in json.loads(capsys.readouterr().out)}
    assert {"vanilla", "pai", "fixattn"} <= methods.keys()
    for name, method in methods.items():
        made = make_method(name)
        assert method["source"]
        assert method["summary"]
        for parameter in method["parameters"]:
            default = getattr(made, parameter["name"])
            assert parameter["default"] == (list(default) if isinstance(default, tuple) else default)
            assert parameter["meaning"]
        assert method["verified"]
    assert methods["spin"]["hooks"] == ["edit_weights"]
    assert methods["vcd"]["hooks"] == ["branch", "guide"]
    assert run("methods") == 0
    table = capsys.readouterr().out
    assert "fixattn" in table
    assert run("methods", "fixattn") == 0
    told = capsys.readouterr().out
    assert "s[h, j] += alpha * g[h] * |s[h, j]|" in told
    assert re.search("^local_ratio +0.25 ", told, re.MULTILINE)
    assert run("methods", "fixatn") == 1
    assert "did you mean 'fixattn'" in capsys.readouterr().err


def test_the_readme_holds_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("methods", "--format", "markdown") == 0
    assert capsys.readouterr().out in (Path(__file__).parents[2] / "README.md").read_text()


GOOD = lines(CAPTIONS)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("c.jsonl", "", "no captions"),
        ("c.json", "[]", "no captions"),
        ("c.jsonl", "\n\n", "no captions"),
        ("c.jsonl", GOOD + '{"image_id": 5,', "line 3"),
        ("c.json", '[\n{"image_id": 5,\n"caption" "x"}]', "line 3"),
        ("c.json", '{"7": "A dog"}', "expected a list"),
        ("c.jsonl", "[1, 2]\n", "entry 1: expected a"),
        ("c.jsonl", '{"image_id": 7, "captoin": "x"}\n', "'caption'"),
        ("c.jsonl", '{"id": 7, "caption": "x"}\n', "'image_id'"),
        ("c.jsonl", '{"image_id": 7, "caption": null}\n', "must be text, not null"),
        ("c.jsonl", '{"image_id": "x7", "caption": "x"}\n', "whole number"),
        ("c.jsonl", '{"image_id": true, "caption": "x"}\n', "whole number"),
        ("c.jsonl", '{"image_id": 7, "caption": "x", "terminated": "yes"}\n', "'terminated'"),
        ("c.jsonl", GOOD + lines(CAPTIONS[:1]), "line 3: a second caption for image 7"),
        ("c.jsonl", lines([{"image_id": 5, "caption": "A dog."}]), "image 5"),
        ("c.txt", "A dog.\n", ".jsonl"),
        ("c.jsonl.gz", GOOD, "gzip"),
    ],
)
def test_a_bad_caption_file_is_one_line_and_exit_status_one(
    name: str, content: str, said: str, tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert run("chair", path, "--ground-truth", truth) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "expected one object"),
        ("{", "line 1"),
        ('{"7": "dog"}', "list of node words"),
        ('{"7": ["motorbike"]}', "did you mean 'motorcycle'"),
        ('{"seven": ["dog"]}', "whole number"),
        ('{"7": ["dog"], "7": ["cat"]}', "has the key '7' twice"),
        ('{"7": ["dog"], "07": ["cat"]}', "second truth of image 7"),
        ('{"7": ["dog", null]}', "one that holds null"),
        ('{"7": ["dog"]}{"11": []}', "not 2 values"),
    ],
)
def test_a_bad_truth_file_is_one_line_and_exit_status_one(
    content: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions, truth = tmp_path / "c.jsonl", tmp_path / "gt.json"
    captions.write_text(GOOD)
    truth.write_text(content)
    assert run("chair", captions, "--ground-truth", truth) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no answers"),
        ('{"question": "q", "label": "maybe", "answer": "yes"}\n', "line 1: 'label'"),
        ('{"question": "q", "answer": "yes"}\n', "no key 'label'"),
        ('\n{"question": "q", "label": "no", "answer": 3}\n', "line 2: 'answer' must be text"),
        (b'{"question": "\xff"}', "not UTF-8"),
    ],
)
def test_a_bad_answer_file_is_one_line_and_exit_status_one(
    content: str | bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert run("pope", path) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert said in err


def test_files_that_are_not_there_are_named(tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = tmp_path / "c.jsonl"
    captions.write_text(GOOD)
    for arguments in (
        ("chair", tmp_path / "none.jsonl", "--ground-truth", truth),
        ("chair", captions, "--ground-truth", tmp_path / "none.json"),
        ("chair", captions, "--coco", tmp_path / "none"),
        ("chair", captions, "--ground-truth", truth, "--per-caption", tmp_path / "none" / "out.jsonl"),
        ("pope", tmp_path / "none.jsonl"),
    ):
        assert run(*arguments) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert "none" in err


@pytest.mark.parametrize(
    ("command", "place"),
    [("methods", "lmms_fixattn.methods.method_class"), ("pope", "lmms_fixattn.scoring.pope.figures")],
)
def test_what_a_library_raises_is_one_line_exit_status_one_and_a_traceback_in_a_file(
    command: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def trips(*_: object) -> None:
        {}["column"]

    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(place, trips)
    answers = tmp_path / "answers.jsonl"
    answers.write_text(lines(ANSWERS))
    assert run(command, answers if command == "pope" else "pai") == 1
    out, err = capsys.readouterr()
    (path,) = folder.iterdir()
    assert out == ""
    assert err.startswith(f"lmms-fixattn {command}: error: KeyError: 'column'; with lmms-eval ")
    assert err.endswith(f": run `lmms-fixattn check`; traceback in {path}\n")
    assert err.count("\n") == 1
    assert "in trips" in path.read_text()


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left"), 1)])
def test_an_interrupt_and_the_systems_errors_leave_no_file(
    error: BaseException,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*_: object) -> None:
        raise error

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("lmms_fixattn.methods.method_class", stop)
    assert run("methods", "pai") == status
    said = "stopped by SIGINT" if status == 130 else f"error: {error}"
    assert capsys.readouterr().err == f"lmms-fixattn methods: {said}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_command_line_is_exit_status_two(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["chair"], ["chair", "c.jsonl"], ["pope", "a.jsonl", "--parser", "llm"], ["charm"]):
        with pytest.raises(SystemExit) as caught:
            run(*arguments)
        assert caught.value.code == 2
        assert "lmms-fixattn" in capsys.readouterr().err


@pytest.mark.system
def test_scoring_loads_neither_torch_nor_lmms_eval(tmp_path: Path, truth: Path) -> None:
    captions, answers = tmp_path / "c.jsonl", tmp_path / "a.jsonl"
    captions.write_text(GOOD)
    answers.write_text(lines(ANSWERS))
    code = (
        "import sys; from lmms_fixattn import cli; "
        f"assert cli.main(['chair', {str(captions)!r}, '--ground-truth', {str(truth)!r}]) == 0; "
        f"assert cli.main(['pope', {str(answers)!r}]) == 0; "
        "heavy = {'torch', 'transformers', 'lmms_eval', 'datasets', 'nltk', 'numpy'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["comprae"], "'comprae'.*\\(did you mean 'compare'\\?\\)"),
        (["chair", "x", "--analyser", "lexikon"], "--analyser: .*\\(did you mean 'lexicon'\\?\\)"),
        (["export", "x", "--to", "caption", "--output", "y"], "--to: .*\\(did you mean 'captions'\\?\\)"),
        (["calibrate", "adiat"], "METHOD: .*\\(did you mean 'adaiat'\\?\\)"),
        (["pope", "x", "--parser", "zzz"], "invalid choice: 'zzz' \\([^()]*\\)$"),
    ],
)
def test_a_mistyped_choice_is_told_the_nearest_one(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(*arguments)
    assert re.search(said, capsys.readouterr().err.strip())


@pytest.mark.parametrize("choices", ["'table', 'json'", "table, json"])  # until Python 3.12, and later
def test_choices_are_read_as_every_python_words_them(choices: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Parser(prog="x").error(f"argument --format: invalid choice: 'tabel' (choose from {choices})")
    assert capsys.readouterr().err.endswith(f"(choose from {choices}) (did you mean 'table'?)\n")


@pytest.mark.parametrize("command", ["chair", "pope"])
def test_a_command_that_scores_one_file_says_what_reads_a_folder(
    command: str, tmp_path: Path, truth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--ground-truth", truth] if command == "chair" else []
    assert run(command, tmp_path, *more) == 1
    said = f"{tmp_path} is a folder, and {command} scores one file: name it, of lmms-eval a *_samples_TASK.jsonl"
    assert f"error: {said}; folders are read by lmms-fixattn compare\n" in capsys.readouterr().err
