"""lmms-eval's entry point: the model, under two names, and this package's task folder.

lmms-eval imports this module at every start, for every model, so it imports nothing heavy and never raises: one failing
plugin would take the other plugins' models with it. What fails is said on stderr, with the way around it.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODELS = ("llava_fixattn", "vlm_fixattn")
"""The names of the model: the first is as old as the package, the second says that it is of any family."""
_TASKS_MODULE = "lmms_eval.tasks"
_log = logging.getLogger(__name__)


def task_folder() -> str:
    """Return the directory of this package's task YAML files; raise FileNotFoundError when it is not installed."""
    spec = importlib.util.find_spec("lmms_fixattn.tasks")
    places = list(spec.submodule_search_locations or []) if spec else []
    if not places:
        raise FileNotFoundError("the package folder lmms_fixattn.tasks is not installed")
    return str(places[0])


def register() -> list[Any]:
    """Return the model manifests of this package (entry point `lmms_eval.models`) and add its tasks."""
    add_tasks()
    try:
        from lmms_eval.models.registry_v2 import ModelManifest

        chat = "lmms_fixattn.harness.model.FixattnModel"
        return [ModelManifest(name, chat_class_path=chat, simple_class_path=f"{chat}Simple") for name in MODELS]
    except Exception as error:
        names = " and ".join(MODELS)
        _log.warning("lmms-fixattn: the model %s was not registered (%s: %s)", names, type(error).__name__, error)
        return []


def add_tasks() -> None:
    """Make lmms-eval's TaskManager find this package's tasks, now or as soon as `lmms_eval.tasks` is imported.

    lmms-eval has no supported way for an installed package to add tasks, so TaskManager.initialize_tasks is wrapped,
    once. The folder comes last in the search: for equal names lmms-eval's own tasks and the user's --include_path win.
    """
    try:
        after_import(_TASKS_MODULE, _search_task_folder)
    except Exception as error:
        _warn_without_tasks(error)


def after_import(name: str, action: Callable[[ModuleType], None]) -> None:
    """Call `action(module)` once module `name` is imported: at once when it is, else right after its first import."""
    module = sys.modules.get(name)
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        action(module)
    elif not any(isinstance(finder, _AfterImport) and finder.waits_for(name, action) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport(name, action))


class _AfterImport(MetaPathFinder):
    """One-shot finder: lets the other finders find module `name` and runs `action` when it has been executed."""

    def __init__(self, name: str, action: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._action = action

    def waits_for(self, name: str, action: Callable[[ModuleType], None]) -> bool:
        return (name, action) == (self._name, self._action)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_then_act(module: ModuleType) -> None:
                execute(module)
                self._action(module)

            spec.loader.exec_module = execute_then_act  # type: ignore[method-assign]
        return spec


def _search_task_folder(tasks: ModuleType) -> None:
    try:
        initialize = tasks.TaskManager.initialize_tasks
        if getattr(initialize, "searches_lmms_fixattn", False):
            return

        @functools.wraps(initialize)
        def initialize_tasks(
            self: Any, include_path: str | list[str] | None = None, include_defaults: bool = True, **others: Any
        ) -> Any:
            if include_defaults:
                try:
                    users = [include_path] if isinstance(include_path, str) else include_path or []
                    include_path = [*users, task_folder()]
                except Exception as error:
                    _warn_without_tasks(error)
            return initialize(self, include_path=include_path, include_defaults=include_defaults, **others)

        initialize_tasks.searches_lmms_fixattn = True  # type: ignore[attr-defined]
        tasks.TaskManager.initialize_tasks = initialize_tasks
    except Exception as error:
        _warn_without_tasks(error)


def _warn_without_tasks(error: Exception) -> None:
    _log.warning(
        "lmms-fixattn: its tasks were not added to lmms-eval (%s: %s); name their folder with --include_path",
        type(error).__name__,
        error,
    )
