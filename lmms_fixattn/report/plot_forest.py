"""Draw differences with their intervals, a line a run: beyond brevity, and POPE's accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from lmms_fixattn.report.columns import accuracies, split_name
from lmms_fixattn.report.compare import Comparison
from lmms_fixattn.report.plot_style import GRID, SOFT, STYLE, look, reach, settle, short, value
from lmms_fixattn.scoring.bootstrap import Interval

_BEYOND = {"chair_s": "CHAIR_s", "chair_i": "CHAIR_i", "chair_i_unique": "CHAIR_i, each object once"}
_GOOD = "#e8f1f8"


class Point(NamedTuple):
    """A run's difference; word: what is written behind its numbers."""

    name: str
    delta: Interval
    color: str
    marker: str = "o"
    word: str = ""


def truncation_plot(comparison: Comparison) -> Figure:
    """Draw each method's CHAIR minus the best of the baseline's cuts at the same recall, with its paired interval."""
    rows = [row for row in comparison.rows if row.vs_truncation is not None]
    panels = {
        title: [Point(row.name, getattr(row.vs_truncation, column), **look(comparison, row.name)) for row in rows]
        for column, title in _BEYOND.items()
    }
    title = f"Beyond brevity: minus the best cut of {short(comparison.baseline)} at the same recall"
    return forest(panels, title, "points; ← better than brevity")


def pope_plot(comparison: Comparison) -> Figure:
    """Draw each method's difference of POPE's accuracy to the baseline, a panel a split."""
    panels: dict[str, list[Point]] = {}
    for row in comparison.rows:
        for name, found in accuracies(row.differences).items():
            panels.setdefault(f"POPE {split_name(name)}".strip(), []).append(
                Point(row.name, found, **look(comparison, row.name))
            )
    title = f"POPE's accuracy minus that of {short(comparison.baseline)}"
    return forest(panels, title, "points; better →", good="above")


def forest(
    panels: dict[str, list[Point]],
    title: str,
    label: str,
    across: int = 3,
    width: float = 2.8,
    good: Literal["below", "above"] = "below",
) -> Figure:
    """Draw panels of differences by their titles, `across` to a row, each so many inches wide.

    The good side of 0 is shaded, and a marker filled where the interval leaves out 0.
    """
    down = -(-len(panels) // across)
    across = -(-len(panels) // down)
    counts = [len(points) for points in panels.values()]
    heights = [max(counts[first : first + across]) + 1.5 for first in range(0, len(counts), across)]
    with mpl.rc_context(STYLE):
        size = (2.6 + width * across, 1.0 + 0.32 * sum(heights))
        figure = Figure(figsize=size, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, rect=(0, 0, 1 - 0.12 / size[0], 1))  # type: ignore[union-attr, call-arg]
        grid = figure.subplots(down, across, squeeze=False, height_ratios=heights, sharex=across == 1)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        for number, (axes, (name, points)) in enumerate(zip(grid.flat, panels.items(), strict=False)):
            _panel(axes, points)
            alone = {"loc": "left", "weight": "bold", "fontsize": 9} if across == 1 and down > 1 else {}
            axes.set_title(name, **alone)
            axes.set_yticks(range(len(points)), [short(point.name) for point in points])
            axes.tick_params(left=False, labelleft=number % across == 0)
            if across > 1 or number == len(panels) - 1:
                axes.set_xlabel(label)
        for axes in figure.axes:
            low, high = axes.get_xlim()
            room = max(0.5, 0.04 * (max(high, 0) - min(low, 0)))
            low, high = min(low, -room), max(high, room)
            axes.axvspan(*((low, 0) if good == "below" else (0, high)), color=_GOOD, linewidth=0, zorder=-1)
            axes.set_xlim(low, high)
        figure.suptitle(f"{title}\nFilled and bold: the 95% interval leaves out 0", fontsize=9, color=SOFT)
        return settle(figure)


def _panel(axes: Any, points: Sequence[Point]) -> None:
    axes.axvline(0, color="black", linewidth=0.9)
    for place, point in enumerate(points):
        told = point.delta.above_zero or point.delta.below_zero
        axes.errorbar(
            [value(point.delta)], [place], xerr=reach(point.delta), fmt=point.marker, color=point.color, markersize=6.5,
            markerfacecolor=point.color if told else "white", elinewidth=2 if told else 1.2, label=point.name,
        )  # fmt: skip
        axes.annotate(
            f"{point.delta.signed}  {point.word}".strip().replace("-", "−"), (1, place), (4, 0),
            xycoords=("axes fraction", "data"), textcoords="offset points", va="center", fontsize=7.5,
            weight="bold" if told else "normal", annotation_clip=False,
        )  # fmt: skip
    axes.set_ylim(len(points) - 0.5, -0.5)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
