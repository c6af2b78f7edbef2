from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmms_fixattn.errors import UserError
from lmms_fixattn.report.agreement import agree, split_names
from lmms_fixattn.report.runs import AnswerEntry, CaptionEntry, Run


def run(name: str, ids: tuple[int, ...] = (), task: str = "", **record: Any) -> Run:
    captions = {task: tuple(CaptionEntry(image_id, f"{name} {image_id}") for image_id in ids)} if ids else {}
    return Run(name, Path(name), captions, record=recorded(task, **record) if task else {})


def recorded(task: str, **changes: Any) -> dict[str, Any]:
    model = {"conversation": "default", "dtype": "float32", "versions": {}}
    stated = {
        "version": 1.0,
        "prompt": "Describe.",
        "image_list_sha256": "abc",
        "data_sha256": "c",
        "max_new_tokens": 512,
    }
    return {
        "lmms_fixattn": model | {key: changes[key] for key in model if key in changes},
        "tasks": {task: stated | {key: changes[key] for key in stated if key in changes}},
    }


def answering(name: str, entries: list[tuple[int | None, str, str]], split: str = "") -> Run:
    made = tuple(AnswerEntry(image_id, question, label, "Yes") for image_id, question, label in entries)
    return Run(name, Path(name), answers={split: made})


def test_captions_come_in_one_order_whatever_that_of_the_files() -> None:
    found = agree([run("a", (3, 1, 2)), run("b", (2, 3, 1))])
    assert list(found.captions) == ["a", "b"]
    for name, entries in found.captions.items():
        assert [(key, entry.text) for key, entry in entries.items()] == [(("", n), f"{name} {n}") for n in (1, 2, 3)]
    assert found.notes == ["plain files, whose prompt and settings are not known and were not compared: all runs"]


def test_different_images_are_refused_or_reduced_to_those_shared_and_said() -> None:
    runs = [run("a", (1, 2, 3)), run("b", (2, 3, 4, 5)), run("c", (3, 2))]
    with pytest.raises(UserError, match=r"a and b caption different images: 3 and 4, of which 2 .*--allow-differences"):
        agree(runs)
    found = agree(runs, allow_differences=True)
    assert {tuple(entries) for entries in found.captions.values()} == {(("", 2), ("", 3))}
    assert "only the 2 images that all caption are compared (of a 3, b 4, c 2)" in found.notes
    with pytest.raises(UserError, match="a, b caption no images in common"):
        agree([run("a", (1,)), run("b", (2,))], allow_differences=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2.0}, "task version of chair_coco: 1.0 and 2.0"),
        ({"prompt": "What?"}, 'prompt of chair_coco: "Describe." and "What?"'),
        ({"conversation": "pai"}, 'conversation template of chair_coco: "default" and "pai"'),
        ({"image_list_sha256": "def"}, 'image list of chair_coco: "abc" and "def"'),
        ({"max_new_tokens": 64}, "token cap of chair_coco: 512 and 64"),
    ],
)
def test_runs_that_were_asked_differently_are_refused_or_noted(change: dict[str, Any], said: str) -> None:
    runs = [run("a", (1, 2), "chair_coco"), run("b", (1, 2), "chair_coco", **change)]
    with pytest.raises(UserError) as error:
        agree(runs)
    remedy = "LMMS_FIXATTN_IMAGES chooses the list; " if "image_list_sha256" in change else ""
    assert str(error.value) == f"a and b differ in the {said}; {remedy}--allow-differences compares them all the same"
    found = agree(runs, allow_differences=True)
    assert found.notes == [f"a and b differ in the {said}"]
    assert len(found.captions["a"]) == 2


def test_what_may_differ_is_noted() -> None:
    runs = [
        run("a", (1,), "chair_coco", versions={"torch": "2.14", "numpy": "2"}),
        run("b", (1,), "chair_coco", dtype="float16", versions={"torch": "2.15", "numpy": "2"}, data_sha256="d"),
    ]
    assert agree(runs).notes == [
        'a and b differ in the data of chair_coco: "c" and "d"',
        'dtype differs: a "float32", b "float16"',
        'versions.torch differs: a "2.14", b "2.15"',
    ]


