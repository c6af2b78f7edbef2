"""Read runs: an lmms-eval output folder of ours, or anybody's file of captions or of yes/no answers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmms_fixattn.scoring.files.lmms_samples import plain
from lmms_fixattn.scoring.files.questions import read_answers_to
from lmms_fixattn.scoring.files.reading import Caption, FileError, read_answers, read_captions, read_entries, what_is_in

_RESULTS = "_results.json"
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True)
class CaptionEntry:
    """One caption of a run.

    Attributes:
        terminated: whether the generator ended it rather than the token cap; None where the run does not say.
        tokens: generated tokens, None where the run does not say.
        truth: the true node words that the run logged beside it, None where it logged none.
        image: the picture, where the run logged a path that is still there.
        file_name: of the picture, where a file says by it which image this is.
    """

    image_id: int
    text: str
    terminated: bool | None = None
    tokens: int | None = None
    truth: frozenset[str] | None = None
    image: Path | None = None
    file_name: str | None = None


@dataclass(frozen=True)
class AnswerEntry:
    """One answer of a run to a yes/no question; label is "yes" or "no", ids and turn are None where not recorded."""

    image_id: int | None
    question: str
    label: str
    answer: str
    question_id: int | None = None
    turn: int | None = None


@dataclass(frozen=True)
class Run:
    """Everything that a comparison uses of one run.

    Attributes:
        captions, answers: entries by lmms-eval task, those of its own `pope` by task_category; of a plain file by its
            "split", "" where it names none.
        record: what a result states of itself: {"lmms_fixattn": the model's record, "tasks": {task: version, prompt,
            max_new_tokens, image_list, image_list_sha256, data_sha256, analyser or parser ...}, "date"}; {} for a file.
        seconds: generation time of all entries together; None where it was not recorded for all of them.
        generated_tokens: in that time.
        requests: in that time: a conversation of several questions is one.
    """

    name: str
    path: Path
    captions: Mapping[str, tuple[CaptionEntry, ...]] = field(default_factory=dict)
    answers: Mapping[str, tuple[AnswerEntry, ...]] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    generated_tokens: int | None = None
    requests: int | None = None


def read_run(text: str, questions: Sequence[Path] = ()) -> Run:
    """Read a run from a path, or from NAME=path; without a name it is called as its folder or file is.

    A folder holds the output of one lmms-eval run with --log_samples: *_results.json and the samples beside it. Where
    several runs wrote to it, one is named by its *_results.json, and called as that file. Another file holds
    {"image_id", "caption"} objects, or {"question", "label", "answer"} objects, which may carry "image_id" and "split"
    (metrics.reading); the answers of a file are joined to the questions of these files, if any are given
    (metrics.questions).

    Raises FileError for a path that is not there, of another form, or that lacks entries.
    """
    name, path = _named(text)
    if path.is_dir():
        return _read_result(name or path.resolve().name, _only_result(path))
    if path.is_file() and path.name.endswith(_RESULTS):
        return _read_result(name or path.name.removesuffix(_RESULTS), path)
    name = name or path.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json")
    if not questions and what_is_in(path) == "captions":
        entries = tuple(_captioned(caption) for caption in read_captions(path))
        return Run(name, path, captions={"": entries})
    answers: dict[str, list[AnswerEntry]] = {}
    for row in read_answers_to(path, questions) if questions else read_answers(path):
        answers.setdefault(row.get("split", ""), []).append(_asked(row))
    return Run(name, path, answers={split: tuple(entries) for split, entries in answers.items()})


def _captioned(caption: Caption) -> CaptionEntry:
    return CaptionEntry(*caption[:4], truth=caption.truth, file_name=caption.file_name)


def _asked(row: Mapping[str, Any]) -> AnswerEntry:
    return AnswerEntry(row.get("image_id"), row["question"], row["label"], row["answer"], row.get("question_id"))


def _is_known(place: str, row: Mapping[str, Any]) -> bool:
    """Return whether a sample is of a task of lmms-eval's own whose captions or answers can be read."""
    try:
        return "n" not in row and bool(list(plain(place, row)))
    except FileError:
        return False


def _named(text: str) -> tuple[str, Path]:
    before, equals, after = text.partition("=")
    if not equals or Path(text).exists():
        return "", Path(text)
    if not before or not after:
        raise FileError(f"a run is a path or NAME=path, not {text!r}")
    return before, Path(after)


def _only_result(folder: Path) -> Path:
    results = sorted(folder.rglob(f"*{_RESULTS}"), key=lambda path: path.name)
    if not results:
        raise FileError(f"{folder}: no *{_RESULTS} below it; a run is a folder that lmms-eval wrote with --output_path")
    if len(places := sorted({str(path.parent) for path in results})) > 1:
        raise FileError(f"{folder}: results of several runs, in {', '.join(places)}; name one of these folders")
    if len(results) > 1:  # lmms-eval calls the folder after the checkpoint: all methods of one --output_path share it
        found = ", ".join(f"{path} ({_what_ran(path)})" for path in results)
        raise FileError(
            f"{folder}: results of {len(results)} runs in one folder, {found}; name those files, or move all files of "
            "a run to a folder of its own"
        )
    return results[0]


def _what_ran(path: Path) -> str:
    content = _object(path)
    method = (content.get("lmms_fixattn") or {}).get("method") or {}
    return f"{method.get('name', 'another model')} on {', '.join(content.get('configs') or {}) or 'no task'}"


