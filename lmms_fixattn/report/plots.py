"""The plots of a comparison: beyond brevity, hallucination against recall, POPE, and by place in the caption."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from lmms_fixattn.report.columns import accuracies
from lmms_fixattn.report.compare import Comparison
from lmms_fixattn.report.forms import write_files
from lmms_fixattn.report.plot_forest import pope_plot, truncation_plot
from lmms_fixattn.report.plot_positions import position_plot
from lmms_fixattn.report.plot_recall import recall_plot
from lmms_fixattn.report.plot_style import FORMS, file_of
from lmms_fixattn.report.positions import positions
from lmms_fixattn.scoring.chair import make_analyser


def write_plots(drawn: Mapping[str, Figure], directory: Path) -> list[Path]:
    """Write plots (figures), NAME.png and NAME.svg; return the paths.

    The directory is made where it is missing; raises UserError where it cannot be written.
    """
    contents = {f"{name}.{form}": file_of(figure, form) for name, figure in drawn.items() for form in FORMS}
    return write_files(directory, contents)


def figures(comparison: Comparison) -> dict[str, Figure]:
    """Return the plots by name: truncation, pope, recall and position, those that there are figures for.

    One run alone has only that by place; a few captions have none by place.
    """
    found = {}
    rows = [row for row in comparison.rows if row.captions]
    if any(row.vs_truncation is not None for row in rows):
        found["truncation"] = truncation_plot(comparison)
    if any(accuracies(row.differences) for row in comparison.rows):
        found["pope"] = pope_plot(comparison)
    if len(rows) > 1:
        found["recall"] = recall_plot(comparison)
    analyser = make_analyser(comparison.settings["analyser"])
    draws, seed = comparison.settings["draws"], comparison.settings["seed"]
    rates = {row.name: positions(row.captions, analyser, draws, seed) for row in rows}
    if any(rate.value is not None for of_run in rates.values() for rate in of_run):
        found["position"] = position_plot(comparison, rates)
    return found


def svg(figure: Figure, prefix: str) -> str:
    """Return a figure as an <svg> element for a page, its ids begun with a prefix that keeps them apart there."""
    text = file_of(figure, "svg", "none").decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' (xmlns(:xlink)?|version)="[^"]*"', "", text)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
