"""A run's method card: what made it, on what, and its figures with intervals, for a submission or an appendix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from lmms_fixattn import __version__
from lmms_fixattn.report.compare import compare
from lmms_fixattn.report.runs import Run
from lmms_fixattn.scoring import chair

_UNKNOWN = "not recorded"
_MODEL = ("pretrained", "revision", "commit", "conversation", "dtype", "device", "attention", "batch_size", "processes")


def card(
    run: Run,
    truth: Mapping[int, frozenset[str]] | None = None,
    analyser: str | None = None,
    parser: str | None = None,
) -> dict[str, Any]:
    """Return what a run states of itself and its figures, ready for JSON.

    method, model, versions and tasks are as recorded, "not recorded" for anybody's file; protocol holds the analyser
    (by default the run's own), the parser, the bootstrap's draws and seed; figures hold value, low and high of every
    column of report.compare. Captions without truth have no figures, and "unscored" says so.
    """
    record = run.record.get("lmms_fixattn") or {}
    tasks = run.record.get("tasks", {})
    analyser = analyser or _stated(tasks, "analyser") or "lexicon"
    parser = parser or _stated(tasks, "parser") or "official"
    unscored = truth is None and any(entry.truth is None for entries in run.captions.values() for entry in entries)
    scored = Run(run.name, run.path, {} if unscored else run.captions, run.answers, run.record)
    figures: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    if scored.captions or scored.answers:
        comparison = compare([scored], None, truth, chair.make_analyser(analyser), parser=parser)
        settings = comparison.settings
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
        "protocol": {"analyser": analyser, "parser": parser, **settings},
        "figures": figures,
        "unscored": "captions, because their truth is not known" if unscored else None,
        "written_by": f"lmms-fixattn {__version__}",
    }


def written_card(content: Mapping[str, Any]) -> str:
    """Return a card as Markdown."""
    method = ", ".join(f"{name}={value}" for name, value in content["hyper_parameters"].items())
    parts = [f"# {content['run']}: {content['method']}", method or "No hyper-parameters recorded.", "## Figures"]
    if content["unscored"]:
        parts.append(f"Not scored: {content['unscored']}.")
    if content["figures"]:
        rows = [(name, *(_number(found[key]) for key in found)) for name, found in content["figures"].items()]
        parts.append(tabulate(rows, ["figure", "value", "low", "high"], tablefmt="github", disable_numparse=True))
        parts.append("Percentages but for n, words and times; 95% bootstrap intervals over images.")
    for title, key in (("Model", "model"), ("Versions", "versions"), ("Protocol", "protocol")):
        if content[key]:
            parts += [f"## {title}", _listed(content[key])]
    parts += ["## Tasks", tabulate(_tasks(content["tasks"]), headers="keys", tablefmt="github", disable_numparse=True)]
    return "\n\n".join([*parts, f"Written by {content['written_by']}."]) + "\n"


def _stated(tasks: Mapping[str, Any], key: str) -> str | None:
    found = {protocol[key] for protocol in tasks.values() if protocol.get(key)}
    return found.pop() if len(found) == 1 else None


def _tasks(tasks: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what a reader compares of each task; a digest is known by its first characters."""
    columns = ("n", "version", "prompt", "max_new_tokens", "image_list", "image_list_sha256", "data_sha256")
    known = [name for name in columns if any(protocol.get(name) is not None for protocol in tasks.values())]
    return [{"task": task} | {name: _short(name, protocol) for name in known} for task, protocol in tasks.items()]


def _short(name: str, protocol: Mapping[str, Any]) -> str:
    value = str(protocol.get(name, ""))
    return value[:12] if name.endswith("sha256") else value


def _listed(values: Mapping[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in values.items())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)
