"""What the tasks on photographs need besides the package: is it there, where, and how much."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmms_fixattn.data import DataError, hub, pope_questions
from lmms_fixattn.harness.tasks import chair, pope_documents


@dataclass(frozen=True)
class Need:
    """One thing that is needed.

    Attributes:
        of: the task, or the checkpoint.
        what: what it needs; "" where that is not known.
        where: the folder that has it.
        size: of the files, in bytes.
        lacking: why it cannot be had now, in one line; "" where all is there.
    """

    of: str
    what: str = ""
    where: str = ""
    size: int = 0
    lacking: str = ""


TASKS = ("chair_coco", "pope", "pope_coco", "pope_coco_chat")


def data(task: str) -> Need:
    """Load a task's documents under the settings of the environment, as a run does, and say what they are.

    What is lacking is fetched, but not under HF_HUB_OFFLINE.
    """
    try:
        return _loaded(task)
    except (ValueError, ImportError, LookupError, OSError) as error:
        return Need(task, lacking=_one_line(error))


def checkpoint(name: str, revision: str) -> Need:
    """Say what is there of a checkpoint on the hub; what is lacking is fetched, but not under HF_HUB_OFFLINE."""
    try:
        folder = hub.checkpoint(name, revision)
    except DataError as error:
        return Need(name, lacking=_one_line(error))
    files = list(folder.iterdir())
    return Need(name, f"checkpoint, {len(files)} files", str(folder), sum(path.stat().st_size for path in files))


def _loaded(task: str) -> Need:
    count, files = 0, set()
    if task == "pope":  # lmms-eval's own
        loaded = [hub.load(hub.POPE, hub.POPE_CONFIGURATION, "test", hub.POPE_COLUMNS)]
        about = f"hub {hub.POPE}"
    else:
        form = "_chat" if task.endswith("chat") else ""
        kinds = [getattr(pope_documents, f"coco_{kind}{form}") for kind in pope_questions.KINDS]
        parts = [chair.coco_documents] if task == "chair_coco" else kinds
        loaded = [documents.load() for documents in parts]
        about = f"images {parts[0].image_list}, {parts[0].source}"
    for dataset in loaded:
        count += len(dataset)
        by_path = dataset.features["image"].dtype == "string"
        files |= set(map(Path, dataset["image"] if by_path else [file["filename"] for file in dataset.cache_files]))
    places = sorted({str(path.parent) for path in files})
    size = sum(path.stat().st_size for path in files)
    return Need(task, f"{count} documents: {about}", places[0] if places else "", size)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
