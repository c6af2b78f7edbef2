"""The YAML files of tasks/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scripted_lm import TASKS, TaskManager

from lmms_fixattn.data.pope_questions import KINDS

MANAGER = TaskManager(include_path=str(TASKS), include_defaults=False)
CHAIR = [
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
]
POPE = ["accuracy", "precision", "recall", "f1", "yes_ratio", "tp", "fp", "tn", "fn", "unparsed"]
HALVES = ["familiar", "unfamiliar"]
CAPTIONS = ["chair_coco", *(f"chair_demo_{half}" for half in HALVES)]
SINGLE = [f"pope_{place}_{kind}" for place in ("coco", "demo") for kind in KINDS]
CHATS = [f"pope_{place}_chat_{kind}" for place in ("coco", "demo") for kind in KINDS]
POPE_GROUPS = ["pope_coco", "pope_coco_chat", "pope_demo", "pope_demo_chat"]
GROUPS = ["chair_demo", *POPE_GROUPS]


def config(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = MANAGER._get_config(name)
    return loaded


def test_these_are_the_tasks_and_groups() -> None:
    assert sorted(MANAGER.all_subtasks) == sorted(CAPTIONS + SINGLE + CHATS)
    assert sorted(MANAGER.all_groups) == GROUPS
    assert MANAGER.all_tags == []


@pytest.mark.parametrize("name", CAPTIONS + SINGLE + CHATS)
def test_a_task_reports_the_figures_of_the_command_line_with_direction_and_version(name: str) -> None:
    task = config(name)
    turns = [f"accuracy_turn_{turn}" for turn in range(1, 7)] if name in CHATS else []
    assert sorted(entry["metric"] for entry in task["metric_list"]) == sorted(
        [*(CHAIR if name in CAPTIONS else POPE), "n", *turns]
    )
    undirected = {entry["metric"] for entry in task["metric_list"] if entry["higher_is_better"] is None}
    assert undirected == ({"words", "n"} if name in CAPTIONS else {"yes_ratio", "n"})
    lower = {entry["metric"] for entry in task["metric_list"] if entry["higher_is_better"] is False}
    worse = ["chair_s", "chair_i", "chair_i_unique", "rep_4", "looped", "unterminated"]
    assert lower == set(worse if name in CAPTIONS else ["fp", "fn", "unparsed"])
    assert isinstance(task["metadata"]["version"], float)


@pytest.mark.parametrize("name", CAPTIONS + SINGLE + CHATS)
def test_answers_are_greedy_and_never_cut_at_a_blank_line(name: str) -> None:
    kwargs = config(name)["generation_kwargs"]
    assert kwargs["until"] == []
    assert (kwargs["do_sample"], kwargs["temperature"], kwargs["num_beams"]) == (False, 0, 1)
    cap = kwargs["max_new_tokens"]
    assert cap == (512 if "coco" in name else 128 if name in CAPTIONS else 16)


@pytest.mark.parametrize("name", CAPTIONS + SINGLE + CHATS)
def test_no_task_asks_for_the_hub_before_its_documents_do(name: str) -> None:
    task = config(name)
    assert task["dataset_path"] == "json"
    assert Path(task["dataset_kwargs"]["data_files"]["test"]).is_file()


def test_the_demos_captions_are_its_two_halves() -> None:
    task = config("chair_demo")
    assert task["task"] == [f"chair_demo_{half}" for half in HALVES]
    assert [entry["metric"] for entry in task["aggregate_metric_list"]] == CHAIR
    assert [config(name)["process_docs"].demo for name in task["task"]] == HALVES
    assert config("chair_coco")["process_docs"].demo == ""


@pytest.mark.parametrize("group", POPE_GROUPS)
def test_a_group_is_its_three_kinds(group: str) -> None:
    task = config(group)
    assert task["task"] == [f"{group}_{kind}" for kind in KINDS]
    assert [entry["metric"] for entry in task["aggregate_metric_list"]] == POPE[:5]
    assert isinstance(task["metadata"]["version"], float)


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in SINGLE + CHATS for kind in KINDS])
def test_a_tasks_documents_are_of_its_kind_and_form(name: str, kind: str) -> None:
    documents = config(name)["process_docs"]
    assert (documents.kind == kind) == name.endswith(kind)
    assert documents.chat == (name in CHATS)
    assert documents.demo == ("demo" in name)


@pytest.mark.parametrize("folder", ["chair_coco", "pope_coco", "demo"])
def test_each_folder_explains_its_tasks(folder: str) -> None:
    readme = (TASKS / folder / "README.md").read_text(encoding="utf-8")
    groups = [name for name in GROUPS if (TASKS / folder / f"{name}.yaml").is_file()]
    captions = [name for name in CAPTIONS if (TASKS / folder / f"{name}.yaml").is_file()]
    assert groups + captions
    assert all(f"`{name}`" in readme for name in groups + captions)
