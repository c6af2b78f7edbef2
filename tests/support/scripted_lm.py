"""A model for lmms-eval that answers what a test says, and a way to run tasks with it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

with warnings.catch_warnings():  # lmms-eval's own imports warn of their future
    warnings.simplefilter("ignore")
    import lmms_eval.evaluator
    from lmms_eval.api.model import lmms
    from lmms_eval.tasks import TaskManager

import lmms_fixattn.tasks

TASKS = Path(next(iter(lmms_fixattn.tasks.__path__)))


class ScriptedLM(lmms):  # type: ignore[misc]
    """Answer each request by `script(task, doc, messages)`, in conversations each turn."""

    is_simple = False

    def __init__(self, script: Callable[[str, dict[str, Any], list[dict[str, Any]]], str]) -> None:
        super().__init__()
        self.script = script
        self.asked = 0

    def __repr__(self) -> str:
        return "scripted"  # by which lmms-eval's response cache knows the model

    def generate_until(self, requests: list[Any]) -> list[str]:
        answers = []
        for request in requests:
            _, doc_to_messages, _, doc_id, task, split = request.args
            doc = self.task_dict[task][split][doc_id]
            answers.append(self._answer(task, doc, doc_to_messages(doc)))
        return answers

    def generate_until_multi_round(self, requests: list[Any]) -> list[list[str]]:
        conversations = []
        for request in requests:
            _, doc_to_messages, _, doc_id, task, split = request.args
            doc = self.task_dict[task][split][doc_id]
            answers = [self._answer(task, doc, doc_to_messages(doc))]
            info = None
            while True:
                messages, over, _, info = doc_to_messages(
                    doc, round_idx=len(answers), previous_output=list(answers), previous_round_info=info
                )
                if over:
                    break
                answers.append(self._answer(task, doc, messages))
            conversations.append(answers)
        return conversations

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        raise NotImplementedError

    def _answer(self, task: str, doc: dict[str, Any], messages: list[dict[str, Any]]) -> str:
        self.asked += 1
        return self.script(task, doc, messages)


def run(tasks: list[str], lm: ScriptedLM, **options: Any) -> dict[str, Any]:
    """Run this package's tasks as lmms-eval does, without its own tasks (whose YAML files take seconds to read)."""
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result: dict[str, Any] = lmms_eval.evaluator.simple_evaluate(
            model=lm, tasks=tasks, task_manager=manager, verbosity="ERROR", bootstrap_iters=10, **options
        )
    return result
