"""The plots of a comparison: beyond brevity, hallucination against recall, POPE, and by place in the caption."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from lmms_fixattn.errors import UserError
from lmms_fixattn.report.compare import Comparison
from lmms_fixattn.report.plot_forest import has_pope, pope_plot, truncation_plot
from lmms_fixattn.report.plot_positions import position_plot
from lmms_fixattn.report.plot_recall import recall_plot
from lmms_fixattn.report.plot_style import STYLE
from lmms_fixattn.report.positions import Rate, positions
from lmms_fixattn.scoring.chair import make_analyser


class Plot(NamedTuple):
    """One plot, for a wide screen or paper, and for a telephone's screen."""

    wide: Figure
    narrow: Figure


def write_plots(comparison: Comparison, directory: Path, drawn: Mapping[str, Plot] | None = None) -> list[Path]:
    """Write every plot that the comparison has figures for, NAME.png and NAME.svg; return the paths.

    drawn: what figures(comparison) gave, where it has been called. The files are the same bytes for the same
    comparison. The directory is made where it is missing; raises UserError where it cannot be written.
    """
    contents = {
        directory / f"{name}.{suffix}": _bytes(plot.wide, suffix)
        for name, plot in (figures(comparison) if drawn is None else drawn).items()
        for suffix in ("png", "svg")
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, content in contents.items():
            path.write_bytes(content)
    except OSError as error:
        raise UserError(f"{directory}: cannot be written: {error.strerror or error}") from None
    return list(contents)


def figures(comparison: Comparison) -> dict[str, Plot]:
    """Return the plots by name: truncation, pope, recall, position, position_words, those that there are figures for.

    One run alone has only those by place; a few captions have none by place.
    """
    draw: dict[str, Callable[[bool], Figure]] = {}
    rows = [row for row in comparison.rows if row.captions]
    if any(row.vs_truncation is not None for row in rows):
        draw["truncation"] = partial(truncation_plot, comparison)
    if has_pope(comparison):
        draw["pope"] = partial(pope_plot, comparison)
    if len(rows) > 1:
        draw["recall"] = partial(recall_plot, comparison)
    analyser = make_analyser(comparison.settings["analyser"])
    draws, seed = comparison.settings["draws"], comparison.settings["seed"]
    places = {row.name: positions(row.captions, analyser, draws, seed) for row in rows}
    for name, unit in (("position", "tenths"), ("position_words", "words")):
        rates: dict[str, Sequence[Rate]] = {run: getattr(place, unit) for run, place in places.items()}
        if any(rate.rate.value is not None for of_run in rates.values() for rate in of_run):
            draw[name] = partial(position_plot, comparison, rates, unit)
    return {name: Plot(drawn(False), drawn(True)) for name, drawn in draw.items()}


def svg(figure: Figure, prefix: str) -> str:
    """Return a figure as an <svg> element for a page, its ids begun with a prefix that keeps them apart there."""
    text = _bytes(figure, "svg", "none").decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' (xmlns(:xlink)?|version)="[^"]*"', "", text)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)


def _bytes(figure: Figure, suffix: str, background: str = "white") -> bytes:
    out = io.BytesIO()
    metadata: dict[str, None] = {"Software": None} if suffix == "png" else {"Date": None}
    with mpl.rc_context(STYLE):
        figure.savefig(out, format=suffix, dpi=160, metadata=metadata, facecolor=background)
    return out.getvalue()