def test_a_plain_file_is_matched_by_image_with_the_tasks_of_the_others() -> None:
    both = Run(
        "both",
        Path(),
        {"familiar": (CaptionEntry(1, "x"),), "unfamiliar": (CaptionEntry(2, "y"),)},
        record=recorded("familiar"),
    )
    found = agree([both, run("plain", (2, 1))])
    assert list(found.captions["plain"]) == list(found.captions["both"]) == [("familiar", 1), ("unfamiliar", 2)]
    assert found.notes == ["plain files, whose prompt and settings are not known and were not compared: plain"]
    twice = Run("t", Path(), {"a": (CaptionEntry(1, "x"),), "b": (CaptionEntry(1, "y"),)}, record=recorded("a"))
    with pytest.raises(UserError, match="plain: image 1 is captioned in a and b"):
        agree([twice, run("plain", (1,))])


def test_two_captions_of_an_image_are_refused() -> None:
    with pytest.raises(UserError, match="a: two captions for image 1"):
        agree([run("a", (1, 1)), run("b", (1,))])


def test_questions_are_matched_by_image_and_images_are_the_clusters() -> None:
    first = answering("a", [(7, "A dog?", "yes"), (7, "A cat?", "no"), (5, "A dog?", "no")], "random")
    second = answering("b", [(5, "A dog?", "no"), (7, "A cat?", "no"), (7, "A dog?", "yes")], "pope_coco_random")
    found = agree([first, second])
    matched = found.answers["random"]
    asked = [(entry.image_id, entry.question) for entry in matched["a"]]
    assert asked == [(entry.image_id, entry.question) for entry in matched["b"]]
    assert len(asked) == 3
    clusters = dict(zip(asked, found.clusters["random"], strict=True))
    assert clusters[7, "A dog?"] == clusters[7, "A cat?"] != clusters[5, "A dog?"]
    assert set(found.clusters["random"]) == {0, 1}


def test_questions_without_images_are_matched_line_by_line_and_drawn_alone() -> None:
    rows = [(None, "A dog?", "yes"), (None, "A dog?", "no")]
    found = agree([answering("a", rows), answering("b", [(3, "A dog?", "yes"), (3, "A dog?", "no")])])
    assert found.clusters[""] == (0, 0)  # one of the two files knows the images
    found = agree([answering("a", rows), answering("b", rows)])
    assert found.clusters[""] == (0, 1)
    assert any("carry no image ids, so single questions are resampled" in note for note in found.notes)
    for others in (rows[:1], [rows[0], (None, "A cat?", "no")]):
        for allowed in (False, True):
            with pytest.raises(UserError, match="of which 1 are shared; without image ids, only the same questions in"):
                agree([answering("a", rows), answering("b", others)], allow_differences=allowed)


def test_questions_that_differ_are_refused_or_reduced_to_those_shared() -> None:
    runs = [
        answering("a", [(1, "A dog?", "yes"), (2, "A dog?", "no")], "popular"),
        answering("b", [(1, "A dog?", "yes")], "popular"),
    ]
    with pytest.raises(UserError, match="a and b answer different questions of POPE popular: 2 and 1, of which 1 are"):
        agree(runs)
    found = agree(runs, allow_differences=True)
    assert len(found.answers["popular"]["a"]) == len(found.clusters["popular"]) == 1


def test_two_labels_or_two_answers_of_a_question_are_refused() -> None:
    with pytest.raises(UserError, match="about image 1 has two labels: a 'yes', b 'no'"):
        agree([answering("a", [(1, "A dog?", "yes")]), answering("b", [(1, "A dog?", "no")])])
    with pytest.raises(UserError, match="a: two answers to 'A dog\\?' about image 1"):
        agree([answering("a", [(1, "A dog?", "yes")] * 2), answering("b", [(1, "A dog?", "yes")])])


def test_a_split_is_called_by_its_data_only_where_two_data_sets_meet() -> None:
    tasks = ["pope_coco_random", "pope_coco_chat_random", "random", ""]
    assert split_names(tasks) == dict(zip(tasks, ["random", "chat_random", "random", ""], strict=True))
    assert split_names(["pope_demo_random"]) == {"pope_demo_random": "random"}
    both = split_names(["pope_coco_random", "pope_demo_random"])
    assert both == {"pope_coco_random": "coco_random", "pope_demo_random": "demo_random"}
