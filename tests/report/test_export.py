"""What `export` writes reads back to the figures of the run."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from lmms_fixattn import cli
from lmms_fixattn.errors import UserError
from lmms_fixattn.report.compare import compare, to_json
from lmms_fixattn.report.export import FORMS, card, export, written_card
from lmms_fixattn.report.runs import AnswerEntry, CaptionEntry, Run, read_run
from lmms_fixattn.scoring import chair, pope
from lmms_fixattn.scoring.files.reading import read_answers, read_captions, read_ground_truth

OBJECTS = ("dog", "cat", "truck", "bench", "umbrella", "hot dog", "pizza")
LEXICON = chair.make_analyser()
RECORD = {
    "lmms_fixattn": {
        "method": {"name": "pai", "alpha": 0.2, "gamma": 1.1},
        "pretrained": "some/checkpoint",
        "dtype": "float16",
        "attention": {"text": "sdpa", "vision": "sdpa"},
        "versions": {"torch": "2.15.0"},
    },
    "date": "20260102_030405",
    "tasks": {
        "chair_coco": {
            "version": 1.0,
            "prompt": "Describe.",
            "max_new_tokens": 64,
            "generation_kwargs": {"max_new_tokens": 64},
            "image_list": "mine",
            "image_list_sha256": "a" * 64,
            "analyser": "lexicon",
        },
    }
    | {
        task: {
            "version": 2.0,
            "prompt": "question",
            "parser": "pai",
            "max_new_tokens": None,
            "generation_kwargs": {},
        }
        for task in ("pope_coco_random", "pope_coco_chat_random")
    },
}


@pytest.fixture
def run() -> Run:
    """A run of captions, questions and conversations, with awkward text and every way to end."""
    chance = random.Random(5)
    captions = []
    for image_id in chance.sample(range(1, 10**6), 43):
        said = chance.choices(OBJECTS, k=chance.randint(0, 6))
        text = " and ".join(f"a “{name}”" for name in said) + chance.choice([".", "", "\n\nThe end", " 🙂 \t"])
        truth = frozenset(chance.sample(OBJECTS, 3))
        captions.append(CaptionEntry(image_id, text, chance.choice([True, False]), chance.randint(1, 64), truth))
    single, chat = (
        tuple(
            AnswerEntry(
                image_id=number // 6,
                question=f"Is there a {OBJECTS[number % 6]} in the image?",
                label="yes" if number % 2 else "no",
                answer=chance.choice(["Yes", "No.", "Yes, not a cat", "There isn't"]),
                question_id=number,
            )
            for number in range(60)
        )
        for _ in range(2)
    )
    return Run(
        "mine",
        Path("somewhere"),
        {"chair_coco": tuple(captions)},
        {"pope_coco_random": single, "pope_coco_chat_random": chat},
        RECORD,
        seconds=11.5,
        generated_tokens=900,
        requests=43 + 60 + 10,
    )


def figures(run: Run, truth: dict[int, frozenset[str]] | None = None, parser: str = "pai") -> dict[str, object]:
    row = to_json(compare([run], None, truth, LEXICON, draws=50, parser=parser))["rows"][0]
    return {key: value for key, value in row.items() if key != "name"}


def test_captions_read_back_to_the_same_figures(run: Run, tmp_path: Path) -> None:
    export(run, "captions", tmp_path)
    written = tmp_path / "chair_coco.jsonl"
    again = read_run(str(written))
    truth = {entry.image_id: entry.truth or frozenset() for entry in run.captions["chair_coco"]}
    captions_alone = Run("mine", run.path, run.captions)
    assert figures(again, truth) == figures(captions_alone)
    assert [tuple(caption)[:4] for caption in read_captions(written)] == [
        (entry.image_id, entry.text, entry.terminated, entry.tokens) for entry in run.captions["chair_coco"]
    ]
    assert read_ground_truth(tmp_path / "chair_coco.truth.json") == truth


def test_answers_read_back_to_the_same_figures(run: Run, tmp_path: Path) -> None:
    export(run, "pope", tmp_path)
    for task, entries in run.answers.items():
        path = tmp_path / f"{task}.jsonl"
        before = pope.figures(({"label": entry.label, "answer": entry.answer} for entry in entries), "pai")
        assert pope.figures(read_answers(path), "pai") == before
        alone = Run("mine", run.path, answers={task: entries})
        assert figures(read_run(str(path))) == figures(alone)


def test_a_card_says_what_made_the_run_and_its_figures(run: Run) -> None:
    content = json.loads(json.dumps(card(run)))
    assert content["method"] == "pai"
    assert content["hyper_parameters"] == {"alpha": 0.2, "gamma": 1.1}
    assert content["model"]["dtype"] == "float16"
    assert content["model"]["commit"] == "not recorded"
    assert content["protocol"] == {
        "analyser": "lexicon", "parser": "pai", "draws": 5000, "seed": 0, "level": 0.95,
    }  # fmt: skip
    assert content["tasks"]["chair_coco"]["image_list_sha256"] == "a" * 64
    rows = [
        chair.score_caption(entry.image_id, entry.text, entry.truth or set(), LEXICON, entry.terminated)
        for entry in run.captions["chair_coco"]
    ]
    expected = chair.corpus_figures(rows)
    for name in ("chair_s", "chair_i", "recall", "unterminated"):
        found = content["figures"][name]
        assert found["value"] == pytest.approx(expected[name])
        assert found["low"] <= found["value"] <= found["high"]
    text = written_card(content)
    for part in ("mine: pai", "alpha=0.2, gamma=1.1", "float16", "a" * 12, "Describe.", "pope_chat_random_accuracy"):
        assert part in text


def test_captions_without_truth_get_a_card_without_figures_and_say_so(tmp_path: Path) -> None:
    path = tmp_path / "theirs.jsonl"
    path.write_text('{"image_id": 3, "caption": "A dog."}\n')
    paths = export(read_run(str(path)), "captions", tmp_path / "out")
    assert [path.name for path in paths] == ["captions.jsonl", "method_card.json", "METHOD_CARD.md"]
    content = json.loads((tmp_path / "out" / "method_card.json").read_text())
    assert content["figures"] == {}
    assert "truth is not known" in content["unscored"]
    assert "truth is not known" in (tmp_path / "out" / "METHOD_CARD.md").read_text()


def test_truth_from_the_command_line_wins_and_is_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions, truth = tmp_path / "theirs.jsonl", tmp_path / "truth.json"
    captions.write_text('{"image_id": 3, "caption": "A dog."}\n{"image_id": 4, "caption": "A cat."}\n')
    truth.write_text('{"3": ["dog"], "4": ["bench"]}')
    out = tmp_path / "out"
    arguments = ["export", str(captions), "--to", "captions", "--output", str(out), "--ground-truth", str(truth)]
    assert cli.main(arguments) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert read_ground_truth(out / "captions.truth.json") == {3: {"dog"}, 4: {"bench"}}
    content = json.loads((out / "method_card.json").read_text())
    assert content["figures"]["chair_s"]["value"] == 50
    assert content["method"] == "not recorded"


@pytest.mark.parametrize(("form", "what"), [("captions", "no captions"), ("pope", "no yes/no")])
def test_a_run_without_what_is_asked_for_is_an_error_that_says_what_to_do(
    form: str, what: str, run: Run, tmp_path: Path
) -> None:
    other = Run("r", run.path, run.captions) if form == "pope" else Run("r", run.path, answers=run.answers)
    with pytest.raises(UserError, match=rf"{what}.*use --to"):
        export(other, form, tmp_path)


def test_every_form_is_offered_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["export", "x", "--to", "nothing", "--output", "y"])
    said = capsys.readouterr().err
    assert all(form in said for form in FORMS)
