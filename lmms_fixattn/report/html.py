"""Write a comparison as one HTML file: verdicts, tables, plots, captions and answers to browse; it loads nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from lmms_fixattn.errors import UserError
from lmms_fixattn.report import plots
from lmms_fixattn.report.asked import asked
from lmms_fixattn.report.cards import cards
from lmms_fixattn.report.compare import Comparison
from lmms_fixattn.report.grids import grids
from lmms_fixattn.report.samples import samples
from lmms_fixattn.scoring.chair import make_analyser

_CAPTIONS = {
    "truncation": "Beyond brevity: each method minus the best cut of the baseline at the same recall. An interval "
    "below 0 is a gain that saying less does not explain; one above 0 may be nothing but captions of unequal lengths.",
    "pope": "The difference of POPE's accuracy to the baseline, with its interval over images, by kind of question.",
    "recall": "Hallucination against recall; the axes end where the runs do. On the grey curve, the baseline says less "
    "and less, cut in the best way at each recall; a fix that only makes captions shorter lies on it or above.",
    "position": "Where in a caption objects are hallucinated, by tenths of the caption.",
    "position_words": "The same by words from the caption's start.",
}
_FOREST = ("truncation", "pope")
_PROTOCOL = ("version", "prompt", "max_new_tokens", "image_list", "image_list_sha256", "data_sha256")
_MODEL = ("pretrained", "commit", "method", "conversation", "dtype", "attention", "versions")


class _Drawing(NamedTuple):
    """A plot as SVG elements, for a wide and a narrow screen."""

    name: str
    caption: str
    wide: Markup
    narrow: Markup


def write_page(comparison: Comparison, path: Path, drawn: Mapping[str, plots.Plot] | None = None) -> None:
    """Write the page of a comparison.

    Everything is in the file: style, scripts, plots as SVG, pictures that runs logged as data. One browser shows every
    caption with the objects that it mentions, supported, not, or missed, another the yes/no questions with every
    answer. drawn: what plots.figures(comparison) gave, where it has been called. Raises UserError where the file
    cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(comparison, drawn), encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None


def page(comparison: Comparison, drawn: Mapping[str, plots.Plot] | None = None) -> str:
    """Return the page of a comparison as HTML; one run alone is shown without what only a comparison needs."""
    from lmms_fixattn import __version__

    environment = Environment(
        loader=FunctionLoader(_source), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    alone = len(comparison.rows) == 1
    captioned = any(row.captions for row in comparison.rows)
    shown = samples(comparison, make_analyser(comparison.settings["analyser"]))
    questions = asked(comparison)
    drawings = _plots(comparison, drawn)
    below = [plot for plot in drawings if plot.name not in _FOREST]
    browsers = [("captions", shown), ("answers", questions)]
    sections = [
        ("verdicts", "Verdicts", not alone),
        ("figures", "Figures", True),
        ("plots", "Plots", below),
        ("samples", "Captions", shown),
        ("questions", "Answers", questions),
        ("protocol", "Protocol", True),
        ("reading", "How to read", True),
    ]
    return environment.get_template("page.html.jinja").render(
        title=_title(comparison),
        alone=alone,
        baseline=comparison.baseline,
        captioned=captioned,
        nav=[(name, title) for name, title, there in sections if there],
        cards=cards(comparison),
        grids=grids(comparison),
        by_task=[(task, grids(comparison, rows)) for task, rows in comparison.by_task.items()],
        settings=_settings(comparison),
        parser=comparison.settings["parser"],
        notes=comparison.notes,
        protocol=_protocol(comparison.records),
        under_cards=[plot for plot in drawings if plot.name in _FOREST],
        plots=below,
        samples=shown,
        asked=questions,
        data=[(f"{name}-data", _json(browser.data)) for name, browser in browsers if browser is not None],
        css=Markup(_source("page.css")),
        scripts=[
            Markup(_source(f"{name}.js"))
            for name, browser in [("dom", shown or questions), *browsers]
            if browser is not None
        ],
        version=__version__,
    )


def _title(comparison: Comparison) -> str:
    others = len(comparison.rows) - 1
    if not others:
        return comparison.baseline
    return f"{others} run{'s' if others > 1 else ''} against {comparison.baseline}"


def _settings(comparison: Comparison) -> str:
    """Return in one line what all figures rest on."""
    stated = comparison.settings
    captioned = any(row.captions for row in comparison.rows)
    parts = [
        f"{comparison.n} {'images' if captioned else 'answers'}",
        f"{100 * stated['level']:.0f}% bootstrap intervals over images",
        f"{stated['draws']} draws, seed {stated['seed']}",
    ]
    if captioned:
        parts.append(f"analyser {stated['analyser']}")
    if comparison.answers:
        parts.append(f"POPE parser {stated['parser']}")
    return "; ".join(parts)


def _plots(comparison: Comparison, drawn: Mapping[str, plots.Plot] | None) -> list[_Drawing]:
    return [
        _Drawing(
            name,
            _CAPTIONS[name],
            Markup(plots.svg(plot.wide, name)),
            Markup(plots.svg(plot.narrow, f"narrow-{name}")),
        )
        for name, plot in (plots.figures(comparison) if drawn is None else drawn).items()
    ]


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
