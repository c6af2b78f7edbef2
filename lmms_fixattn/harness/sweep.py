"""Run a sweep through lmms-eval: every cell an ordinary result folder, one load of the model, resumable at any moment.

OUTPUT/cells/NAME/        a finished cell: lmms-eval's result and samples, and
    cell.json             what its answers depend on
    answers.jsonl         the answers as they came, batch by batch
OUTPUT/unfinished/NAME/   the same of a cell that is being run; it moves to cells/ in one rename when all is written
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.loggers import EvaluationTracker
from lmms_eval.tasks import TaskManager, get_task_dict
from lmms_eval.utils import get_datetime_str
from loguru import logger
from tqdm import tqdm

from lmms_fixattn.errors import did_you_mean
from lmms_fixattn.harness.journal import Journal
from lmms_fixattn.harness.model import FixattnModel
from lmms_fixattn.harness.sweep_config import Cell, SweepPlan
from lmms_fixattn.harness.tasks.tree import digests, leaves
from lmms_fixattn.plugin import task_folder

_BASIS, _ANSWERS = "cell.json", "answers.jsonl"


class SweepError(RuntimeError):
    """A sweep cannot be run as asked. The message says why and what to do."""


def run_sweep(plan: SweepPlan, output: Path, screen: TextIO | None = None) -> dict[str, Path]:
    """Run what is not finished of a sweep; return {name: folder} of all its cells, in the plan's order.

    Tasks and methods are checked before the first cell runs. A process killed at any moment loses the batch that it
    was answering: a further call takes up everything else, and forms the same batches.

    Args:
        output: the sweep's folder; made where it is missing.
        screen: where the progress bar is drawn; standard error by default.

    Raises:
        SweepError: several processes, another sweep at work in the folder, an unknown task, or a cell in the folder
            whose answers depend on something that is different now; nothing is mixed.
        ValueError: a value that the model does not take, or a method that does not fit it.
        DocumentError: a document could not be answered; what was answered before it is kept.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise SweepError(
            "a sweep runs in one process, but WORLD_SIZE says several: start it without torchrun; for several GPUs "
            "split the cells over configurations with device: cuda:0, cuda:1, ..., each with its own --output"
        )
    output.mkdir(parents=True, exist_ok=True)
    with _alone(output):
        lm, manager, runs, asked = _prepare(plan, output)
        # The rate is that of this process: answers of earlier ones are where the bar begins.
        whole, there = asked * len(runs), sum(run.check(asked) for run in runs)
        with tqdm(total=whole, initial=there, unit=" answers", smoothing=0, dynamic_ncols=True, file=screen) as bar:
            for run in runs:
                if not run.folder.is_dir():
                    bar.set_description_str(run.cell.name)
                    run.perform(lm, plan, manager, bar)
        lm.clean()
    return {run.cell.name: run.folder for run in runs}


def rehearse(plan: SweepPlan, output: Path) -> list[tuple[Cell, int, int]]:
    """Check all that :func:`run_sweep` checks before its first cell, without loading weights or making the folder.

    Returns:
        Of each cell, how many of its answers are in the folder, and how many there will be.

    Raises:
        SweepError, ValueError: as run_sweep.
    """
    with _alone(output) if output.is_dir() else nullcontext():
        *_, runs, asked = _prepare(plan, output)
        return [(run.cell, run.check(asked), asked) for run in runs]


def _prepare(plan: SweepPlan, output: Path) -> tuple[FixattnModel, Any, list[_CellRun], int]:
    """Load tasks and data, and see that every method fits the model.

    Returns:
        The model, lmms-eval's index of tasks, the cells, and how many answers each of them has.
    """
    manager = _task_manager(plan.tasks)
    lm = FixattnModel(**plan.model, method="vanilla")
    nested = get_task_dict(list(plan.tasks), manager, "chat")
    tasks, versions = list(leaves(nested)), digests(nested)
    runs = []
    for cell in plan.cells:
        try:
            lm.use(cell.method)
        except ValueError as error:
            raise ValueError(f"cell {cell.name}: {error}") from error
        basis = {"model": lm.identity(), "limit": plan.limit, "prompt_settings_and_data": versions}
        runs.append(_CellRun(cell, output, json.loads(json.dumps(basis))))
    asked = sum(min(plan.limit or len(task.eval_docs), len(task.eval_docs)) * task.config.repeats for task in tasks)
    return lm, manager, runs, asked


@contextmanager
def stderr_to(log: Path) -> Iterator[TextIO]:
    """Let what is written to standard error go to a file instead; yield the real one, for a progress bar.

    lmms-eval logs every step of a cell and draws a bar for each. Warnings of its log are shown all the same.
    """
    screen = sys.stderr
    with _writing(log, "choose another --output"):
        log.parent.mkdir(parents=True, exist_ok=True)
        file = io.TextIOWrapper(io.BufferedWriter(_ForgivingLog(log, "a")), encoding="utf-8", line_buffering=True)
    with file, redirect_stderr(file):
        logger.remove()
        sinks = [
            logger.add(file, level="INFO"),
            logger.add(
                lambda line: tqdm.write(line, screen, ""),
                level="WARNING",
                format="{level}: {message}",
                filter=lambda record: record["level"].no < logger.level("CRITICAL").no,  # it is raised as well
            ),
        ]
        try:
            yield screen
        finally:
            for sink in sinks:
                logger.remove(sink)
            logger.add(screen)


