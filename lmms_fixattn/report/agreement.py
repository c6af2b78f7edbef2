"""Which captions and answers of runs may stand side by side: the same images and questions, asked in the same way."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, TypeVar

from lmms_fixattn.errors import UserError
from lmms_fixattn.report.runs import AnswerEntry, CaptionEntry, Run

_Key = TypeVar("_Key")
_Entry = TypeVar("_Entry")
CaptionKey = tuple[str, int]
"""(task, image id): demo scenes and COCO images may have equal ids."""

_MUST_AGREE = {
    "version": "task version",
    "prompt": "prompt",
    "conversation": "conversation template",
    "image_list_sha256": "image list",
    "max_new_tokens": "token cap",
}
_NOTED_OF_TASKS = {"data_sha256": "data", "generation_kwargs": "generation settings"}
_NOTED_OF_MODELS = ("pretrained", "commit", "dtype", "attention", "device", "batch_size", "processes")
_ALLOW = "`compare --allow-differences` compares those"


@dataclass
class Agreement:
    """What runs share.

    Attributes:
        captions: run -> its captions by key, the same keys in the same order for every run that has captions.
        answers: split -> run -> answers, the same questions in the same order for every run that has the split.
        clusters: split -> the image of each of these questions; of the question alone where images are not known.
        notes: what a reader has to know of it.
    """

    captions: dict[str, dict[CaptionKey, CaptionEntry]] = field(default_factory=dict)
    answers: dict[str, dict[str, tuple[AnswerEntry, ...]]] = field(default_factory=dict)
    clusters: dict[str, tuple[int, ...]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def agree(runs: Sequence[Run], allow_differences: bool = False) -> Agreement:
    """Return what runs share, or refuse.

    A plain file's captions belong to the task of the others that captions the same image.

    Raises:
        UserError: image sets, questions, task versions, prompts, conversation templates, image lists or token caps
            differ (with allow_differences they are noted, and the shared images and questions are returned); a run has
            two entries for one image or question; a question has two labels; nothing is shared.
    """
    agreement = Agreement()
    _compare_protocols(runs, allow_differences, agreement.notes)
    plain = [run.name for run in runs if not run.record]
    if plain:
        who = "all runs" if len(plain) == len(runs) else ", ".join(plain)
        files = f"plain files, whose prompt and settings are not known and were not compared: {who}"
        agreement.notes.append("a plain file, whose prompt and settings are not known" if len(runs) == 1 else files)
    captions = _captions(runs)
    remedy = f"LMMS_FIXATTN_IMAGES runs chair_coco on a list of yours; {_ALLOW}"
    agreement.captions = _intersect(captions, "images", "caption", allow_differences, agreement.notes, remedy)
    _match_answers(runs, allow_differences, agreement)
    return agreement


def _compare_protocols(runs: Sequence[Run], allow_differences: bool, notes: list[str]) -> None:
    recorded = [run for run in runs if run.record]
    for task in dict.fromkeys(task for run in recorded for task in run.record["tasks"]):
        having = {
            run.name: {**run.record["tasks"][task], "conversation": run.record["lmms_fixattn"].get("conversation")}
            for run in recorded
            if task in run.record["tasks"]
        }
        for (first, stated), (second, other) in combinations(having.items(), 2):
            for key, what in (_MUST_AGREE | _NOTED_OF_TASKS).items():
                if stated.get(key) == other.get(key):
                    continue
                values = f"{_written(stated.get(key))} and {_written(other.get(key))}"
                difference = f"{first} and {second} differ in the {what} of {task}: {values}"
                if key in _MUST_AGREE and not allow_differences:
                    remedy = "LMMS_FIXATTN_IMAGES chooses the list; " if key == "image_list_sha256" else ""
                    raise UserError(f"{difference}; {remedy}--allow-differences compares them all the same")
                notes.append(difference)
    models = {run.name: _settings(run.record["lmms_fixattn"]) for run in recorded}
    for key in sorted({key for settings in models.values() for key in settings}):
        told = {name: _written(settings.get(key)) for name, settings in models.items()}
        if len(set(told.values())) > 1:
            notes.append(f"{key} differs: {', '.join(f'{name} {value}' for name, value in told.items())}")


def _settings(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is noted of a model's record, {"versions": {"torch": ...}} as "versions.torch"."""
    versions = model.get("versions")
    parts = versions.items() if isinstance(versions, Mapping) else ()
    return {key: model.get(key) for key in _NOTED_OF_MODELS} | {f"versions.{name}": one for name, one in parts}


