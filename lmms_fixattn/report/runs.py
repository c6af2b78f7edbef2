"""Read runs: an lmms-eval output folder of ours, or anybody's file of captions or of yes/no answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lmms_fixattn.errors import UserError
from lmms_fixattn.scoring.files.entries import kind, number, read_entries, read_object, text_of, whole_number
from lmms_fixattn.scoring.files.lmms_samples import plain
from lmms_fixattn.scoring.files.questions import read_answers_to
from lmms_fixattn.scoring.files.reading import (
    Caption,
    captions_of,
    origin,
    read_answers,
    read_captions,
    refuse_double,
    what_is_in,
    yes_or_no,
)

_RESULTS = "_results.json"
_THROUGHPUT = ("total_elapsed_time", "avg_latency", "total_gen_tokens")
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
    """One answer of a run to a yes/no question; label is "yes" or "no", ids are None where not recorded."""

    image_id: int | None
    question: str
    label: str
    answer: str
    question_id: int | None = None


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
        notes: what a reader has to know of how the file was read.
    """

    name: str
    path: Path
    captions: Mapping[str, tuple[CaptionEntry, ...]] = field(default_factory=dict)
    answers: Mapping[str, tuple[AnswerEntry, ...]] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    generated_tokens: int | None = None
    requests: int | None = None
    notes: tuple[str, ...] = ()


def read_runs(texts: Sequence[str], questions: Sequence[Path] = ()) -> list[list[Run]]:
    """Read runs from paths or NAME=path, a list for each: the folder of a sweep is all of its finished cells.

    A cell is called as its folder is, with NAME before it where one is given. Raises UserError as :func:`read_run`.
    """
    found = []
    for text in texts:
        name, path = _named(text)
        if cells := sorted(cell for cell in (path / "cells").glob("*") if cell.is_dir()):
            before = f"{name} " if name else ""
            found.append([read_run(f"{before}{cell.name}={cell}", questions) for cell in cells])
        else:
            found.append([read_run(text, questions)])
    return found


def read_run(text: str, questions: Sequence[Path] = ()) -> Run:
    """Read a run from a path, or from NAME=path; without a name it is called as its folder or file is.

    A folder holds the output of one lmms-eval run with --log_samples: *_results.json and the samples beside it. Where
    several runs wrote to it, one is named by its *_results.json, and called as that file. Another file holds
    {"image_id", "caption"} objects, or {"question", "label", "answer"} objects, which may carry "image_id" and "split"
    (scoring.files.reading); the answers of a file are joined to the questions of these files, if any are given
    (scoring.files.questions).

    Raises UserError for a path that is not there, of another form, or that lacks entries.
    """
    name, path = _named(text)
    if path.is_dir():
        return _read_result(name or path.resolve().name, _only_result(path))
    if path.is_file() and path.name.endswith(_RESULTS):
        return _read_result(name or path.name.removesuffix(_RESULTS), path)
    name = name or path.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json")
    if not questions and what_is_in(path) == "captions":
        captions = read_captions(path)
        entries = tuple(map(_captioned, captions))
        key = captions[0].key
        notes = () if key == "caption" else (f"{name}: the captions were taken from the key {key!r}",)
        return Run(name, path, captions={"": entries}, notes=notes)
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
    except UserError:
        return False


def _named(text: str) -> tuple[str, Path]:
    before, equals, after = text.partition("=")
    if not equals or Path(text).exists():
        return "", Path(text)
    if not before or not after:
        raise UserError(f"a run is a path or NAME=path, not {text!r}")
    return before, Path(after)


def _only_result(folder: Path) -> Path:
    results = sorted(folder.rglob(f"*{_RESULTS}"), key=lambda path: path.name)
    if not results:
        raise UserError(f"{folder}: no *{_RESULTS} below it; a run is a folder that lmms-eval wrote with --output_path")
    if len(places := sorted({str(path.parent) for path in results})) > 1:
        raise UserError(f"{folder}: results of several runs, in {', '.join(places)}; name one of these folders")
    if len(results) > 1:  # lmms-eval calls the folder after the checkpoint: all methods of one --output_path share it
        found = ", ".join(f"{path} ({_what_ran(path)})" for path in results)
        raise UserError(
            f"{folder}: results of {len(results)} runs in one folder, {found}; name those files, or move all files of "
            "a run to a folder of its own"
        )
    return results[0]


def _what_ran(path: Path) -> str:
    content = _object(path)
    method = content["lmms_fixattn"].get("method", {})
    return f"{method.get('name', 'another model')} on {', '.join(content['configs']) or 'no task'}"


