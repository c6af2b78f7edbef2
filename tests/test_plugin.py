"""lmms-eval finds the model and the tasks: import-light, once, last in order, and without ever raising."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from processes import LONGEST

from lmms_fixattn import plugin

TASKS = {"chair_coco", "chair_demo", "chair_demo_familiar", "pope_coco", "pope_coco_chat", "pope_demo"}


def python(code: str, *options: str, **environment: str) -> str:
    """Run code in a fresh interpreter; return what it printed."""
    command = [sys.executable, *options, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
    return done.stdout


@pytest.mark.system
def test_plugin_loads_nothing_heavy() -> None:
    code = (
        "import sys, lmms_eval.models as models;"
        "heavy = {'torch', 'transformers', 'datasets', 'lmms_fixattn.harness.model'} & set(sys.modules);"
        "print(sorted(heavy), {'llava_fixattn', 'vlm_fixattn'} <= set(models.list_available_models()))"
    )
    assert python(code).split("\n")[-2] == "[] True"


@pytest.mark.system
def test_package_imports_without_lmms_eval_and_torch() -> None:
    assert python("import sys, lmms_fixattn; print({'torch', 'lmms_eval'} & set(sys.modules))").strip() == "set()"


def fake_tasks() -> Any:
    """A module as lmms_eval.tasks, whose manager says where it searches."""

    class TaskManager:
        def initialize_tasks(self, include_path: Any = None, include_defaults: bool = True) -> Any:
            return include_path, include_defaults

    module = ModuleType("fake_tasks")
    module.TaskManager = TaskManager  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize(
    ("given", "searched"),
    [
        ({}, []),
        ({"include_path": "mine"}, ["mine"]),
        ({"include_path": ["mine", "yours"]}, ["mine", "yours"]),
        ({"include_path": ()}, []),
    ],
)
def test_task_folder_is_searched_last(given: dict[str, Any], searched: list[str]) -> None:
    tasks = fake_tasks()
    plugin._search_task_folder(tasks)
    assert tasks.TaskManager().initialize_tasks(**given) == ([*searched, plugin.task_folder()], True)


def test_without_defaults_only_the_users_folders_are_searched() -> None:
    tasks = fake_tasks()
    plugin._search_task_folder(tasks)
    assert tasks.TaskManager().initialize_tasks("mine", include_defaults=False) == ("mine", False)


def test_searching_twice_adds_the_folder_once() -> None:
    tasks = fake_tasks()
    plugin._search_task_folder(tasks)
    plugin._search_task_folder(tasks)
    assert tasks.TaskManager().initialize_tasks() == ([plugin.task_folder()], True)


def test_unknown_task_manager_is_left_alone_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        plugin._search_task_folder(ModuleType("unlike"))
    assert "AttributeError" in caplog.text
    assert "--include_path" in caplog.text


def test_missing_task_folder_is_a_warning_and_leaves_the_other_tasks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = fake_tasks()
    plugin._search_task_folder(tasks)
    monkeypatch.setattr(plugin.importlib.util, "find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING):
        assert tasks.TaskManager().initialize_tasks("mine") == ("mine", True)
    assert "the package folder lmms_fixattn.tasks is not installed" in caplog.text


def test_model_that_cannot_be_registered_does_not_take_others_with_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "lmms_eval.models.registry_v2", ModuleType("empty"))
    with caplog.at_level(logging.WARNING):
        assert plugin.register() == []
    assert "the model llava_fixattn and vlm_fixattn was not registered" in caplog.text


def test_both_names_are_the_same_model() -> None:
    manifests = plugin.register()
    assert [manifest.model_id for manifest in manifests] == ["llava_fixattn", "vlm_fixattn"]
    assert len({(manifest.chat_class_path, manifest.simple_class_path) for manifest in manifests}) == 1


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module that is not imported yet."""
    name = "imported_by_test_plugin"
    (tmp_path / f"{name}.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    finders = list(sys.meta_path)
    yield name
    sys.modules.pop(name, None)
    assert sys.meta_path == finders, "the hook has left itself behind"


def test_action_runs_once_and_after_the_module_has_run(module: str) -> None:
    seen: list[int] = []

    def note(imported: ModuleType) -> None:
        seen.append(imported.value)

    plugin.after_import(module, note)
    plugin.after_import(module, note)
    assert seen == []
    assert __import__(module).value == 1
    assert seen == [1]


def test_action_runs_at_once_on_a_module_that_is_there(module: str) -> None:
    seen: list[ModuleType] = []
    imported = __import__(module)
    action: Callable[[ModuleType], None] = seen.append
    plugin.after_import(module, action)
    assert seen == [imported]


@pytest.mark.system
def test_lmms_eval_finds_our_tasks_beside_its_own() -> None:
    from lmms_eval.tasks import TaskManager

    plugin.add_tasks()
    manager = TaskManager()
    assert set(manager.match_tasks(["chair_coco", "pope"])) == {"chair_coco", "pope"}
    assert set(manager.all_tasks) >= TASKS
    assert not Path(manager.task_index["pope"]["yaml_path"]).is_relative_to(plugin.task_folder())
    assert not TASKS & set(TaskManager(include_defaults=False).all_tasks)


@pytest.mark.system
def test_two_ranks_share_a_run_of_the_command_line_and_give_what_one_gives(tmp_path: Path) -> None:
    figures, answers = [], []
    for ranks in (1, 2):
        output = tmp_path / str(ranks)
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}", "-m",
            "lmms_eval", "--model", "llava_fixattn", "--model_args", "pretrained=demo,method=fixattn,alpha=0.6",
            "--tasks", "chair_demo_familiar", "--limit", "5", "--batch_size", "2", "--log_samples", "--output_path",
            str(output),
        ]  # fmt: skip
        environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=LONGEST, check=False)
        written = list(output.rglob("*_results.json"))
        assert len(written) == 1, done.stdout[-3000:] + done.stderr[-3000:]
        result = json.loads(written[0].read_text())
        assert result["lmms_fixattn"]["method"]["alpha"] == 0.6
        assert (result["lmms_fixattn"]["processes"], result["lmms_fixattn"]["batch_size"]) == (ranks, 2)
        (samples,) = output.rglob("*_samples_chair_demo_familiar.jsonl")
        rows = [json.loads(line) for line in samples.read_text().splitlines()]
        assert all(row["token_counts"][0]["output_tokens"] > 0 for row in rows)
        figures.append(
            {key: value for key, value in result["results"]["chair_demo_familiar"].items() if key != "alias"}
        )
        answers.append(sorted((row["doc_id"], row["filtered_resps"]) for row in rows))
    assert figures[0]["n,none"] == 5
    assert [doc_id for doc_id, _ in answers[0]] == [0, 1, 2, 3, 4]
    assert figures[0] == pytest.approx(figures[1])  # ranks add up in another order
    assert answers[0] == answers[1]
