"""Draw differences with their intervals, a line a run: beyond brevity, and POPE's accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from lmms_fixattn.report.compare import Comparison
from lmms_fixattn.report.plot_style import GRID, NARROW, SOFT, STYLE, look, reach, settle, short, value
from lmms_fixattn.report.signed import bounds, signed
from lmms_fixattn.scoring.bootstrap import Interval

_BEYOND = {"chair_s": "CHAIR_s", "chair_i": "CHAIR_i", "chair_i_unique": "CHAIR_i, each object once"}
_GOOD = "#e8f1f8"
Panel = tuple[str, list[tuple[str, Interval]]]
"""A title, and (run, difference) from above to below."""


def truncation_plot(comparison: Comparison, narrow: bool = False) -> Figure:
    """Draw each method's CHAIR minus the best of the baseline's cuts at the same recall, with its paired interval."""
    rows = [(row.name, row.vs_truncation) for row in comparison.rows if row.vs_truncation is not None]
    panels = [(title, [(run, getattr(beyond, column)) for run, beyond in rows]) for column, title in _BEYOND.items()]
    title = f"Beyond brevity: minus the best cut of {short(comparison.baseline)} at the same recall"
    return _forest(comparison, panels, title, "below", "better than brevity", narrow)


def pope_plot(comparison: Comparison, narrow: bool = False) -> Figure:
    """Draw each method's difference of POPE's accuracy to the baseline, a panel a split."""
    columns = dict.fromkeys(name for row in comparison.rows for name in row.differences if _is_accuracy(name))
    panels = [
        (
            f"POPE {column.removeprefix('pope').removesuffix('accuracy').strip('_').replace('_', ' ')}".strip(),
            [(row.name, row.differences[column]) for row in comparison.rows if column in row.differences],
        )
        for column in columns
        if any(_some(row.differences.get(column)) for row in comparison.rows)
    ]
    title = f"POPE's accuracy minus that of {short(comparison.baseline)}"
    return _forest(comparison, panels, title, "above", "better", narrow)


def has_pope(comparison: Comparison) -> bool:
    """Return whether there is a difference of POPE's accuracy to draw: one that is not 0 in every draw."""
    return any(
        _is_accuracy(name) and _some(found) for row in comparison.rows for name, found in row.differences.items()
    )


def _some(difference: Interval | None) -> bool:
    return difference is not None and not difference.value == difference.low == difference.high == 0


def _is_accuracy(column: str) -> bool:
    return column.startswith("pope_") and column.endswith("accuracy")


def _forest(
    comparison: Comparison, panels: Sequence[Panel], title: str, good_side: str, good: str, narrow: bool
) -> Figure:
    """Draw panels of differences: the good side of 0 shaded, markers filled where the interval leaves out 0."""
    most = max(len(lines) for _, lines in panels)
    down = len(panels) if narrow else -(-len(panels) // 3)
    across = -(-len(panels) // down)
    width = NARROW if narrow else 2.6 + 2.8 * across
    height = 0.7 + down * (0.8 + (0.46 if narrow else 0.32) * most)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, rect=(0, 0, 1 - 0.12 / width, 1))  # type: ignore[union-attr, call-arg]
        grid = figure.subplots(down, across, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        for number, (axes, (name, lines)) in enumerate(zip(grid.flat, panels, strict=False)):
            _panel(axes, comparison, lines, narrow)
            axes.set(title=name, xlabel=f"points; ← {good}" if good_side == "below" else f"points; {good} →")
            named = number % across == 0 and not narrow
            axes.set_yticks(range(len(lines)), [short(run) for run, _ in lines] if named else [])
            axes.tick_params(left=named)
            low, high = axes.get_xlim()
            axes.axvspan(*((low, 0) if good_side == "below" else (0, high)), color=_GOOD, linewidth=0, zorder=-1)
            axes.set_xlim(low, high)
        told = "Filled and bold: the 95% interval leaves out 0"
        figure.suptitle(f"{title}\n{told}", fontsize=8 if narrow else 9, color=SOFT, wrap=narrow)
        settle(figure)
    return figure


def _panel(axes: Any, comparison: Comparison, lines: Sequence[tuple[str, Interval]], narrow: bool) -> None:
    axes.axvline(0, color="black", linewidth=0.9)
    for place, (run, delta) in enumerate(lines):
        told = delta.above_zero or delta.below_zero
        style = look(comparison, run)
        axes.errorbar(
            [value(delta)], [place], xerr=reach(delta), fmt=style["marker"], color=style["color"], markersize=6.5,
            markerfacecolor=style["color"] if told else "white", elinewidth=2 if told else 1.2, label=run,
        )  # fmt: skip
        axes.annotate(
            f"{signed(value(delta))} {bounds(delta, sign=True)}", (1, place), (4, 0),
            xycoords=("axes fraction", "data"), textcoords="offset points", va="center", fontsize=7.5,
            weight="bold" if told else "normal", annotation_clip=False,
        )  # fmt: skip
        if narrow:
            axes.annotate(
                short(run), (0, place), (3, 8), xycoords=("axes fraction", "data"), textcoords="offset points",
                va="center", fontsize=8, annotation_clip=False,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
            )  # fmt: skip
    low, high = axes.get_xlim()
    room = max(0.5, 0.04 * (max(high, 0) - min(low, 0)))
    axes.set(ylim=(len(lines) - 0.5, -0.75 if narrow else -0.5), xlim=(min(low, -room), max(high, room)))
    axes.grid(axis="x", color=GRID, linewidth=0.6)
