"""Write a run for others' scorers, with a method card: what made it, on what, and its figures with intervals.

    captions    TASK.jsonl, a line {"image_id", "caption", ...} a caption: what CHAIR scorers read; beside it, where the
                truth is known, TASK.truth.json, {image id: [node words]}
    pope        TASK.jsonl, a line {"question", "label", "answer", ...} a question: what POPE's and PAI's scorers read

Further keys, which those scorers ignore, keep what would be lost: how a caption ended, its tokens. `chair`, `pope` and
`compare` read each file back to the figures of the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lmms_fixattn import __version__
from lmms_fixattn.errors import UserError
from lmms_fixattn.report.compare import compare
from lmms_fixattn.report.forms import write_files
from lmms_fixattn.report.recorded import written
from lmms_fixattn.report.runs import Run
from lmms_fixattn.report.tables import Table
from lmms_fixattn.scoring import chair

FORMS = ("captions", "pope")
Truth = Mapping[int, frozenset[str]]

_UNKNOWN = "not recorded"
_MODEL = ("pretrained", "revision", "commit", "conversation", "dtype", "device", "attention", "batch_size", "processes")


def export(run: Run, form: str, folder: Path, truth: Truth | None = None) -> list[Path]:
    """Write a run's files in one of FORMS and its method card to a folder; return their paths.

    Args:
        run: what report.runs.read_run returned.
        truth: image id -> node words; wins over what the run logged.

    Raises:
        UserError: the run holds nothing of that form, or the folder cannot be written.
    """
    if not (run.captions if form == "captions" else run.answers):
        what, other = ("captions", "pope") if form == "captions" else ("yes/no answers", "captions")
        raise UserError(f"{run.path}: no {what} to export; use --to {other}")
    files = dict(_captions(run, truth) if form == "captions" else _answers(run))
    content = card(run, truth)
    files |= {"method_card.json": json.dumps(content, indent=2) + "\n", "METHOD_CARD.md": written_card(content)}
    # Half a surrogate pair, which JSON can hold and UTF-8 cannot, is written as JSON's escape for it.
    return write_files(folder, {name: text.encode(errors="backslashreplace") for name, text in files.items()})


def card(run: Run, truth: Truth | None = None) -> dict[str, Any]:
    """Return what a run states of itself and its figures, ready for JSON.

    method, model, versions and tasks are as recorded, "not recorded" for anybody's file; protocol holds the run's own
    analyser and parser, the bootstrap's draws and seed; figures hold value, low and high of every column of
    report.compare. Captions without truth have no figures, and "unscored" says so.
    """
    record, tasks = run.record.get("lmms_fixattn") or {}, run.record.get("tasks", {})
    unscored = truth is None and any(entry.truth is None for entries in run.captions.values() for entry in entries)
    scored = Run(run.name, run.path, {} if unscored else run.captions, run.answers, run.record)
    protocol = {"analyser": _stated(tasks, "analyser", "lexicon"), "parser": _stated(tasks, "parser", "official")}
    figures: dict[str, Any] = {}
    if scored.captions or scored.answers:
        analyser = chair.make_analyser(protocol["analyser"])
        comparison = compare([scored], None, truth, analyser, parser=protocol["parser"])
        protocol = comparison.settings
        figures = {name: asdict(column) for name, column in comparison.rows[0].columns.items()}
    method = dict(record.get("method", {}))
    return {
        "run": run.name,
        "method": method.pop("name", _UNKNOWN),
        "hyper_parameters": method,
        "model": {key: record.get(key, _UNKNOWN) for key in _MODEL},
        "versions": record.get("versions", {}),
        "tasks": {
            task or "captions": {"n": len(entries), **tasks.get(task, {})}
            for task, entries in {**run.captions, **run.answers}.items()
        },
        "protocol": protocol,
        "figures": figures,
        "unscored": "captions, because their truth is not known" if unscored else None,
        "written_by": f"lmms-fixattn {__version__}",
    }


def written_card(content: Mapping[str, Any]) -> str:
    """Return a card as Markdown."""
    settings = written(content["hyper_parameters"]) or "No hyper-parameters recorded."
    parts = [f"# {content['run']}: {content['method']}", settings, "## Figures"]
    if content["unscored"]:
        parts.append(f"Not scored: {content['unscored']}.")
    if content["figures"]:
        bounds = ("value", "low", "high")
        rows = [(name, *(_number(found[key]) for key in bounds)) for name, found in content["figures"].items()]
        parts.append(Table("", ("figure", *bounds), rows).markdown)
        parts.append("Percentages but for n, words and times; 95% bootstrap intervals over images.")
    sections = {key.capitalize(): content[key] for key in ("model", "versions", "protocol")}
    sections |= {f"Task {name}": protocol for name, protocol in content["tasks"].items()}
    for title, values in sections.items():
        if values:
            parts += [f"## {title}", "\n".join(f"- {name}: {written(value)}" for name, value in values.items())]
    return "\n\n".join([*parts, f"Written by {content['written_by']}."]) + "\n"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def _stated(tasks: Mapping[str, Any], key: str, default: str) -> str:
    found = {protocol[key] for protocol in tasks.values() if protocol.get(key)}
    return str(found.pop()) if len(found) == 1 else default


def _captions(run: Run, truth: Truth | None) -> Iterable[tuple[str, str]]:
    """Yield the name and text of each task's captions, and of their truth where all of it is known."""
    for task, entries in run.captions.items():
        rows = [
            {"image_id": one.image_id, "caption": one.text, "terminated": one.terminated, "tokens": one.tokens}
            for one in entries
        ]
        yield f"{task or 'captions'}.jsonl", _lines(rows)
        known = {entry.image_id: entry.truth if truth is None else truth.get(entry.image_id) for entry in entries}
        if all(words is not None for words in known.values()):
            shown = {str(image_id): sorted(words or ()) for image_id, words in known.items()}
            yield f"{task or 'captions'}.truth.json", json.dumps(shown, indent=0) + "\n"


def _answers(run: Run) -> Iterable[tuple[str, str]]:
    """Yield the name and text of each split's answers, without the keys that are not known."""
    for task, entries in run.answers.items():
        rows = (asdict(entry) | {"split": task or None} for entry in entries)
        known = ({key: value for key, value in row.items() if value is not None} for row in rows)
        yield f"{task or 'answers'}.jsonl", _lines(known)


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