def _read_result(name: str, path: Path) -> Run:
    content = _object(path)
    samples = {
        file.name[: -len(".jsonl")].partition("_samples_")[2]: file
        for file in sorted(path.parent.glob(f"{path.name.removesuffix(_RESULTS)}_samples_*.jsonl"))
    }
    configs = content["configs"]
    if missing := [task for task in configs if task not in samples]:
        raise UserError(f"{path}: no samples of {', '.join(missing)} beside it; run lmms-eval with --log_samples")
    captions: dict[str, tuple[CaptionEntry, ...]] = {}
    answers: dict[str, list[AnswerEntry]] = {}
    task_of: dict[str, str] = {}
    documents = 0
    for task in configs:
        rows = [(place, entry) for place, entry in read_entries(samples[task], "sample")]
        expected = content["n-samples"].get(task, {}).get("effective", len(rows))
        if len(rows) != expected:
            raise UserError(f"{samples[task]}: {len(rows)} samples, but the results are over {expected}; run it again")
        documents += len(rows)
        if rows and all(isinstance(row.get("n"), dict) and "caption" in row["n"] for _, row in rows):
            pictures = [_picture(row) for _, row in rows]
            captions[task] = tuple(
                replace(_captioned(caption), image=picture)
                for caption, picture in zip(captions_of(samples[task], rows), pictures, strict=True)
            )
            task_of[task] = task
        elif rows and all(isinstance(row.get("n"), list) for _, row in rows):
            places: dict[tuple[Any, ...], str] = {}
            for place, row in rows:
                for entry in row["n"]:
                    answer = _answer(place, entry)
                    split = _split(task, entry)
                    refuse_double({**entry, "split": split}, place, places)
                    task_of[split] = task
                    answers.setdefault(split, []).append(answer)
        elif rows and _is_known(*rows[0]):
            task_of[task] = task
            if what_is_in(samples[task]) == "captions":
                captions[task] = tuple(map(_captioned, read_captions(samples[task])))
            else:
                answers[task] = [_asked(row) for row in read_answers(samples[task])]
    if not captions and not answers:
        if predicted := [task for task, config in configs.items() if _only_predicted(config)]:
            raise UserError(
                f"{path}: --predict_only left out what {', '.join(predicted)} scores by; run lmms-eval again without it"
            )
        raise UserError(
            f"{path}: none of its tasks ({', '.join(configs)}) is one of ours (chair_... or pope_...), nor lmms-eval's "
            "coco_cap_chair or pope"
        )
    protocols = {name: _protocol(content, task) for name, task in task_of.items()}
    throughput = content["throughput"]
    seconds, each = throughput.get("total_elapsed_time") or 0.0, throughput.get("avg_latency") or 0.0
    # Answers from a cache, or of another process, took time that was not measured; other tasks' took some that was.
    ours = len({*task_of.values()}) == len(configs)
    timed = ours and each > 0 and round(seconds / each) == documents
    return Run(
        name,
        path,
        captions,
        {split: tuple(entries) for split, entries in answers.items()},
        record={"lmms_fixattn": content["lmms_fixattn"], "date": content.get("date"), "tasks": protocols},
        seconds=float(seconds) if timed else None,
        generated_tokens=throughput.get("total_gen_tokens") if timed else None,
        requests=documents if timed else None,
    )


def _only_predicted(config: Mapping[str, Any]) -> bool:
    metrics = config.get("metric_list") or []
    return any(isinstance(metric, dict) and metric.get("metric") == "bypass" for metric in metrics)


def _object(path: Path) -> dict[str, Any]:
    """Return a result of lmms-eval, with all that is read of it of the right kind."""
    content = read_object(path, "of results, as lmms-eval writes it,")
    for key in ("configs", "versions", "n-samples", "lmms_fixattn", "throughput"):
        _part(f"{path}: {key!r}", content, key)
    for task, config in content["configs"].items():
        if not isinstance(config, dict):
            raise UserError(f"{path}: the configuration of {task} must be an object, not {kind(config)}")
        _part(f"{path}: 'generation_kwargs' of {task}", config, "generation_kwargs")
    for task in content["n-samples"]:
        place = f"{path}: 'n-samples' of {task}"
        count = _part(place, content["n-samples"], task)
        if "effective" in count:
            count["effective"] = whole_number(count["effective"], place, "'effective'")
    for key, value in content["throughput"].items():
        if key in _THROUGHPUT and value is not None:
            number(value, f"{path}", f"{key!r} of 'throughput'")
    if "method" in content["lmms_fixattn"]:
        _part(f"{path}: the method of 'lmms_fixattn'", content["lmms_fixattn"], "method")
    return content


def _part(what: str, content: dict[str, Any], key: str) -> dict[str, Any]:
    """Return an object of an object, {} put in the place of null or nothing."""
    if content.get(key) is None:
        content[key] = {}
    if not isinstance(content[key], dict):
        raise UserError(f"{what} must be an object, not {kind(content[key])}")
    part: dict[str, Any] = content[key]
    return part


def _protocol(content: Mapping[str, Any], task: str) -> dict[str, Any]:
    config = content["configs"][task]
    data = config.get("process_docs")
    generation = config["generation_kwargs"]
    prompt = "".join(_ADDRESS.sub("", str(config.get(part) or "")) for part in ("description", "doc_to_text"))
    return {
        **(data if isinstance(data, dict) else {}),
        "version": content["versions"].get(task),
        "prompt": prompt,
        "max_new_tokens": generation.get("max_new_tokens"),
        "generation_kwargs": generation,
    }


def _picture(sample: Mapping[str, Any]) -> Path | None:
    media = sample.get("input_media")
    first = media[0] if isinstance(media, list) and media else None
    return Path(first) if isinstance(first, str) and Path(first).is_file() else None


def _split(task: str, row: Any) -> str:
    """Return what a row's answers are kept under: lmms-eval's `pope` asks all three kinds of questions in one task."""
    category = str(row.get("category") or "") if isinstance(row, dict) else ""
    said = category.startswith(task.rpartition("_")[2])  # as pope_adv says that it asks the adversarial ones
    return task if said or not category else f"{task}_{category}"


def _answer(place: str, row: Any) -> AnswerEntry:
    if not isinstance(row, dict) or not {"question", "label", "answer"} <= row.keys():
        raise UserError(f"{place}: 'n' holds no answers to yes/no questions; run it again")
    question, label, answer = (text_of(row[key], place, repr(key)) for key in ("question", "label", "answer"))
    said = origin(place, row)
    return AnswerEntry(said.get("image_id"), question, yes_or_no(label, place), answer, said.get("question_id"))
