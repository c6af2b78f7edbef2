"""Draw a comparison: hallucination against recall, beyond brevity, and by place in the caption."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from lmms_fixattn.report.compare import Comparison, Row
from lmms_fixattn.report.positions import FEWEST, Positions, Rate, positions
from lmms_fixattn.scoring.bootstrap import Interval
from lmms_fixattn.scoring.chair import Analyser, make_analyser
from lmms_fixattn.scoring.files.reading import FileError

# Okabe and Ito's palette, which colour-blind readers can tell apart; black is the baseline's.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_GREY = "#8a8a8a"
_CHAIR = {"chair_s": "CHAIR_s, % of captions", "chair_i": "CHAIR_i, % of mentions"}
_BEYOND = {"chair_s": "CHAIR_s", "chair_i": "CHAIR_i", "chair_i_unique": "CHAIR_i, each object once"}
_STYLE = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "lmms-fixattn",
    "text.parse_math": False,
}
_LONGEST_NAME = 36


def write_plots(comparison: Comparison, directory: Path, drawn: Mapping[str, Figure] | None = None) -> list[Path]:
    """Write every plot that the comparison has figures for, NAME.png and NAME.svg; return the paths.

    drawn: what figures(comparison) gave, where it has been called. The files are the same bytes for the same
    comparison. The directory is made where it is missing; raises FileError where it cannot be written.
    """
    contents = {
        directory / f"{name}.{suffix}": _bytes(figure, suffix)
        for name, figure in (figures(comparison) if drawn is None else drawn).items()
        for suffix in ("png", "svg")
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, content in contents.items():
            path.write_bytes(content)
    except OSError as error:
        raise FileError(f"{directory}: cannot be written: {error.strerror or error}") from None
    return list(contents)


def figures(comparison: Comparison) -> dict[str, Figure]:
    """Return the plots by name: recall, truncation, position, position_words.

    A comparison of yes/no answers alone has none; one of a few captions has none by place.
    """
    rows = [row for row in comparison.rows if row.captions]
    if not rows:
        return {}
    analyser = make_analyser(comparison.settings["analyser"])
    found = {"recall": recall_plot(comparison)}
    if any(row.vs_truncation is not None for row in rows):
        found["truncation"] = truncation_plot(comparison)
    places = _positions(comparison, analyser)
    for name, unit in (("position", "tenths"), ("position_words", "words")):
        rates: dict[str, Sequence[Rate]] = {run: getattr(place, unit) for run, place in places.items()}
        if any(rate.rate.value is not None for of_run in rates.values() for rate in of_run):
            found[name] = position_plot(comparison, rates, unit)
    return found


def svg(figure: Figure, prefix: str) -> str:
    """Return a figure as an <svg> element for a page, its ids begun with a prefix that keeps them apart there."""
    text = _bytes(figure, "svg").decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' (xmlns(:xlink)?|version)="[^"]*"', "", text)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)


def recall_plot(comparison: Comparison) -> Figure:
    """Draw CHAIR_s and CHAIR_i over recall: every method with both intervals, and the best that the baseline's cuts do.

    Below that curve is better than brevity.
    """
    rows = [row for row in comparison.rows if row.captions]
    with mpl.rc_context(_STYLE):
        # Inches: what the names take beside each panel is not known to a layout engine.
        names = 0.35 + 0.078 * max(len(_short(row.name)) for row in rows)
        left, panel = 0.7, 3.1
        width, height = 2 * (left + panel + names), max(4.4, 1.6 + 0.2 * len(rows))
        figure = Figure(figsize=(width, height))
        for place, (column, label) in enumerate(_CHAIR.items()):
            start = left + place * (left + panel + names)
            axes = figure.add_axes((start / width, 0.85 / height, panel / width, 1 - 1.25 / height))
            if comparison.curve is not None:
                axes.plot(
                    comparison.curve.recall,
                    getattr(comparison.curve, column),
                    color=_GREY,
                    linewidth=1.6,
                    label="curve",
                    zorder=1,
                )
            for row in rows:
                x, y = row.columns["recall"], row.columns[column]
                look = _look(comparison, row)
                axes.errorbar(
                    [_value(x)],
                    [_value(y)],
                    xerr=_reach(x),
                    yerr=_reach(y),
                    fmt=look["marker"],
                    color=look["color"],
                    markersize=6,
                    elinewidth=1,
                    markeredgecolor="white",
                    markeredgewidth=0.6,
                    label=row.name,
                    zorder=3,
                )
            _name_points(axes, rows, column, comparison)
            axes.set(xlabel="recall, % of true objects", ylabel=label, ylim=(0, None), title=label.partition(",")[0])
            axes.grid(color="#e6e6e6", linewidth=0.6)
        if comparison.curve is not None:
            figure.text(
                0.01, 0.02, f"Grey: {_short(comparison.baseline)} cut short, the best way at each recall. "
                "Only below it can be better than saying less. Bars: 95% intervals.", fontsize=8, color="#444444",
            )  # fmt: skip
    return figure


def truncation_plot(comparison: Comparison) -> Figure:
    """Draw each method's CHAIR minus the best of the baseline's cuts at the same recall, with its paired interval."""
    rows = [(row, row.vs_truncation) for row in comparison.rows if row.vs_truncation is not None]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11, 1.4 + 0.32 * len(rows)), layout="constrained")
        panels = figure.subplots(1, 3, sharey=True)
        for axes, (column, label) in zip(panels, _BEYOND.items(), strict=True):
            axes.axvline(0, color="black", linewidth=0.9)
            for place, (row, beyond) in enumerate(rows):
                delta: Interval = getattr(beyond, column)
                look = _look(comparison, row)
                axes.errorbar(
                    [_value(delta)], [place], xerr=_reach(delta), fmt=look["marker"], color=look["color"],
                    markersize=6, elinewidth=1.6, label=row.name,
                )  # fmt: skip
                axes.annotate(
                    f"{_value(delta):+.1f}".replace("-", "−"), (1, place), (4, 0), xycoords=("axes fraction", "data"),
                    textcoords="offset points", va="center", fontsize=8, annotation_clip=False,
                )  # fmt: skip
            axes.set(
                title=label, ylim=(len(rows) - 0.5, -0.5),
                xlabel="points; below 0 is better than brevity",
            )  # fmt: skip
            axes.tick_params(left=axes is panels[0])
            axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
        panels[0].set_yticks(range(len(rows)), [_short(row.name) for row, _ in rows])
        figure.suptitle(f"Against the best cut of {_short(comparison.baseline)} at the same recall", fontsize=10)
        _settle(figure)
    return figure


def position_plot(comparison: Comparison, rates: Mapping[str, Sequence[Rate]], unit: str) -> Figure:
    """Draw the share of mentions that are hallucinated by place in the caption, a panel a method over the baseline.

    unit: of the places, "tenths" of the caption or "words".
    """
    base = rates.get(comparison.baseline)
    rows = [row for row in comparison.rows if row.name in rates]
    panels = [row for row in rows if row.name != comparison.baseline] or rows
    across = min(4, len(panels))
    down = -(-len(panels) // across)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(max(7.5, 2.6 * across), 0.8 + max(2.1 * down, 2.4)), layout="constrained")
        grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for axes, row in zip(grid.flat, panels, strict=False):
            if base is not None and row.name != comparison.baseline:
                _band(axes, base, _GREY, comparison.baseline)
            look = _look(comparison, row)
            _band(axes, rates[row.name], look["color"], row.name, look["marker"])
            axes.set_title(_short(row.name), fontsize=9, loc="left")
            axes.grid(color="#e6e6e6", linewidth=0.6)
            axes.tick_params(labelbottom=True)
        grid[0, 0].set(xlim=(0, 100 if unit == "tenths" else None), ylim=(0, None))
        figure.supylabel("hallucinated, % of mentions", fontsize=9)
        figure.supxlabel("place, % of the caption" if unit == "tenths" else "place, words from the start", fontsize=9)
        note = "" if panels == rows else f"Grey: {_short(comparison.baseline)}. "
        figure.suptitle(
            f"{note}Bands: 95% intervals. Places that fewer than {FEWEST} captions mention objects in are left out.",
            fontsize=8, color="#444444", x=0.01, ha="left",
        )  # fmt: skip
        _settle(figure)
    return figure


def _band(axes: Any, rates: Sequence[Rate], colour: str, label: str, marker: str = "o") -> None:
    middle = [(rate.start + rate.end) / 2 for rate in rates]
    value, low, high = (
        np.array([np.nan if bound is None else bound for bound in bounds], dtype=float)
        for bounds in zip(*((rate.rate.value, rate.rate.low, rate.rate.high) for rate in rates), strict=True)
    )
    axes.fill_between(middle, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(middle, value, color=colour, marker=marker, markersize=3, linewidth=1.3, label=label)


def _name_points(axes: Any, rows: Sequence[Row], column: str, comparison: Comparison) -> None:
    """Write the names in a column beside the axes, in the order of the points' heights, each tied to its point.

    In a column, names cannot collide, however close the points are.
    """
    axes.autoscale_view()
    axes.set_ylim(0, None)
    low, high = axes.get_ylim()
    height = axes.get_position().height * axes.figure.get_figheight() * 72
    spacing = 13 / height
    order = sorted(rows, key=lambda row: _value(row.columns[column]))
    heights = spread([(_value(row.columns[column]) - low) / (high - low) for row in order], spacing)
    for row, place in zip(order, heights, strict=True):
        look = _look(comparison, row)
        axes.plot(
            [1.06], [place], look["marker"], color=look["color"], markersize=5, transform=axes.transAxes, clip_on=False
        )
        axes.annotate(
            _short(row.name),
            (_value(row.columns["recall"]), _value(row.columns[column])),
            (1.09, place),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            weight="bold" if row.name == comparison.baseline else "normal",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": "#bbbbbb",
                "linewidth": 0.6,
                "shrinkA": 10,
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
        )


def spread(wanted: Sequence[float], spacing: float) -> list[float]:
    """Return places in [0, 1], at least spacing apart, in the order of the sorted wanted ones and near to them.

    Where they do not fit, they are spaced evenly.
    """
    if len(wanted) > 1 and spacing * (len(wanted) - 1) > 1:
        return list(np.linspace(0, 1, len(wanted)))
    places = list(wanted)
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + spacing)
    ceiling = 1.0
    for index in reversed(range(len(places))):
        places[index] = min(places[index], ceiling)
        ceiling = places[index] - spacing
    return places


def _positions(comparison: Comparison, analyser: Analyser) -> dict[str, Positions]:
    draws, seed = comparison.settings["draws"], comparison.settings["seed"]
    return {row.name: positions(row.captions, analyser, draws, seed) for row in comparison.rows if row.captions}


def _look(comparison: Comparison, row: Row) -> dict[str, Any]:
    """Return colour and marker of a method, the same in every plot."""
    if row.name == comparison.baseline:
        return {"color": "black", "marker": "*"}
    place = [other.name for other in comparison.rows if other.name != comparison.baseline].index(row.name)
    return {"color": _COLOURS[place % len(_COLOURS)], "marker": _MARKERS[place % len(_MARKERS)]}


def _value(interval: Interval) -> float:
    return math.nan if interval.value is None else interval.value


def _reach(interval: Interval) -> list[list[float]] | None:
    """Return an interval as matplotlib's error: [[below], [above]]."""
    if interval.value is None or interval.low is None or interval.high is None:
        return None
    return [[max(0.0, interval.value - interval.low)], [max(0.0, interval.high - interval.value)]]


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 13]}…{name[-12:]}"


def _settle(figure: Figure) -> None:
    """Lay a figure out once, rather than in every file that it is written to."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def _bytes(figure: Figure, suffix: str) -> bytes:
    out = io.BytesIO()
    metadata: dict[str, None] = {"Software": None} if suffix == "png" else {"Date": None}
    with mpl.rc_context(_STYLE):
        figure.savefig(out, format=suffix, dpi=160, metadata=metadata, facecolor="white")
    return out.getvalue()
