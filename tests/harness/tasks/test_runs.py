"""Whole runs of the tasks through lmms-eval, with a model whose every answer is known."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from coco_folders import write_coco
from scripted_lm import ScriptedLM, run

import lmms_fixattn
from lmms_fixattn.data import DataError, image_lists
from lmms_fixattn.data.pope_questions import KINDS
from lmms_fixattn.harness.tasks import chair

pytestmark = pytest.mark.system

CAPTIONS = {
    3: "A cat sleeps beside a dog. A bicycle leans there.",  # cat true, dog true (a reference says it), bicycle not
    5: "A pizza on a plate. A pizza on a plate. A pizza on a plate. A pizza on a",
    8: "Nothing to see here!",
}


@pytest.fixture
def coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three images, one of them of the training split, and a list of their ids."""
    write_coco(tmp_path, {3: ["cat", "cat", "tv"], 5: ["pizza"]}, {3: ["A dog lies here."] * 5, 5: ["Some food."]})
    write_coco(tmp_path, {8: ["bus"]}, {8: ["A person waits."]}, split="train2014")
    (tmp_path / "three.txt").write_text("8\n3\n5\n")
    monkeypatch.setenv("LMMS_FIXATTN_COCO", str(tmp_path))
    monkeypatch.setenv("LMMS_FIXATTN_IMAGES", str(tmp_path / "three.txt"))
    return tmp_path


def captioner() -> ScriptedLM:
    return ScriptedLM(lambda task, doc, messages: CAPTIONS[doc["image_id"]])


def figures_of(results: dict[str, Any]) -> dict[str, Any]:
    return {key.split(",")[0]: value for key, value in results.items() if key.endswith(",none") and "_std" not in key}


def test_chair_figures_are_those_of_a_hand_count(coco: Path) -> None:
    result = run(["chair_coco"], captioner())
    # mentions: cat dog bicycle | pizza x4 | none; truth: cat tv dog | pizza | bus person
    assert figures_of(result["results"]["chair_coco"]) == pytest.approx(
        {
            "chair_s": 100 / 3,
            "chair_i": 100 / 7,
            "recall": 100 * 3 / 6,
            "precision": 100 * 3 / 4,
            "f1": 60,
            "chair_i_unique": 25,
            "words": (12 + 22 + 5) / 3,
            "rep_4": 100 * (1 - 5 / 16) / 3,  # 19 words in a cycle of five
            "looped": 100 / 3,
            "unterminated": 100 / 3,
            "n": 3,
        }
    )
    assert result["results"]["chair_coco"]["chair_s_stderr,none"] == pytest.approx(100 / 3)


def test_the_model_is_asked_the_papers_question_on_the_right_image(coco: Path) -> None:
    seen = []

    def script(task: str, doc: dict[str, Any], messages: list[dict[str, Any]]) -> str:
        (message,) = messages
        image, text = message["content"]
        seen.append((doc["image_id"], image["type"], image["url"].getpixel((0, 0)), message["role"], text["text"]))
        return "A cat."

    result = run(["chair_coco"], ScriptedLM(script))
    prompt = "Please help me describe the image in detail."
    assert seen == [(i, "image", (0, i, 99), "user", prompt) for i in (3, 5, 8)]
    config = result["configs"]["chair_coco"]["generation_kwargs"]
    assert config == {"max_new_tokens": 512, "do_sample": False, "temperature": 0.0, "num_beams": 1, "until": []}


def test_a_result_names_its_data(coco: Path) -> None:
    result = run(["chair_coco"], captioner())
    record = json.loads(json.dumps(result["configs"]["chair_coco"]["process_docs"]))
    assert record.pop("data_sha256")
    assert record == {
        "image_list": "three",
        "image_list_sha256": image_lists.load(coco / "three.txt").sha256,
        "source": f"folder {coco}",
        "lmms_fixattn": lmms_fixattn.__version__,
        "demo": "",
        "analyser": "lexicon",
        "truth": "annotations, lexicon",
    }
    assert result["versions"]["chair_coco"] == 1.0


def test_the_sample_log_holds_what_rescoring_needs(coco: Path) -> None:
    samples = json.loads(json.dumps(run(["chair_coco"], captioner())["samples"]["chair_coco"]))
    row = samples[0]["n"]
    assert row["image_id"] == 3
    assert row["caption"] == CAPTIONS[3]
    assert row["objects"] == ["cat", "dog", "bicycle"]
    assert row["hallucinated"] == ["bicycle"]
    assert row["truth"] == ["cat", "dog", "tv"]
    assert samples[0]["target"] == ["cat", "dog", "tv"]
    assert samples[0]["chair_s"] == 100
    assert [sample["n"]["terminated"] for sample in samples] == [True, False, True]
    assert [sample["n"]["tokens"] for sample in samples] == [None, None, None]