class _ForgivingLog(io.FileIO):
    """A log, for which a disk without room is no reason to end a sweep: the answers themselves will say so."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


@dataclass(frozen=True)
class _CellRun:
    """A cell in the sweep's folder.

    Attributes:
        basis: what its answers depend on.
    """

    cell: Cell
    output: Path
    basis: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Where the finished cell is; it is finished when this exists."""
        return self.output / "cells" / self.cell.folder

    @property
    def unfinished(self) -> Path:
        return self.output / "unfinished" / self.cell.folder

    def check(self, requests: int) -> int:
        """Return how many of the cell's answers are there; refuse those that were made on another basis."""
        for folder in (self.folder, self.unfinished):
            if not (folder / _BASIS).is_file():
                if folder.is_dir() and any(folder.iterdir()):
                    raise SweepError(
                        f"{folder} holds something but no {_BASIS}; choose another --output, or delete that folder"
                    )
                continue
            if (before := _read_json(folder / _BASIS)) is None:
                raise SweepError(f"{folder / _BASIS}: no JSON; choose another --output, or delete its folder")
            if changes := _changes(before, self.basis):
                raise SweepError(
                    f"cell {self.cell.name}: {folder} was made with {'; '.join(changes)}; choose another --output, "
                    "or delete that folder to have the cell run again"
                )
            if folder == self.folder:
                return requests
            with Journal(folder / _ANSWERS) as journal:
                return len(journal)
        return 0

    def perform(self, lm: FixattnModel, plan: SweepPlan, manager: Any, bar: Any) -> None:
        """Run the cell, or the rest of it."""
        whole = self.output / f".{_BASIS}"
        with _writing(self.unfinished / _BASIS, "mend that, and the same command goes on"):
            self.unfinished.mkdir(parents=True, exist_ok=True)
            whole.write_text(json.dumps(self.basis, indent=1))
            whole.replace(self.unfinished / _BASIS)
        for leftover in self.unfinished.iterdir():
            if leftover.is_dir():  # results that were being written
                shutil.rmtree(leftover)
        lm.use(self.cell.method)
        arguments = {**plan.model, "method": self.cell.method.name, **self.cell.given}
        model_args = ",".join(f"{name}={_argument(value)}" for name, value in arguments.items())
        now = get_datetime_str()
        with Journal(self.unfinished / _ANSWERS) as journal, lm.serving(journal, bar):
            results = simple_evaluate(
                model=lm,
                model_args=model_args,
                tasks=list(plan.tasks),
                task_manager=manager,
                batch_size=lm.batch_size,
                limit=plan.limit,
                log_samples=True,
                datetime_str=now,
            )
        results["config"]["model"] = "llava_fixattn"
        self._save(results, model_args, now)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.unfinished.rename(self.folder)
        with suppress(OSError):
            self.unfinished.parent.rmdir()  # empty after the last cell

    def _save(self, results: dict[str, Any], model_args: str, now: str) -> None:
        tracker = EvaluationTracker(output_path=str(self.unfinished))
        tracker.general_config_tracker.log_experiment_args("llava_fixattn", model_args, None, None, False)
        samples = results.pop("samples")
        counts = {task: len(rows) for task, rows in samples.items()}
        tracker.save_results_aggregated(results=results, samples=samples, datetime_str=now)
        for task in results["configs"]:
            tracker.save_results_samples(task_name=task, samples=samples[task])
        if missing := [name for name in (_BASIS, _ANSWERS) if not (self.unfinished / name).is_file()]:
            raise SweepError(
                f"{self.unfinished / missing[0]} was deleted while cell {self.cell.name} was run; the same command "
                "runs the cell again"
            )
        # lmms-eval only warns of what it could not write.
        written = {task: list(self.unfinished.rglob(f"*_samples_{task}.jsonl")) for task in counts}
        lines = {task: [path.read_bytes().count(b"\n") for path in paths] for task, paths in written.items()}
        read = [_read_json(path) for path in self.unfinished.rglob("*_results.json")]
        if lines != {task: [count] for task, count in counts.items()} or len(read) != 1 or read[0] is None:
            free = shutil.disk_usage(self.unfinished).free / 1e6
            raise SweepError(
                f"the result of cell {self.cell.name} could not be written whole to {self.unfinished} ({free:.1f} MB "
                "free there); mend that, and the same command writes it from the answers that are kept"
            )


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    with _writing(output, "choose another --output"):
        try:
            lock = FileLock(output / ".lock").acquire(timeout=0)  # the system's, gone with the process that held it
        except Timeout:
            raise SweepError(f"another sweep is at work in {output}; wait for it, or choose another --output") from None
    with lock:
        yield


@contextmanager
def _writing(place: Path, advice: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SweepError(f"{place}: nothing can be written there ({error.strerror or error}); {advice}") from error


def _task_manager(names: Sequence[str]) -> Any:
    """Return lmms-eval's index of tasks; of this package's alone, which takes no seconds, where it has all of them."""
    manager = TaskManager(include_path=task_folder(), include_defaults=False)
    if not set(names) <= set(manager.all_tasks):
        manager = TaskManager()
    for name in names:
        if name not in manager.all_tasks:
            hint = did_you_mean(name, manager.all_tasks)
            raise SweepError(f"unknown task {name!r}{hint}; lmms-eval --tasks list shows the tasks")
    return manager


def _read_json(path: Path) -> Any:
    """Return what a file holds, None where that is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None


def _changes(before: Any, now: Any, place: str = "") -> list[str]:
    """Name every entry that differs between two nested mappings."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted({*before, *now})
        return [change for key in keys for change in _changes(before.get(key), now.get(key), f"{place}.{key}")]
    return [] if before == now else [f"{place[1:]} {_short(before)}, which now is {_short(now)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:28]}...{text[-28:]}"


def _argument(value: Any) -> str:
    """Return a value as --model_args would say it."""
    if isinstance(value, list | tuple):
        return "-".join("" if bound is None else str(bound) for bound in value)
    return str(value)
