"""A comparison at a glance: one short table of captions and one of POPE, for a terminal and for a paper."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from lmms_fixattn.report.columns import display
from lmms_fixattn.report.compare import Comparison, Row
from lmms_fixattn.report.grids import mark, pope_splits
from lmms_fixattn.report.tables import Table
from lmms_fixattn.scoring.bootstrap import LEVEL, Interval
from lmms_fixattn.scoring.silence import too_silent

_WIDEST = 22
"""Columns of a terminal that a cell may have: longer names are broken."""

_Emphasise = Callable[[str, Row, str], str]
"""(text, row, column) -> the text, marked where the row's difference in that column is worth it."""


def for_terminal(comparison: Comparison) -> list[str]:
    """Return the tables for a terminal; a star marks what differs from the baseline by its paired interval."""

    def starred(text: str, row: Row, name: str) -> str:
        found = _difference(row, name)
        return f"{text}*" if found and mark(found, None) else text

    return [table.text(_WIDEST) for table in _tables(comparison, starred)]


def for_paper(comparison: Comparison) -> list[str]:
    """Return the tables for a paper, as LaTeX with captions and labels.

    Bold is what is better than the baseline by the interval of the paired difference, of CHAIR_s and beyond brevity
    also after Holm's correction over the runs, and of no run that mostly names no object.
    """
    stated, baseline = comparison.settings, comparison.baseline
    notes = f"Brackets: 95% bootstrap intervals over images ({stated['draws']} draws, seed {stated['seed']})."
    if len(comparison.rows) > 1:
        notes += f" Bold: better than {baseline} by the interval of the paired difference"
        several = sum(row.vs_truncation is not None for row in comparison.rows)
        notes += f", CHAIR_s also after Holm over {several} runs." if several > 1 else "."
        if several:
            notes += f" Beyond brevity: CHAIR_s minus that of {baseline}'s captions, best cut to the same recall."
    found = _tables(comparison, lambda text, row, name: f"**{text}**" if _is_better(row, name) else text, ("chair_i",))
    return [table._replace(notes=notes).latex for table in found]


def _tables(comparison: Comparison, emphasise: _Emphasise, more: Sequence[str] = ()) -> list[Table]:
    """Return the two tables; more: columns of captions beside those that a terminal has the width for."""
    alone, baseline = len(comparison.rows) == 1, comparison.baseline
    beside = "interval" if alone else "difference"

    def difference(row: Row, name: str) -> str:
        """Return the difference to the baseline; of the baseline itself its own interval."""
        if row.name == baseline:
            return f"{row.columns[name]:.1f}".partition(" ")[2] if name in row.columns else ""
        found = _difference(row, name)
        return "" if found is None else emphasise(f"{found:+.1f}", row, name)

    def figure(row: Row, name: str) -> str:
        column = row.columns.get(name)
        return emphasise(f"{Interval(column.value):.1f}", row, name) if column else ""

    def cells(row: Row, main: str, names: Iterable[str]) -> list[str]:
        others = (difference(row, name) if name == "beyond" else figure(row, name) for name in names)
        return [figure(row, main), difference(row, main), *others]

    names = {} if alone else {"beyond": "beyond brevity"}
    names |= {**{name: display(name).name for name in (*more, "recall", "words")}, "looped": "loops"}
    found = []
    if any("chair_s" in row.columns for row in comparison.rows):
        title = f"Captions, n = {comparison.n}" + ("" if alone else f"; difference: minus {baseline}")
        lines = [[row.name, *cells(row, "chair_s", names)] for row in comparison.rows]
        found.append(Table(title, ["run", "CHAIR_s", beside, *names.values()], lines, label="tab:hallucination"))
    lines = [
        [split, row.name, *cells(row, f"{column}_accuracy", (f"{column}_f1", f"{column}_yes_ratio"))]
        for split, column in pope_splits(comparison.rows)
        for row in comparison.rows
        if f"{column}_accuracy" in row.columns
    ]
    if lines:
        found.append(Table("POPE", ["split", "run", "accuracy", beside, "F1", "yes %"], lines, label="tab:pope"))
    return found


def _difference(row: Row, name: str) -> Interval | None:
    if name == "beyond":
        return None if row.vs_truncation is None else row.vs_truncation.chair_s
    return row.differences.get(name)


def _is_better(row: Row, name: str) -> bool:
    """Return whether a column is better than the baseline's by its interval, also after Holm, and not by silence."""
    found = _difference(row, name)
    better = "lower" if name == "beyond" else display(name).better
    if found is None or better is None or row.holm.get(name, 0.0) > 1 - LEVEL:
        return False
    silent = not name.startswith("pope_") and too_silent(row.captions)
    return not silent and mark(found, better) == "better"
