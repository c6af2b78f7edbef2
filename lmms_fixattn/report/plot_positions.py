"""Draw where in a caption objects are hallucinated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from lmms_fixattn.report.compare import Comparison
from lmms_fixattn.report.plot_style import GREY, GRID, STYLE, look, settle, short, value
from lmms_fixattn.report.positions import FEWEST, TENTHS
from lmms_fixattn.scoring.bootstrap import Interval

_ACROSS = 4


def position_plot(comparison: Comparison, rates: Mapping[str, Sequence[Interval]]) -> Figure:
    """Draw each run's share of mentions that are hallucinated by tenths of the caption, over the baseline's."""
    base = rates.get(comparison.baseline)
    runs = [row.name for row in comparison.rows if row.name in rates]
    panels = [run for run in runs if run != comparison.baseline] or runs
    down = -(-len(panels) // _ACROSS)
    across = -(-len(panels) // down)
    with mpl.rc_context(STYLE):
        size = (max(6.5, 2.6 * across), 1.0 + max(2.1 * down, 2.4))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        for number, (axes, run) in enumerate(zip(grid.flat, panels, strict=False)):
            if base is not None and run != comparison.baseline:
                _band(axes, base, short(comparison.baseline), color=GREY, marker="o")
            _band(axes, rates[run], short(run), **look(comparison, run))
            axes.set_title(short(run), fontsize=9, loc="left")
            axes.grid(color=GRID, linewidth=0.6)
            axes.tick_params(labelbottom=number + across >= len(panels))
        grid[0, 0].set(xlim=(0, 100), ylim=(0, None))
        figure.supylabel("hallucinated, % of mentions", fontsize=9)
        figure.supxlabel("place, % of the caption", fontsize=9)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(
            handles[:1], labels[:1], loc="outside upper left", frameon=False, fontsize=8, title_fontsize=8,
            alignment="left", title="Bands: 95% intervals. Places in which fewer than "
            f"{FEWEST} captions mention an object are left out.",
        )  # fmt: skip
        return settle(figure)


def _band(axes: Any, rates: Sequence[Interval], label: str, **style: Any) -> None:
    middle = [(place + 0.5) * 100 / TENTHS for place in range(TENTHS)]
    low, high = (np.array([getattr(rate, end) for rate in rates], dtype=float) for end in ("low", "high"))
    axes.fill_between(middle, low, high, color=style["color"], alpha=0.18, linewidth=0)
    axes.plot(middle, [value(rate) for rate in rates], markersize=3, linewidth=1.3, label=label, **style)
