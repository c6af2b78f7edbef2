"""The page's tables: figures with their intervals, and under each its difference to the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lmms_fixattn.report.columns import POPE_FIGURES
from lmms_fixattn.report.compare import Comparison, Row
from lmms_fixattn.report.display_names import Display, display
from lmms_fixattn.report.signed import bounds, figure, signed
from lmms_fixattn.scoring.bootstrap import Interval

_OBJECTS = ("chair_s", "chair_i", "chair_i_unique", "recall", "precision", "f1")
_MANNER = ("words", "rep_4", "looped", "unterminated", "seconds", "tokens_per_second")
# Below this a figure is printed as 0.0.
_NOUGHT = 0.05

Mark = Literal["", "better", "worse", "differs"]


@dataclass(frozen=True)
class Cell:
    """A figure and its difference to the baseline, as text; mark: what the difference's interval says where it does."""

    value: str
    bounds: str = ""
    change: str = ""
    change_bounds: str = ""
    mark: Mark = ""


@dataclass(frozen=True)
class Line:
    """A run's cells; part: of what they are, where a table has several; baseline: whether the run is that one."""

    name: str
    cells: tuple[Cell, ...]
    baseline: bool = False
    part: str = ""


@dataclass(frozen=True)
class Grid:
    """One table; remark: what is left out of it."""

    title: str
    header: tuple[Display, ...]
    lines: tuple[Line, ...]
    remark: str = ""


def grids(comparison: Comparison, rows: Sequence[Row] | None = None) -> list[Grid]:
    """Return the tables of a comparison's rows: objects, manner and time, POPE by split, and beyond brevity.

    rows: those of one task; None for the whole comparison's. A column that is 0 in every run is left out and named.
    """
    rows = comparison.rows if rows is None else rows
    known = {*_OBJECTS, *_MANNER, "n"}
    others = dict.fromkeys(name for row in rows for name in row.columns if name not in known and not _is_pope(name))
    found = []
    for title, names in (("Objects", _OBJECTS), ("Manner and time", (*_MANNER, *others))):
        present = [name for name in names if any(name in row.columns for row in rows)]
        empty = [name for name in present if _is_nought(rows, name)]
        if shown := [name for name in present if name not in empty]:
            lines = tuple(_line(comparison, row, shown) for row in rows)
            found.append(Grid(title, tuple(map(display, shown)), lines, _said_of(empty, len(rows))))
        elif empty:
            found.append(Grid(title, (), (), _said_of(empty, len(rows))))
    if answered := _of_pope(comparison, rows):
        found.append(answered)
    beyond = [(row, row.vs_truncation) for row in rows if row.vs_truncation is not None]
    if beyond:
        header = (
            Display("best cut in CHAIR_s"),
            display("chair_s"),
            Display("p after Holm"),
            Display("shown from"),
            display("chair_i"),
            display("chair_i_unique"),
        )
        lines = tuple(
            Line(
                row.name,
                (
                    Cell(control.cut),
                    _beyond(control.chair_s),
                    Cell(f"{row.holm['beyond']:.3f}" if "beyond" in row.holm else ""),
                    Cell("" if control.chair_s.smallest_fall is None else figure(control.chair_s.smallest_fall)),
                    _beyond(control.chair_i),
                    _beyond(control.chair_i_unique),
                ),
            )
            for row, control in beyond
        )
        remark = "Shown from: the gain in CHAIR_s that these images would show in 8 of 10 samples."
        found.append(Grid(f"Beyond brevity: minus the best cut of {comparison.baseline}", header, lines, remark))
    return [*found, *_of_other_controls(rows)]


def _of_other_controls(rows: Sequence[Row]) -> list[Grid]:
    """Return the table of what stands beside the verdict, of the controls that some run has."""
    others = [row for row in rows if row.vs_truncation is not None]
    columns = {
        "length_matched": Display("CHAIR_s, at as many words", "lower"),
        "rate_ratio": Display("unsupported objects a word, × baseline", "lower"),
        "vs_controls": Display("CHAIR_s, beside control runs", "lower"),
    }
    shown = [name for name in columns if any(_held(row, name) is not None for row in others)]
    lines = [Line(row.name, tuple(_control(row, name) for name in shown)) for row in others]
    remark = "None of these decides the verdict. At as many words: minus the baseline cut to the run's mean length."
    return [Grid("Other controls", tuple(columns[name] for name in shown), tuple(lines), remark)] if shown else []