def test_an_answer_that_knows_how_it_ended_is_believed() -> None:
    class Cut(str):
        terminated = False
        tokens = 17

    doc = {"image_id": 1, "truth": ["cat"], "analyser": "lexicon"}
    results = chair.process_results(doc, [Cut("A cat.")])
    assert results["unterminated"] == 100
    assert type(results["n"]["caption"]) is str
    assert results["n"]["tokens"] == 17
    assert chair.process_results(doc, ["A cat."])["unterminated"] == 0


def test_limit_takes_the_first_ids_of_the_list(coco: Path) -> None:
    result = run(["chair_coco"], captioner(), limit=2)
    assert [sample["n"]["image_id"] for sample in result["samples"]["chair_coco"]] == [3, 5]
    assert figures_of(result["results"]["chair_coco"])["n"] == 2


def write_questions(folder: Path, image_ids: list[int]) -> None:
    for kind in KINDS:
        with (folder / f"coco_pope_{kind}.json").open("w") as file:
            for number in range(6 * len(image_ids)):
                row = {
                    "question_id": number,
                    "image": f"COCO_val2014_{image_ids[number // 6]:012d}.jpg",
                    "text": f"Is there a {kind} thing {number} in the image?",
                    "label": "no" if number % 2 else "yes",
                }
                file.write(json.dumps(row) + "\n")


