"""Write a comparison as one HTML file: verdicts, tables, plots, captions and answers to browse; it loads nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from lmms_fixattn import __version__
from lmms_fixattn.report import plots, samples
from lmms_fixattn.report.cards import cards
from lmms_fixattn.report.compare import Comparison
from lmms_fixattn.report.forms import settings, write_files
from lmms_fixattn.report.grids import grids
from lmms_fixattn.report.recorded import written
from lmms_fixattn.scoring.chair import make_analyser

_CAPTIONS = {
    "truncation": "Beyond brevity: each method minus the best cut of the baseline at the same recall. An interval "
    "below 0 is a gain that saying less does not explain; one above 0 may be nothing but captions of unequal lengths.",
    "pope": "The difference of POPE's accuracy to the baseline, with its interval over images, by kind of question.",
    "recall": "Hallucination against recall; the axes end where the runs do. On the grey curve, the baseline says less "
    "and less, cut in the best way at each recall; a fix that only makes captions shorter lies on it or above.",
    "position": "Where in a caption objects are hallucinated, by tenths of the caption.",
}
_FOREST = ("truncation", "pope")
_PROTOCOL = ("version", "prompt", "max_new_tokens", "image_list", "image_list_sha256", "data_sha256")
_MODEL = ("pretrained", "commit", "method", "conversation", "dtype", "attention", "versions")


def write_page(comparison: Comparison, path: Path, drawn: Mapping[str, Figure] | None = None) -> None:
    """Write the page of a comparison.

    Everything is in the file: style, scripts, plots as SVG, pictures that runs logged as data. One browser shows every
    caption with the objects that it mentions, supported, not, or missed, another the yes/no questions with every
    answer. drawn: what plots.figures(comparison) gave, where it has been called. Raises UserError where the file
    cannot be written.
    """
    write_files(path.parent, {path.name: page(comparison, drawn).encode(errors="replace")})


def page(comparison: Comparison, drawn: Mapping[str, Figure] | None = None) -> str:
    """Return the page of a comparison as HTML; one run alone is shown without what only a comparison needs."""
    environment = Environment(
        loader=FunctionLoader(_source), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["minus"] = lambda text: re.sub(r"(?<![\w.])-(?=\d)", "−", text)
    others = len(comparison.rows) - 1
    drawn = plots.figures(comparison) if drawn is None else drawn
    figures = [(name, _CAPTIONS[name], Markup(plots.svg(figure, name))) for name, figure in drawn.items()]
    browsed = {
        "captions": samples.captions(comparison, make_analyser(comparison.settings["analyser"])),
        "answers": samples.answers(comparison),
    }
    return environment.get_template("page.html.jinja").render(
        title=f"{others} run{'s' * (others > 1)} against {comparison.baseline}" if others else comparison.baseline,
        alone=not others,
        baseline=comparison.baseline,
        captioned=browsed["captions"] is not None,
        cards=cards(comparison),
        grids=grids(comparison),
        by_task=[(task, grids(comparison, rows)) for task, rows in comparison.by_task.items()],
        settings=settings(comparison),
        parser=comparison.settings["parser"],
        notes=comparison.notes,
        protocol=_protocol(comparison.records),
        under_cards=[figure for figure in figures if figure[0] in _FOREST],
        plots=[figure for figure in figures if figure[0] not in _FOREST],
        css=Markup(_source("page.css")),
        browsed=[
            (name, _json(data), Markup(_source(f"{name}.js"))) for name, data in browsed.items() if data is not None
        ],
        script=Markup(_source("dom.js")),
        version=__version__,
        **browsed,
    )


def _source(name: str) -> str:
    return (files(__package__) / "page" / name).read_text(encoding="utf-8")


def _json(data: dict[str, Any]) -> Markup:
    """Return data for a script element, in which "<" could end it."""
    return Markup(json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))


def _protocol(records: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return what runs recorded of how their answers came about: a line for what all agree in, else one a run."""
    stated: dict[str, dict[str, str]] = {}
    for run, record in records.items():
        model = record.get("lmms_fixattn", {})
        for key in _MODEL:
            stated.setdefault(key, {})[run] = written(model.get(key))
        for task, protocol in record.get("tasks", {}).items():
            for key in _PROTOCOL:
                stated.setdefault(f"{task}: {key.replace('_', ' ')}", {})[run] = written(protocol.get(key))
    found = []
    for key, of_runs in stated.items():
        values = {run: value for run, value in of_runs.items() if value != written(None)}
        agreed = len(set(values.values())) == 1 and len(values) == len(records)
        if values:
            found.append((key, [("", next(iter(values.values())))] if agreed else list(values.items())))
    return found