def _held(row: Row, name: str) -> Interval | None:
    found: Interval | None = getattr(row, name)
    return None if found is None or found.value is None else found


def _control(row: Row, name: str) -> Cell:
    found = _held(row, name)
    if found is None or found.value is None:
        return Cell("")
    if name != "rate_ratio":
        return _beyond(found)
    if found.low is None or found.high is None:
        return Cell(f"{found.value:.2f}")
    mark: Mark = "better" if found.high < 1 else "worse" if found.low > 1 else ""
    return Cell(f"{found.value:.2f}", f"[{found.low:.2f}, {found.high:.2f}]", mark=mark)


def _of_pope(comparison: Comparison, rows: Sequence[Row]) -> Grid | None:
    """Return the table of POPE, a line a split and run."""
    figures = ("n", *POPE_FIGURES)
    names = dict.fromkeys(name for row in rows for name in row.columns if _is_pope(name))
    lines = []
    for stem in [name.removesuffix("_accuracy") for name in names if name.endswith("_accuracy")]:
        columns = [f"{stem}_{name}" for name in figures]
        split = stem.removeprefix("pope").strip("_").replace("_", " ")
        lines += [
            replace(_line(comparison, row, columns), part=split) for row in rows if f"{stem}_accuracy" in row.columns
        ]
    return Grid("POPE", tuple(display(f"pope_{name}") for name in figures), tuple(lines)) if lines else None


def _is_pope(column: str) -> bool:
    return column.startswith("pope_")


def _is_nought(rows: Sequence[Row], name: str) -> bool:
    """Return whether a column and its differences are printed as 0.0 in every run; a time never is."""
    if any(name in row.columns and row.columns[name].low is None for row in rows):
        return False
    ends = [
        bound
        for row in rows
        for column in (row.columns.get(name), row.differences.get(name))
        if column is not None
        for bound in (column.value, column.low, column.high)
        if bound is not None
    ]
    return all(abs(bound) < _NOUGHT for bound in ends)


def _said_of(empty: Sequence[str], runs: int) -> str:
    names = ", ".join(display(name).name for name in empty)
    return f"0 in {'every run' if runs > 1 else 'all captions'}, and left out: {names}." if empty else ""


def _line(comparison: Comparison, row: Row, names: Sequence[str]) -> Line:
    return Line(row.name, tuple(_cell(row, name) for name in names), row.name == comparison.baseline)


def _cell(row: Row, name: str) -> Cell:
    column = row.columns.get(name)
    if column is None or column.value is None:
        return Cell("")
    if name == "n" or name.endswith("_n"):
        return Cell(f"{column.value:.0f}")
    if column.low is None or column.high is None:
        return Cell(f"{column.value:.0f}" if column.value >= 100 else f"{column.value:.3g}")
    change = row.differences.get(name)
    if change is None or change.value is None:
        return Cell(figure(column.value), bounds(column))
    if change.value == change.low == change.high == 0:
        return Cell(figure(column.value), bounds(column), "the same")
    told = _difference(change, name)
    return Cell(figure(column.value), bounds(column), told.value, told.bounds, told.mark)


def _beyond(distance: Interval) -> Cell:
    """Return a distance from what saying less gives: above 0 it is not worse, for unequal lengths alone lie there."""
    cell = _difference(distance, "chair_s")
    return replace(cell, mark="differs") if cell.mark == "worse" else cell


def _difference(change: Interval, name: str) -> Cell:
    if change.value is None:
        return Cell("")
    mark: Mark = ""
    if change.above_zero or change.below_zero:
        better = display(name).better
        mark = "differs" if better is None else "better" if change.below_zero == (better == "lower") else "worse"
    return Cell(signed(change.value), bounds(change, sign=True), mark=mark)