def test_pope_figures_are_those_of_a_hand_count(coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_questions(coco, [5, 3])
    monkeypatch.setenv("LMMS_FIXATTN_POPE", str(coco))

    def script(task: str, doc: dict[str, Any], messages: list[dict[str, Any]]) -> str:
        assert messages[0]["content"][1]["text"] == doc["question"]
        if doc["question_id"] == 0:
            return "Perhaps."  # neither yes nor no: read as a yes
        if task.endswith("popular") and doc["question_id"] < 4:
            return "No, there is not."
        return "Yes, there is."

    result = run(["pope_coco"], ScriptedLM(script))
    counts = {kind: figures_of(result["results"][f"pope_coco_{kind}"]) for kind in KINDS}
    always_yes = {"tp": 6, "fp": 6, "tn": 0, "fn": 0, "unparsed": 1, "n": 12}
    always_yes |= {"accuracy": 50, "precision": 50, "recall": 100, "f1": 200 / 3, "yes_ratio": 100}
    assert counts["random"] == counts["adversarial"] == pytest.approx(always_yes)
    assert counts["popular"] == pytest.approx(
        {"tp": 5, "fp": 4, "tn": 2, "fn": 1, "unparsed": 1, "n": 12}
        | {"accuracy": 700 / 12, "precision": 500 / 9, "recall": 500 / 6, "f1": 200 / 3, "yes_ratio": 75}
    )
    group = figures_of(result["groups"]["pope_coco"])
    assert group == pytest.approx(
        {
            key: sum(counts[kind][key] for kind in KINDS) / 3
            for key in ("accuracy", "precision", "recall", "f1", "yes_ratio")
        }
    )
    record = result["configs"]["pope_coco_popular"]["process_docs"]
    assert record["questions"] == f"files {coco / 'coco_pope_popular.json'}"
    assert record["image_list_sha256"] == image_lists.ImageList("", (3, 5)).sha256
    assert record["parser"] == "official"


def test_the_parser_is_chosen_and_recorded(coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_questions(coco, [5])
    monkeypatch.setenv("LMMS_FIXATTN_POPE", str(coco))
    accuracies = {}
    for parser in ("official", "pai", "exact"):
        monkeypatch.setenv("LMMS_FIXATTN_POPE_PARSER", parser)
        result = run(["pope_coco_random"], ScriptedLM(lambda task, doc, messages: "Yes. There isn't more."))
        assert result["configs"]["pope_coco_random"]["process_docs"]["parser"] == parser
        accuracies[parser] = figures_of(result["results"]["pope_coco_random"])["accuracy"]
        assert {sample["n"][0]["predicted"] for sample in result["samples"]["pope_coco_random"]} == {
            {"official": "yes", "pai": "no", "exact": None}[parser]
        }
    assert accuracies == {"official": 50, "pai": 50, "exact": 0}


def test_a_chat_feeds_the_answers_back_and_reports_each_turn(coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_questions(coco, [5, 3])
    monkeypatch.setenv("LMMS_FIXATTN_POPE", str(coco))

    def script(task: str, doc: dict[str, Any], messages: list[dict[str, Any]]) -> str:
        turn = len(messages) // 2
        assert [message["role"] for message in messages] == ["user", "assistant"] * turn + ["user"]
        image, *_ = messages[0]["content"]
        assert image["url"].getpixel((0, 0)) == (0, doc["image_id"], 99)
        texts = [message["content"][-1]["text"] for message in messages]
        assert texts[::2] == doc["questions"][: turn + 1]
        assert texts[1::2] == [f"Yes, {doc['image_id']}, turn {done}." for done in range(turn)]
        assert all(len(message["content"]) == 1 for message in messages[1:])
        return f"Yes, {doc['image_id']}, turn {turn}."

    result = run(["pope_coco_chat"], ScriptedLM(script))
    for kind in KINDS:
        figures = figures_of(result["results"][f"pope_coco_chat_{kind}"])
        assert [figures[f"accuracy_turn_{turn}"] for turn in range(1, 7)] == [100, 0] * 3
        expected = {"tp": 6, "fp": 6, "accuracy": 50, "recall": 100, "n": 12, "unparsed": 0}
        assert {key: figures[key] for key in expected} == expected
    assert figures_of(result["groups"]["pope_coco_chat"])["accuracy_turn_2"] == 0
    rows = result["samples"]["pope_coco_chat_random"][0]["n"]
    assert [(row["turn"], row["image_id"], row["question_id"]) for row in rows] == [(t, 3, t + 5) for t in range(1, 7)]


def test_the_demo_needs_no_network_and_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    def truthful(task: str, doc: dict[str, Any], messages: list[dict[str, Any]]) -> str:
        if task.startswith("chair_demo_"):
            return f"There is {' and '.join(f'a {name}' for name in doc['truth'])}."
        return doc["label"].capitalize()

    result = run(["chair_demo", "pope_demo"], ScriptedLM(truthful))
    for half in ("familiar", "unfamiliar"):
        captions = figures_of(result["results"][f"chair_demo_{half}"])
        assert (captions["chair_s"], captions["recall"], captions["n"]) == (0, 100, 120)
        assert result["configs"][f"chair_demo_{half}"]["process_docs"]["image_list"] == f"demo, {half}"
    assert figures_of(result["groups"]["chair_demo"])["recall"] == 100
    assert figures_of(result["groups"]["pope_demo"]) == {
        "accuracy": 100,
        "precision": 100,
        "recall": 100,
        "f1": 100,
        "yes_ratio": 50,
    }
    assert figures_of(result["results"]["pope_demo_popular"])["n"] == 240 * 6
    assert result["configs"]["pope_demo_popular"]["process_docs"]["source"] == "crowded demo scenes"


def test_the_response_cache_never_answers_for_other_data(coco: Path, tmp_path: Path) -> None:
    def cached_run() -> tuple[int, list[str]]:
        lm = captioner()
        result = run(["chair_coco"], lm, use_cache=str(tmp_path / "cache"))
        return lm.asked, [sample["filtered_resps"][0] for sample in result["samples"]["chair_coco"]]

    captions = [CAPTIONS[i] for i in (3, 5, 8)]
    assert cached_run() == (3, captions)
    assert cached_run() == (0, captions)
    write_coco(coco, {8: ["bus"]}, {8: ["A person waits."]}, split="train2014", colour=200)  # the same id, other pixels
    assert cached_run() == (3, captions)
    (coco / "three.txt").write_text("8\n3\n")
    assert cached_run() == (2, [CAPTIONS[3], CAPTIONS[8]])


def test_a_data_error_arrives_at_once_and_as_it_is(coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nor is it asked for again: between two attempts lmms-eval sleeps.
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it is asked for again"))
    (coco / "val2014" / "COCO_val2014_000000000005.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 image files are missing .*000000000005.png"):
        run(["chair_coco"], captioner())
    monkeypatch.setenv("LMMS_FIXATTN_CHAIR_ANALYSER", "lexikon")
    with pytest.raises(DataError, match="did you mean 'lexicon'"):
        run(["chair_coco"], captioner())
