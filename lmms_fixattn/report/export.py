"""Write a run for others' scorers, with a card that says what made it.

    captions    TASK.jsonl, a line {"image_id", "caption", ...} a caption: what CHAIR scorers read; beside it, where the
                truth is known, TASK.truth.json, {image id: [node words]}
    pope        TASK.jsonl, a line {"question", "label", "answer", ...} a question: what POPE's and PAI's scorers read
    amber       TASK.json, a list of {"id", "response"}: what AMBER's scorer reads (junyangwang0410/AMBER)
    lmms-eval   a results file and the samples of each task, as lmms-eval --log_samples writes them

Further keys, which those scorers ignore, keep what would be lost: how a caption ended, its tokens. `chair`, `pope` and
`compare` read each file back to the figures of the run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lmms_fixattn.errors import UserError
from lmms_fixattn.report.card import card, written_card
from lmms_fixattn.report.runs import AnswerEntry, CaptionEntry, Run
from lmms_fixattn.scoring import chair, pope

Truth = Mapping[int, frozenset[str]]


def export(run: Run, form: str, folder: Path, truth: Truth | None = None, analyser: str | None = None) -> list[Path]:
    """Write a run's files in one of FORMS and its method card to a folder; return their paths.

    Args:
        run: what report.runs.read_run returned.
        truth: image id -> node words; wins over what the run logged.
        analyser: how captions become objects; by default as in the run.

    Raises:
        UserError: the run holds nothing of that form, or the folder cannot be written.
    """
    content = card(run, truth, analyser)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = FORMS[form](run, folder, truth, content["protocol"]["analyser"], content["protocol"]["parser"])
        for name, text in (
            ("method_card.json", json.dumps(content, indent=2) + "\n"),
            ("METHOD_CARD.md", written_card(content)),
        ):
            paths.append(_write(folder / name, [text]))
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}") from error
    return paths


def _captions(run: Run, folder: Path, truth: Truth | None, analyser: str, parser: str) -> list[Path]:
    if not run.captions:
        raise UserError(f"{run.path}: no captions to export, only answers; use --to pope")
    paths = []
    for task, entries in run.captions.items():
        name = task or "captions"
        paths.append(_lines(folder / f"{name}.jsonl", (_caption(entry) for entry in entries)))
        known = {entry.image_id: _truth_of(entry, truth) for entry in entries}
        if all(words is not None for words in known.values()):
            content = {str(image_id): sorted(words or ()) for image_id, words in known.items()}
            paths.append(_write(folder / f"{name}.truth.json", [json.dumps(content, indent=0), "\n"]))
    return paths


def _pope(run: Run, folder: Path, truth: Truth | None, analyser: str, parser: str) -> list[Path]:
    if not run.answers:
        raise UserError(f"{run.path}: no yes/no answers to export, only captions; use --to captions")
    return [
        _lines(folder / f"{task or 'answers'}.jsonl", (_answer(entry, task) for entry in entries))
        for task, entries in run.answers.items()
    ]


def _amber(run: Run, folder: Path, truth: Truth | None, analyser: str, parser: str) -> list[Path]:
    if not run.captions:
        raise UserError(f"{run.path}: no captions to export as AMBER responses, only answers; use --to pope")
    return [
        _write(
            folder / f"{task or 'responses'}.json",
            [
                json.dumps(
                    [
                        {"id": entry.image_id, "response": entry.text, "terminated": entry.terminated}
                        | {"tokens": entry.tokens}
                        for entry in entries
                    ],
                    indent=1,
                    ensure_ascii=False,
                ),
                "\n",
            ],
        )
        for task, entries in run.captions.items()
    ]


def _lmms_eval(run: Run, folder: Path, truth: Truth | None, analyser: str, parser: str) -> list[Path]:
    reader = chair.make_analyser(analyser)
    tasks = run.record.get("tasks", {})
    date = run.record.get("date") or "exported"
    samples: dict[str, list[dict[str, Any]]] = {}
    results: dict[str, dict[str, Any]] = {}
    for task, captions in run.captions.items():
        name = task or "captions"
        rows = []
        for entry in captions:
            words = _truth_of(entry, truth)
            if words is None:
                raise UserError(f"{run.path}: no truth of image {entry.image_id}; give --ground-truth or --coco")
            row = chair.score_caption(entry.image_id, entry.text, words, reader, entry.terminated)
            rows.append(row | {"tokens": entry.tokens})
        samples[name] = [
            {"doc_id": number, "target": row["truth"], "filtered_resps": row["caption"], "n": row}
            | ({"input_media": [str(entry.image)]} if entry.image else {})
            for number, (entry, row) in enumerate(zip(captions, rows, strict=True))
        ]
        results[name] = dict(chair.corpus_figures(rows))
    for task, answers in run.answers.items():
        name = task or "answers"
        documents: dict[Any, list[dict[str, Any]]] = {}
        for number, answer in enumerate(answers):
            # A conversation is one document of several turns, any other question a document of its own.
            key = ("chat", answer.image_id) if "_chat" in task else ("question", number)
            predicted = pope.parse_answer(answer.answer, parser, answer.label)
            asked = _answer(answer, "") | {"predicted": predicted, "parser": parser}
            documents.setdefault(key, []).append(asked)
        samples[name] = [
            {"doc_id": number, "filtered_resps": [row["answer"] for row in rows], "n": rows}
            for number, rows in enumerate(documents.values())
        ]
        results[name] = dict(pope.figures(({"label": a.label, "answer": a.answer} for a in answers), parser))
    requests = sum(map(len, samples.values()))
    content = {
        "results": {task: {f"{key},none": value for key, value in row.items()} for task, row in results.items()},
        "configs": {name: _config(name, tasks.get(name, {}), analyser, parser) for name in samples},
        "versions": {name: tasks.get(name, {}).get("version") for name in samples},
        "n-samples": {name: {"original": len(rows), "effective": len(rows)} for name, rows in samples.items()},
        "lmms_fixattn": run.record.get("lmms_fixattn") or None,
        "date": date,
    }
    if run.seconds is not None:
        content["throughput"] = {
            "total_gen_tokens": run.generated_tokens,
            "total_elapsed_time": run.seconds,
            "avg_latency": run.seconds / requests,
        }
    paths = [_write(folder / f"{date}_results.json", [json.dumps(content, indent=2, default=str), "\n"])]
    return paths + [_lines(folder / f"{date}_samples_{name}.jsonl", rows) for name, rows in samples.items()]


FORMS: dict[str, Callable[[Run, Path, Truth | None, str, str], list[Path]]] = {
    "captions": _captions,
    "pope": _pope,
    "amber": _amber,
    "lmms-eval": _lmms_eval,
}


def _config(name: str, protocol: Mapping[str, Any], analyser: str, parser: str) -> dict[str, Any]:
    aside = {"version", "prompt", "max_new_tokens", "generation_kwargs"}
    data = {key: value for key, value in protocol.items() if key not in aside}
    return {
        "task": name,
        "process_docs": data or {"analyser": analyser, "parser": parser},
        "doc_to_text": protocol.get("prompt", ""),
        "generation_kwargs": protocol.get("generation_kwargs", {}),
    }


def _truth_of(entry: CaptionEntry, truth: Truth | None) -> frozenset[str] | None:
    return entry.truth if truth is None else truth.get(entry.image_id)


def _caption(entry: CaptionEntry) -> dict[str, Any]:
    return {
        "image_id": entry.image_id,
        "caption": entry.text,
        "terminated": entry.terminated,
        "tokens": entry.tokens,
    }


def _answer(entry: AnswerEntry, task: str) -> dict[str, Any]:
    row: dict[str, Any] = {"question_id": entry.question_id, "image_id": entry.image_id, "turn": entry.turn}
    known = {key: value for key, value in row.items() if value is not None}
    return (
        known
        | {"question": entry.question, "label": entry.label, "answer": entry.answer}
        | ({"split": task} if task else {})
    )


def _lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    return _write(path, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _write(path: Path, pieces: Iterable[str]) -> Path:
    # Half a surrogate pair, which JSON can hold and UTF-8 cannot, is written as JSON's escape for it.
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(pieces)
    return path
