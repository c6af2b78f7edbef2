"""Draw hallucination against recall, over the best that cutting the baseline short does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lmms_fixattn.report.compare import Comparison, Row
from lmms_fixattn.report.plot_style import GREY, GRID, NARROW, SOFT, STYLE, look, reach, settle, short, value
from lmms_fixattn.scoring.staircase import Staircase
from lmms_fixattn.scoring.truncation import Curve

_CHAIR = {"chair_s": "CHAIR_s, % of captions", "chair_i": "CHAIR_i, % of mentions"}


def recall_plot(comparison: Comparison, narrow: bool = False) -> Figure:
    """Draw CHAIR_s and CHAIR_i over recall: every run with both intervals, and the best of the baseline's cuts.

    Below that curve is better than brevity. Axes end where the runs' intervals do. narrow: the panels one below the
    other, for a telephone.
    """
    rows = [row for row in comparison.rows if row.captions]
    keys = _keys(comparison, rows)
    across, down = (1, 2) if narrow else (2, 1)
    with mpl.rc_context(STYLE):
        beside = 0.0 if narrow else 0.75 + 0.07 * max(len(key.get_label()) for key in keys)
        below = 0.3 + 0.2 * len(keys) if narrow else 0.0
        size = (NARROW, 6.6 + below) if narrow else (7.4 + beside, max(4.0, 0.9 + 0.2 * len(keys)))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(down, across).flat
        for axes, (column, label) in zip(panels, _CHAIR.items(), strict=True):
            if comparison.curve is not None:
                _curve(axes, comparison.curve, column)
            if comparison.staircase is not None and column == "chair_s":
                _stairs(axes, comparison.staircase)
            for row in rows:
                x, y = row.columns["recall"], row.columns[column]
                baseline = row.name == comparison.baseline
                axes.errorbar(
                    [value(x)], [value(y)], xerr=reach(x), yerr=reach(y), fmt=look(comparison, row.name)["marker"],
                    color=look(comparison, row.name)["color"], markersize=11 if baseline else 7, elinewidth=1.2,
                    markeredgecolor="white", markeredgewidth=0.6, label=row.name, zorder=4 if baseline else 3,
                )  # fmt: skip
            axes.set(xlabel="recall, % of true objects →", ylabel=f"← {label}", title=label.partition(",")[0])
            axes.set_xlim(*_span(rows, "recall"))
            axes.set_ylim(*_span(rows, column))
            axes.grid(color=GRID, linewidth=0.6)
            if comparison.curve is not None:
                axes.text(
                    0.98, 0.03, "only below the curve can be\nbetter than saying less",
                    transform=axes.transAxes, ha="right", va="bottom", fontsize=8, style="italic", color=SOFT, zorder=2,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
                )  # fmt: skip
        place = "outside lower left" if narrow else "outside right center"
        drawn = figure.legend(handles=keys, loc=place, frameon=False, fontsize=8, labelspacing=0.6)
        for text in drawn.get_texts():
            if text.get_text() == short(comparison.baseline):
                text.set_fontweight("bold")
        settle(figure)
    return figure


def _curve(axes: Any, curve: Curve, column: str) -> None:
    axes.plot(curve.recall, getattr(curve, column), color=GREY, linewidth=1.6, label="curve", zorder=1)
    if curve.chair_s_low:
        low, high = getattr(curve, f"{column}_low"), getattr(curve, f"{column}_high")
        axes.fill_between(curve.recall, low, high, color=GREY, alpha=0.2, linewidth=0, zorder=0, label="band")


def _stairs(axes: Any, steps: Staircase) -> None:
    """Draw the least CHAIR_s of the control runs at each recall or more, with its band."""
    recall = [0.0, *steps.recall]
    low, height, high = ([values[0], *values] for values in (steps.low, steps.chair_s, steps.high))
    axes.step(recall, height, where="pre", color=SOFT, linewidth=1.2, linestyle="--", label="staircase", zorder=1)
    axes.fill_between(recall, low, high, step="pre", hatch="///", facecolor="none", edgecolor=GRID, zorder=0)


def _keys(comparison: Comparison, rows: Sequence[Row]) -> list[Any]:
    """Return what the markers and lines mean, as a legend's handles."""
    keys: list[Any] = [
        Line2D(
            [], [], linestyle="none", label=short(row.name), marker=look(comparison, row.name)["marker"],
            color=look(comparison, row.name)["color"], markersize=10 if row.name == comparison.baseline else 6,
        )
        for row in rows
    ]  # fmt: skip
    keys.append(Line2D([], [], color="black", linewidth=1, label="bars: 95% intervals"))
    if comparison.curve is not None:
        keys.append(Line2D([], [], color=GREY, linewidth=1.6, label="the baseline cut short, the best way"))
        if comparison.curve.chair_s_low:
            keys.append(Patch(color=GREY, alpha=0.2, linewidth=0, label="its 95% band, point by point"))
    if comparison.staircase is not None:
        keys.append(Line2D([], [], color=SOFT, linewidth=1.2, linestyle="--", label="the best control run"))
        keys.append(Patch(facecolor="none", edgecolor=GREY, hatch="///", linewidth=0, label="its 95% band"))
    return keys


def _span(rows: Sequence[Row], column: str) -> tuple[float, float]:
    """Return the axis that shows every run's interval of a column, with some room but nothing below 0."""
    ends = [
        bound
        for row in rows
        for bound in (row.columns[column].value, row.columns[column].low, row.columns[column].high)
        if bound is not None
    ]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    room = max(0.08 * (high - low), 0.5)
    return max(0.0, low - room), high + room
