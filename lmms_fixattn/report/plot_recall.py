"""Draw hallucination against recall, over the best that cutting the baseline short does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from lmms_fixattn.report.compare import Comparison, Row
from lmms_fixattn.report.plot_style import GREY, GRID, SOFT, STYLE, look, reach, settle, short, value
from lmms_fixattn.scoring.staircase import Staircase
from lmms_fixattn.scoring.truncation import Curve

_CHAIR = {"chair_s": "CHAIR_s, % of captions", "chair_i": "CHAIR_i, % of mentions"}
CURVE, CURVE_BAND = "the baseline cut short, the best way", "its 95% band, point by point"
STEPS, STEPS_BAND = "the best control run", "its 95% band"


def recall_plot(comparison: Comparison) -> Figure:
    """Draw CHAIR_s and CHAIR_i over recall: every run with both intervals, and the best of the baseline's cuts.

    Below that curve is better than brevity. Axes end where the runs' intervals do.
    """
    rows = [row for row in comparison.rows if row.captions]
    longest = max(len(CURVE), *(len(short(row.name)) for row in rows))
    with mpl.rc_context(STYLE):
        size = (8.15 + 0.07 * longest, max(4.0, 1.7 + 0.2 * len(rows)))
        figure = Figure(figsize=size, layout="constrained")
        for axes, (column, label) in zip(figure.subplots(1, 2), _CHAIR.items(), strict=True):
            for row in rows:
                x, y = row.columns["recall"], row.columns[column]
                baseline = row.name == comparison.baseline
                style = look(comparison, row.name)
                axes.errorbar(
                    [value(x)], [value(y)], xerr=reach(x), yerr=reach(y), fmt=style["marker"], color=style["color"],
                    markersize=11 if baseline else 7, elinewidth=1.2, markeredgecolor="white", markeredgewidth=0.6,
                    label=short(row.name), zorder=4 if baseline else 3,
                )  # fmt: skip
            if comparison.curve is not None:
                _curve(axes, comparison.curve, column)
            if comparison.staircase is not None and column == "chair_s":
                _stairs(axes, comparison.staircase)
            axes.set(xlabel="recall, % of true objects →", ylabel=f"← {label}", title=label.partition(",")[0])
            axes.set(xlim=_span(rows, "recall"), ylim=_span(rows, column))
            axes.grid(color=GRID, linewidth=0.6)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        title = "bars: 95% intervals"
        if CURVE in labels:
            title += "\nonly below the curve can be\nbetter than saying less"
        figure.legend(
            handles, labels, loc="outside right center", frameon=False, fontsize=8, labelspacing=0.6,
            title=title, title_fontsize=8, alignment="left",
        )  # fmt: skip
        return settle(figure)


def _curve(axes: Any, curve: Curve, column: str) -> None:
    axes.plot(curve.recall, getattr(curve, column), color=GREY, linewidth=1.6, label=CURVE, zorder=1)
    if curve.chair_s_low:
        low, high = getattr(curve, f"{column}_low"), getattr(curve, f"{column}_high")
        axes.fill_between(curve.recall, low, high, color=GREY, alpha=0.2, linewidth=0, zorder=0, label=CURVE_BAND)


def _stairs(axes: Any, steps: Staircase) -> None:
    """Draw the least CHAIR_s of the control runs at each recall or more, with its band."""
    recall = [0.0, *steps.recall]
    low, height, high = ([values[0], *values] for values in (steps.low, steps.chair_s, steps.high))
    axes.step(recall, height, where="pre", color=SOFT, linewidth=1.2, linestyle="--", label=STEPS, zorder=1)
    axes.fill_between(
        recall, low, high, step="pre", hatch="///", facecolor="none", edgecolor=GRID, zorder=0, label=STEPS_BAND
    )


def _span(rows: Sequence[Row], column: str) -> tuple[float, float]:
    """Return the axis that shows every run's interval of a column, with some room but nothing below 0."""
    found = [row.columns[column] for row in rows]
    ends = [end for one in found for end in (one.value, one.low, one.high) if end is not None]
    room = max(0.08 * (max(ends) - min(ends)), 0.5)
    return max(0.0, min(ends) - room), max(ends) + room
