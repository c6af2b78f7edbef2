"""Write a comparison as one HTML file: verdicts, tables, plots and a browser of the captions; it loads nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from lmms_fixattn.report import plots, table
from lmms_fixattn.report.compare import Comparison
from lmms_fixattn.report.samples import samples
from lmms_fixattn.scoring.chair import make_analyser
from lmms_fixattn.scoring.files.reading import FileError

_CAPTIONS = {
    "recall": "Hallucination against recall. On the grey curve, the baseline says less and less, cut in the best way "
    "at each recall; a fix that only makes captions shorter lies on it or above.",
    "truncation": "Beyond brevity: each method minus the best cut of the baseline at the same recall. An interval "
    "below 0 is a gain that saying less does not explain; one above 0 may be nothing but captions of unequal lengths.",
    "position": "Where in a caption objects are hallucinated, by tenths of the caption.",
    "position_words": "The same by words from the caption's start.",
}
_PROTOCOL = ("version", "prompt", "max_new_tokens", "image_list", "image_list_sha256", "data_sha256")
_MODEL = ("pretrained", "commit", "method", "conversation", "dtype", "attention", "versions")


def write_page(comparison: Comparison, path: Path, drawn: Mapping[str, Figure] | None = None) -> None:
    """Write the page of a comparison.

    Everything is in the file: style, script, plots as SVG, thumbnails of pictures that runs logged as data. The browser
    shows every caption with the objects that it mentions, supported or not. drawn: what plots.figures(comparison) gave,
    where it has been called. Raises FileError where the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(comparison, drawn), encoding="utf-8", errors="replace")
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from None


def page(comparison: Comparison, drawn: Mapping[str, Figure] | None = None) -> str:
    """Return the page of a comparison as HTML."""
    from lmms_fixattn import __version__

    environment = Environment(
        loader=FunctionLoader(_source), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pooled = table.sections(replace(comparison, by_task={}))
    shown = samples(comparison, make_analyser(comparison.settings["analyser"]))
    return environment.get_template("page.html.jinja").render(
        baseline=comparison.baseline,
        n=comparison.n,
        runs=[row.name for row in comparison.rows],
        verdicts=table.verdicts(comparison),
        pooled=pooled,
        by_task=table.sections(comparison)[len(pooled) :],
        settings=table.settings(comparison),
        notes=comparison.notes,
        protocol=_protocol(comparison.records),
        plots=[
            (name, _CAPTIONS[name], Markup(plots.svg(figure, name)))
            for name, figure in (plots.figures(comparison) if drawn is None else drawn).items()
        ],
        samples=shown,
        data=_json(shown.data) if shown else None,
        css=Markup(_source("page.css")),
        script=Markup(_source("page.js")),
        version=__version__,
    )


def _source(name: str) -> str:
    return (files("lmms_fixattn.report") / "page" / name).read_text(encoding="utf-8")


def _json(data: Any) -> Markup:
    """Return JSON for a <script>, which no text in it can end."""
    return Markup(json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))


def _protocol(records: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return what runs recorded of how their answers came about: a line for what all agree in, else one a run."""
    stated: dict[str, dict[str, Any]] = {}
    for run, record in records.items():
        model = record.get("lmms_fixattn", {})
        tasks = {
            f"{task}: {key.replace('_', ' ')}": value[key]
            for task, value in record.get("tasks", {}).items()
            for key in _PROTOCOL
            if value.get(key) is not None
        }
        stated[run] = {key: model[key] for key in _MODEL if model.get(key) is not None} | tasks
    keys = dict.fromkeys(chain.from_iterable(stated.values()))
    found = []
    for key in keys:
        values = {run: _said(of_run[key]) for run, of_run in stated.items() if key in of_run}
        agreed = len(set(values.values())) == 1 and len(values) == len(stated)
        found.append((key, [("", next(iter(values.values())))] if agreed else list(values.items())))
    return found


def _said(value: Any) -> str:
    """Return a setting as a reader would write it: nested settings as name=value."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_said(inner)}" for key, inner in value.items())
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
