"""What the tasks on photographs need besides the package: is it there, where, and how much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lmms_fixattn.data import DataError, hub, pope_questions
from lmms_fixattn.harness.tasks import chair, pope_documents
from lmms_fixattn.harness.tasks.documents import Documents


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


def data(task: str) -> Need:
    """Load a task's documents under the settings of the environment, as a run does, and say what they are.

    What is lacking is fetched, but not under HF_HUB_OFFLINE.
    """
    try:
        return _SOURCES[task](task)
    except (DataError, ValueError, OSError) as error:
        return Need(task, lacking=_one_line(error))


def checkpoint(name: str, revision: str) -> Need:
    """Say what is there of a checkpoint on the hub; what is lacking is fetched, but not under HF_HUB_OFFLINE."""
    try:
        folder = hub.checkpoint(name, revision)
    except DataError as error:
        return Need(name, lacking=_one_line(error))
    files = list(folder.iterdir())
    return Need(name, f"checkpoint, {len(files)} files", str(folder), sum(path.stat().st_size for path in files))


def _captions(task: str) -> Need:
    return _loaded(task, [chair.coco_documents])


def _questions(task: str) -> Need:
    form = "_chat" if task.endswith("chat") else ""
    return _loaded(task, [getattr(pope_documents, f"coco_{kind}{form}") for kind in pope_questions.KINDS])


def _lmms_evals_own(task: str) -> Need:
    dataset = hub.load(hub.POPE, hub.POPE_CONFIGURATION, "test", hub.POPE_COLUMNS)
    return _held(
        task, f"{len(dataset)} documents: hub {hub.POPE}", {Path(file["filename"]) for file in dataset.cache_files}
    )


_SOURCES: dict[str, Callable[[str], Need]] = {
    "chair_coco": _captions,
    "pope": _lmms_evals_own,
    "pope_coco": _questions,
    "pope_coco_chat": _questions,
}
TASKS = tuple(_SOURCES)


def _loaded(task: str, parts: list[Documents]) -> Need:
    count, files = 0, set()
    for documents in parts:
        dataset = documents.load()
        count += len(dataset)
        if dataset.features["image"].dtype == "string":
            files |= {Path(path) for path in dataset["image"]}
        else:
            files |= {Path(file["filename"]) for file in dataset.cache_files}
    return _held(task, f"{count} documents: images {parts[0].image_list}, {parts[0].source}", files)


def _held(task: str, what: str, files: set[Path]) -> Need:
    places = sorted({str(path.parent) for path in files})
    return Need(task, what, places[0] if places else "", sum(path.stat().st_size for path in files))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
