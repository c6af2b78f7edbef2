"""What the plots share: style, a look for every run, names that fit, and how they become files."""

from __future__ import annotations

import io
import math
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.figure import Figure

from lmms_fixattn.report.compare import Comparison
from lmms_fixattn.scoring.bootstrap import Interval

# Okabe and Ito's palette, which colour-blind readers can tell apart; black is the baseline's.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
GREY, GRID, SOFT = "#8a8a8a", "#e6e6e6", "#444444"
STYLE = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "lmms-fixattn",
    "text.parse_math": False,
}
Form = Literal["png", "svg"]
FORMS: tuple[Form, ...] = ("png", "svg")
_LONGEST_NAME = 36


def look(comparison: Comparison, run: str) -> dict[str, Any]:
    """Return colour and marker of a run, the same in every plot."""
    if run == comparison.baseline:
        return {"color": "black", "marker": "*"}
    place = [row.name for row in comparison.rows if row.name != comparison.baseline].index(run)
    return {"color": _COLOURS[place % len(_COLOURS)], "marker": _MARKERS[place % len(_MARKERS)]}


def value(interval: Interval) -> float:
    """Return an interval's value, not-a-number where there is none."""
    return math.nan if interval.value is None else interval.value


def reach(interval: Interval) -> list[list[float]] | None:
    """Return an interval as matplotlib's error: [[below], [above]]."""
    if interval.value is None or interval.low is None or interval.high is None:
        return None
    return [[max(0.0, interval.value - interval.low)], [max(0.0, interval.high - interval.value)]]


def short(name: str) -> str:
    """Return a name with its middle left out where it is long."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 13]}…{name[-12:]}"


def settle(figure: Figure) -> Figure:
    """Lay a figure out once, rather than in every file that it is written to."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def file_of(figure: Figure, form: Form, background: str = "white", dpi: int = 160, **metadata: str) -> bytes:
    """Return a figure as a file, the same bytes for the same figure."""
    out = io.BytesIO()
    undated: dict[str, str | None] = {"Software" if form == "png" else "Date": None}
    more: dict[str, Any] = {"pil_kwargs": {"optimize": True}} if form == "png" else {}
    with mpl.rc_context(STYLE):
        figure.savefig(out, format=form, dpi=dpi, metadata=undated | metadata, facecolor=background, **more)
    return out.getvalue()
