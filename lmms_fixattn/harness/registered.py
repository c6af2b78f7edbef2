"""Whether lmms-eval, as it is installed here, finds the model and the tasks."""

from __future__ import annotations

from importlib.metadata import entry_points

from lmms_fixattn.plugin import task_folder

TASKS = ("chair_coco", "pope_coco", "pope_coco_chat", "chair_demo", "pope_demo", "pope_demo_chat")


def registered() -> str:
    """Say what lmms-eval finds of this package.

    Raises:
        RuntimeError: it does not find the model, or a task.
    """
    if not any("lmms_fixattn" in point.value for point in entry_points(group="lmms_eval.models")):
        raise RuntimeError("no entry point lmms_eval.models of this package is installed")
    import lmms_eval.models
    import lmms_eval.tasks

    lmms_eval.models.get_model("llava_fixattn")
    if not getattr(lmms_eval.tasks.TaskManager.initialize_tasks, "searches_lmms_fixattn", False):
        raise RuntimeError("lmms-eval's TaskManager does not search this package's tasks")
    found = lmms_eval.tasks.TaskManager(include_path=task_folder(), include_defaults=False).all_tasks
    if missing := [task for task in TASKS if task not in found]:
        raise RuntimeError(f"lmms-eval does not find the task {missing[0]}")
    return f"model llava_fixattn and {len(found)} tasks"
