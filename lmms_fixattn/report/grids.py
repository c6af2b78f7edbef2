"""Every figure of a comparison in tables: with its interval, and its paired difference to the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lmms_fixattn.report.columns import POPE_FIGURES, Display, display, split_name
from lmms_fixattn.report.compare import Comparison, Row
from lmms_fixattn.report.controls import BESIDE
from lmms_fixattn.report.tables import Table
from lmms_fixattn.scoring.bootstrap import Interval
from lmms_fixattn.scoring.figures import Better

_OBJECTS = ("chair_s", "chair_i", "chair_i_unique", "recall", "precision", "f1")
_MANNER = ("words", "rep_4", "looped", "unterminated", "seconds", "tokens_per_second")
# Below this a figure is printed as 0.0.
_ZERO = 0.05

Mark = Literal["", "better", "worse", "differs"]


@dataclass(frozen=True)
class Cell:
    """A figure and its difference to the baseline, as text; mark: what the difference's interval says where it does."""

    value: str
    change: str = ""
    mark: Mark = ""


@dataclass(frozen=True)
class Line:
    """A run's cells; baseline: whether the run is that one."""

    name: str
    cells: tuple[Cell, ...]
    baseline: bool = False


@dataclass(frozen=True)
class Grid:
    """One table; remark: what is left out of it."""

    title: str
    header: tuple[Display, ...]
    lines: tuple[Line, ...]
    remark: str = ""


def grids(comparison: Comparison, rows: Sequence[Row] | None = None) -> list[Grid]:
    """Return the tables of a comparison's rows: objects, manner and time, POPE by split, beyond brevity, controls.

    rows: those of one task; None for the whole comparison's. A column that is 0 in every run is left out and named,
    unless all of a table are.
    """
    rows = comparison.rows if rows is None else rows
    others = dict.fromkeys(name for row in rows for name in row.columns if name != "n" and not name.startswith("pope_"))
    manner = dict.fromkeys([*_MANNER, *(name for name in others if name not in _OBJECTS)])
    found = []
    for title, names in (("Objects", _OBJECTS), ("Manner and time", manner)):
        present = [name for name in names if any(name in row.columns for row in rows)]
        empty = [name for name in present if _is_zero(rows, name)]
        if len(empty) == len(present):
            empty = []
        shown = [name for name in present if name not in empty]
        remark = f"0 throughout, and left out: {', '.join(display(name).name for name in empty)}." if empty else ""
        if shown:
            lines = tuple(_line(comparison, row, shown) for row in rows)
            found.append(Grid(title, tuple(map(display, shown)), lines, remark))
    columns = ("n", *POPE_FIGURES)
    answered = [
        replace(line, name=f"{split}: {row.name}" if split else row.name)
        for split, column in pope_splits(rows)
        for row in rows
        if f"{column}_accuracy" in row.columns
        for line in [_line(comparison, row, [f"{column}_{name}" for name in columns])]
    ]
    if answered:
        found.append(Grid("POPE", tuple(display(f"pope_{name}") for name in columns), tuple(answered)))
    return found + _of_controls(comparison, [row for row in rows if row.vs_truncation is not None])