def _read_result(name: str, path: Path) -> Run:
    content = _object(path)
    samples = {
        file.name[: -len(".jsonl")].partition("_samples_")[2]: file
        for file in sorted(path.parent.glob(f"{path.name.removesuffix(_RESULTS)}_samples_*.jsonl"))
    }
    configs = content.get("configs", {})
    if missing := [task for task in configs if task not in samples]:
        raise FileError(f"{path}: no samples of {', '.join(missing)} beside it; run lmms-eval with --log_samples")
    captions: dict[str, tuple[CaptionEntry, ...]] = {}
    answers: dict[str, list[AnswerEntry]] = {}
    task_of: dict[str, str] = {}
    documents = 0
    for task in configs:
        rows = [(place, entry) for place, entry in read_entries(samples[task], "sample")]
        expected = content.get("n-samples", {}).get(task, {}).get("effective", len(rows))
        if len(rows) != expected:
            raise FileError(f"{samples[task]}: {len(rows)} samples, but the results are over {expected}; run it again")
        documents += len(rows)
        if rows and all(isinstance(row.get("n"), dict) and "caption" in row["n"] for _, row in rows):
            captions[task] = tuple(_caption(place, row) for place, row in rows)
            task_of[task] = task
        elif rows and all(isinstance(row.get("n"), list) for _, row in rows):
            for place, row in rows:
                for entry in row["n"]:
                    split = _split(task, entry)
                    task_of[split] = task
                    answers.setdefault(split, []).append(_answer(place, entry))
        elif rows and _is_known(*rows[0]):
            task_of[task] = task
            if what_is_in(samples[task]) == "captions":
                captions[task] = tuple(map(_captioned, read_captions(samples[task])))
            else:
                answers[task] = [_asked(row) for row in read_answers(samples[task])]
    if not captions and not answers:
        if predicted := [task for task, config in configs.items() if _only_predicted(config)]:
            raise FileError(
                f"{path}: --predict_only left out what {', '.join(predicted)} scores by; run lmms-eval again without it"
            )
        raise FileError(
            f"{path}: none of its tasks ({', '.join(configs)}) is one of ours (chair_... or pope_...), nor lmms-eval's "
            "coco_cap_chair or pope"
        )
    throughput = content.get("throughput") or {}
    seconds, each = throughput.get("total_elapsed_time") or 0.0, throughput.get("avg_latency") or 0.0
    # Answers from a cache, or of another process, took time that was not measured; other tasks' took some that was.
    ours = len({*task_of.values()}) == len(configs)
    timed = ours and each > 0 and round(seconds / each) == documents
    return Run(
        name,
        path,
        captions,
        {split: tuple(entries) for split, entries in answers.items()},
        record=_record(content, task_of),
        seconds=float(seconds) if timed else None,
        generated_tokens=throughput.get("total_gen_tokens") if timed else None,
        requests=documents if timed else None,
    )


def _only_predicted(config: Mapping[str, Any]) -> bool:
    metrics = config.get("metric_list") or []
    return any(isinstance(metric, dict) and metric.get("metric") == "bypass" for metric in metrics)


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: not a result of lmms-eval: {error}") from None
    if not isinstance(content, dict):
        raise FileError(f"{path}: not a result of lmms-eval: expected one object")
    return content


def _record(content: Mapping[str, Any], task_of: Mapping[str, str]) -> dict[str, Any]:
    return {
        "lmms_fixattn": content.get("lmms_fixattn") or {},
        "date": content.get("date"),
        "tasks": {name: _protocol(content, task) for name, task in task_of.items()},
    }


def _protocol(content: Mapping[str, Any], task: str) -> dict[str, Any]:
    config = content["configs"][task]
    data = config.get("process_docs")
    generation = config.get("generation_kwargs") or {}
    prompt = "".join(_ADDRESS.sub("", str(config.get(part) or "")) for part in ("description", "doc_to_text"))
    return {
        **(data if isinstance(data, dict) else {}),
        "version": content.get("versions", {}).get(task),
        "prompt": prompt,
        "max_new_tokens": generation.get("max_new_tokens"),
        "generation_kwargs": generation,
    }


def _caption(place: str, sample: Mapping[str, Any]) -> CaptionEntry:
    row = sample["n"]
    if not isinstance(row["caption"], str) or not isinstance(row.get("image_id"), int):
        raise FileError(f"{place}: 'n' holds no caption of an image; run it again")
    truth = row.get("truth")
    return CaptionEntry(
        image_id=row["image_id"],
        text=row["caption"],
        terminated=row["terminated"] if row.get("tokens") is not None else None,
        tokens=row.get("tokens"),
        truth=None if truth is None else frozenset(truth),
        image=_picture(sample),
    )


def _picture(sample: Mapping[str, Any]) -> Path | None:
    media = sample.get("input_media") or [None]
    return Path(media[0]) if isinstance(media[0], str) and Path(media[0]).is_file() else None


def _split(task: str, row: Any) -> str:
    """Return what a row's answers are kept under: lmms-eval's `pope` asks all three kinds of questions in one task."""
    category = str(row.get("category") or "") if isinstance(row, dict) else ""
    said = category.startswith(task.rpartition("_")[2])  # as pope_adv says that it asks the adversarial ones
    return task if said or not category else f"{task}_{category}"


def _answer(place: str, row: Any) -> AnswerEntry:
    try:
        entry = AnswerEntry(
            row["image_id"], row["question"], row["label"], row["answer"], row.get("question_id"), row.get("turn")
        )
    except (KeyError, TypeError):
        raise FileError(f"{place}: 'n' holds no answers to yes/no questions; run it again") from None
    if not isinstance(entry.answer, str):
        raise FileError(f"{place}: an answer is no text; run it again")
    return entry