def _written(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _captions(runs: Sequence[Run]) -> dict[str, dict[CaptionKey, CaptionEntry]]:
    """Return each run's captions by key, those of plain files under the tasks of the others."""
    tasks: dict[int, set[str]] = {}
    for run in runs:
        for task, entries in run.captions.items():
            if task:
                for entry in entries:
                    tasks.setdefault(entry.image_id, set()).add(task)
    found: dict[str, dict[CaptionKey, CaptionEntry]] = {}
    for run in runs:
        if not run.captions:
            continue
        by_key: dict[CaptionKey, CaptionEntry] = {}
        for task, entries in run.captions.items():
            for entry in entries:
                of_image = {task} if task else tasks.get(entry.image_id, {""})
                if len(of_image) > 1:
                    raise UserError(
                        f"{run.name}: image {entry.image_id} is captioned in {' and '.join(sorted(of_image))} of the "
                        "other runs, and a plain file does not say which it means; compare one task at a time"
                    )
                key = (next(iter(of_image)), entry.image_id)
                if key in by_key:
                    raise UserError(f"{run.name}: two captions for image {entry.image_id}; keep one")
                by_key[key] = entry
        found[run.name] = by_key
    return found


def _intersect(
    found: Mapping[str, Mapping[_Key, _Entry]],
    things: str,
    verb: str,
    allow_differences: bool,
    notes: list[str],
    remedy: str,
) -> dict[str, dict[_Key, _Entry]]:
    """Return every run's entries of the keys that all runs have, in one order; refuse where keys differ."""
    if not found:
        return {}
    shared = set.intersection(*(set(entries) for entries in found.values()))
    (first, entries), *others = found.items()
    for name, theirs in others:
        if entries.keys() != theirs.keys() and not allow_differences:
            both = len(entries.keys() & theirs.keys())
            raise UserError(
                f"{first} and {name} {verb} different {things}: {len(entries)} and {len(theirs)}, of which {both} are "
                f"shared; {remedy}"
            )
    if not shared:
        raise UserError(f"{', '.join(found)} {verb} no {things} in common")
    if any(len(theirs) != len(shared) for theirs in found.values()):
        sizes = ", ".join(f"{name} {len(theirs)}" for name, theirs in found.items())
        notes.append(f"only the {len(shared)} {things} that all {verb} are compared (of {sizes})")
    keys = sorted(shared)  # type: ignore[type-var]
    return {name: {key: theirs[key] for key in keys} for name, theirs in found.items()}


def _match_answers(runs: Sequence[Run], allow_differences: bool, agreement: Agreement) -> None:
    names = split_names(task for run in runs for task in run.answers)
    for split in dict.fromkeys(names.values()):
        having = {
            run.name: [entry for task, entries in run.answers.items() if names[task] == split for entry in entries]
            for run in runs
        }
        having = {name: entries for name, entries in having.items() if entries}
        what = f"questions of POPE {split}" if split else "POPE questions"
        known = all(entry.image_id is not None for entries in having.values() for entry in entries)
        keyed = {name: (_by_question if known else _by_line)(name, entries) for name, entries in having.items()}
        remedy = _ALLOW if known else "without image ids, only the same questions in the same order can be compared"
        shared = _intersect(keyed, what, "answer", allow_differences and known, agreement.notes, remedy)
        matched = {name: tuple(entries.values()) for name, entries in shared.items()}
        _check_labels(matched)
        agreement.answers[split] = matched
        agreement.clusters[split] = _clusters(matched, what, agreement.notes)


def split_names(tasks: Iterable[str]) -> dict[str, str]:
    """Return what a POPE task is called in a column: pope_coco_chat_random -> chat_random.

    Where COCO's and the demo's tasks come together they keep their data's name: coco_random, demo_random.
    """
    names = {task: task.removeprefix("pope_") for task in tasks}
    short = {task: name.removeprefix("coco_").removeprefix("demo_") for task, name in names.items()}
    ours = [task for task in names if task.startswith("pope_")]
    return short if len({short[task] for task in ours}) == len(ours) else names


def _by_question(name: str, entries: Sequence[AnswerEntry]) -> dict[tuple[int | None, str, int], AnswerEntry]:
    """Return answers by image, question and how often it was asked before: A-OKVQA's and GQA's files repeat a few."""
    asked: dict[tuple[int | None, str], dict[int | None, AnswerEntry]] = {}
    for entry in entries:
        again = asked.setdefault((entry.image_id, entry.question), {})
        if entry.question_id in again or (again and None in (entry.question_id, *again)):
            raise UserError(f"{name}: two answers to {entry.question!r} about image {entry.image_id}; keep one")
        again[entry.question_id] = entry
    return {
        (*key, number): again[question_id]
        for key, again in asked.items()
        for number, question_id in enumerate(sorted(again, key=lambda question_id: question_id or 0))
    }


def _by_line(_name: str, entries: Sequence[AnswerEntry]) -> dict[tuple[int | None, str, int], AnswerEntry]:
    """Return answers by question and line: without image ids one question is asked of many images."""
    return {(number, entry.question, 0): entry for number, entry in enumerate(entries)}


def _check_labels(matched: Mapping[str, Sequence[AnswerEntry]]) -> None:
    for answers in zip(*matched.values(), strict=True):
        if len({entry.label for entry in answers}) > 1:
            told = ", ".join(f"{name} {entry.label!r}" for name, entry in zip(matched, answers, strict=True))
            raise UserError(f"{answers[0].question!r} about image {answers[0].image_id} has two labels: {told}")


def _clusters(matched: Mapping[str, Sequence[AnswerEntry]], what: str, notes: list[str]) -> tuple[int, ...]:
    numbers: dict[int, int] = {}
    for entries in matched.values():
        ids = [entry.image_id for entry in entries if entry.image_id is not None]
        if len(ids) == len(entries):
            return tuple(numbers.setdefault(image_id, len(numbers)) for image_id in ids)
    notes.append(
        f"the {what} carry no image ids, so single questions are resampled; an image's questions go together, and the "
        "intervals may be too narrow"
    )
    return tuple(range(len(next(iter(matched.values())))))