def pope_splits(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return (name, what its columns begin with) of the POPE splits that any row has answers of."""
    names = dict.fromkeys(name for row in rows for name in row.columns if name.startswith("pope_"))
    return [(split_name(name), name.removesuffix("_accuracy")) for name in names if name.endswith("_accuracy")]


def tables(comparison: Comparison, rows: Sequence[Row] | None = None, where: str = "") -> list[Table]:
    """Return the grids as text: each has a table of figures, and one of the differences to the baseline if any."""
    found = []
    for grid in grids(comparison, rows):
        header = ("run", *(column.header for column in grid.header))
        figures = [(line.name, *(cell.value for cell in line.cells)) for line in grid.lines]
        found.append(Table(f"{grid.title}{where}", header, figures, grid.remark))
        changes = [(line.name, *(cell.change for cell in line.cells)) for line in grid.lines]
        known = [place for place in range(len(header)) if any(line[place] for line in changes)]
        lines = [[line[place] for place in known] for line in changes if any(line[1:])]
        if lines:
            title = f"{grid.title}{where}, minus {comparison.baseline}"
            found.append(Table(title, [header[place] for place in known], lines))
    return found


def _of_controls(comparison: Comparison, rows: Sequence[Row]) -> list[Grid]:
    """Return what runs with captions do beside the controls: the one that decides the verdict, and the others."""
    beyond = [(row, row.vs_truncation) for row in rows if row.vs_truncation is not None]
    if not beyond:
        return []
    header = [Display("best cut in CHAIR_s"), display("chair_s"), Display("Holm p"), Display("shown from")]
    lines = [
        Line(
            row.name,
            (
                Cell(control.cut),
                _beside(control.chair_s),
                Cell(f"{row.holm['beyond']:.3f}" if "beyond" in row.holm else ""),
                Cell(f"{control.chair_s.smallest_fall or 0.0:.1f}"),
                _beside(control.chair_i),
                _beside(control.chair_i_unique),
            ),
        )
        for row, control in beyond
    ]
    title = f"Beyond brevity: minus the best cut of {comparison.baseline} at the same recall"
    remark = "Shown from: the gain in CHAIR_s that these images would show in 8 of 10 samples."
    columns = (*header, display("chair_i"), display("chair_i_unique"))
    found = [Grid(title, columns, tuple(lines), remark)]
    held = {name: [getattr(row, name) for row in rows] for name in BESIDE}
    if shown := [name for name, of_rows in held.items() if any(one and one.value is not None for one in of_rows)]:
        lines = [Line(row.name, tuple(_control(row, name) for name in shown)) for row in rows]
        remark = (
            "None of these decides the verdict. Length-matched: CHAIR_s minus that of the baseline cut to as many "
            "words; rate ratio: unsupported objects for one of the baseline's, at equal length; vs control runs: "
            "CHAIR_s minus the best control run's at the same recall."
        )
        found.append(Grid("Further controls", tuple(BESIDE[name] for name in shown), tuple(lines), remark))
    return found


def _control(row: Row, name: str) -> Cell:
    return _beside(getattr(row, name), *((".2f", 1.0) if name == "rate_ratio" else ("+.1f", 0.0)))


def _beside(found: Interval | None, form: str = "+.1f", same: float = 0.0) -> Cell:
    """Return a distance from a control. Above it is not worse: captions of unequal lengths alone lie there."""
    if found is None or found.value is None:
        return Cell("-")
    below, above = found.high is not None and found.high < same, found.low is not None and found.low > same
    return Cell(format(found, form), mark="better" if below else "differs" if above else "")


def _is_zero(rows: Sequence[Row], name: str) -> bool:
    """Return whether a column and its differences are printed as 0.0 in every run; a time never is."""
    found = [column for row in rows for column in (row.columns.get(name), row.differences.get(name)) if column]
    ends = [end for column in found for end in (column.value, column.low, column.high)]
    return None not in ends and all(abs(end or 0.0) < _ZERO for end in ends)


def _line(comparison: Comparison, row: Row, names: Sequence[str]) -> Line:
    return Line(row.name, tuple(_cell(row, name) for name in names), row.name == comparison.baseline)


def _cell(row: Row, name: str) -> Cell:
    column, change = row.columns.get(name), row.differences.get(name)
    if column is None or column.value is None:
        return Cell("")
    if column.low is None:  # a count or a time
        return Cell(f"{column.value:.0f}" if column.value >= 100 else f"{column.value:.3g}")
    if change is None or change.value is None:
        return Cell(f"{column:.1f}")
    return Cell(f"{column:.1f}", f"{change:+.1f}", mark(change, display(name).better))


def mark(change: Interval, better: Better | None) -> Mark:
    """Return what a difference's interval says: "" where it holds 0, "differs" where neither way is good by itself."""
    if not (change.above_zero or change.below_zero):
        return ""
    return "differs" if better is None else "better" if change.below_zero == (better == "lower") else "worse"
