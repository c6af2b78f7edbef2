"""Draw where in a caption objects are hallucinated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lmms_fixattn.report.compare import Comparison
from lmms_fixattn.report.plot_style import GREY, GRID, NARROW, SOFT, STYLE, look, settle, short
from lmms_fixattn.report.positions import FEWEST, Rate


def position_plot(
    comparison: Comparison, rates: Mapping[str, Sequence[Rate]], unit: str, narrow: bool = False
) -> Figure:
    """Draw the share of mentions that are hallucinated by place in the caption, a panel a method over the baseline.

    unit: of the places, "tenths" of the caption or "words".
    """
    base = rates.get(comparison.baseline)
    runs = [row.name for row in comparison.rows if row.name in rates]
    panels = [run for run in runs if run != comparison.baseline] or runs
    most = 2 if narrow else 4
    down = -(-len(panels) // most)
    across = -(-len(panels) // down)
    with mpl.rc_context(STYLE):
        size = (NARROW if narrow else max(6.5, 2.6 * across), 1.0 + max(2.1 * down, 2.4))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        for number, (axes, run) in enumerate(zip(grid.flat, panels, strict=False)):
            if base is not None and run != comparison.baseline:
                _band(axes, base, GREY, comparison.baseline)
            style = look(comparison, run)
            _band(axes, rates[run], style["color"], run, style["marker"])
            axes.set_title(short(run), fontsize=8 if narrow else 9, loc="left")
            axes.grid(color=GRID, linewidth=0.6)
            axes.tick_params(labelbottom=number + across >= len(panels))
        grid[0, 0].set(xlim=(0, 100 if unit == "tenths" else None), ylim=(0, None))
        figure.supylabel("hallucinated, % of mentions", fontsize=9)
        figure.supxlabel("place, % of the caption" if unit == "tenths" else "place, words from the start", fontsize=9)
        keys: list[Any] = [Patch(color=SOFT, alpha=0.18, linewidth=0, label="95% interval")]
        if panels != runs:
            keys.insert(0, Line2D([], [], color=GREY, marker="o", markersize=3, label=short(comparison.baseline)))
        figure.legend(
            handles=keys, loc="outside upper left", ncols=1 if narrow else 2, frameon=False, fontsize=8,
            title=f"Places in which fewer than {FEWEST} captions\nmention an object are left out." if narrow
            else f"Places in which fewer than {FEWEST} captions mention an object are left out.",
            title_fontsize=8, alignment="left",
        )  # fmt: skip
        settle(figure)
    return figure


def _band(axes: Any, rates: Sequence[Rate], colour: str, label: str, marker: str = "o") -> None:
    middle = [(rate.start + rate.end) / 2 for rate in rates]
    value, low, high = (
        np.array([np.nan if bound is None else bound for bound in bounds], dtype=float)
        for bounds in zip(*((rate.rate.value, rate.rate.low, rate.rate.high) for rate in rates), strict=True)
    )
    axes.fill_between(middle, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(middle, value, color=colour, marker=marker, markersize=3, linewidth=1.3, label=label)
