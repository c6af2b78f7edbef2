"""A comparison at a glance: one short table of captions and one of POPE, for a terminal and for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lmms_fixattn.report.compare import Comparison, Row
from lmms_fixattn.report.latex import escaped, latex_table
from lmms_fixattn.report.terminal import table
from lmms_fixattn.scoring.bootstrap import LEVEL, Interval
from lmms_fixattn.scoring.figures import CAPTION_FIGURES
from lmms_fixattn.scoring.silence import too_silent

_NAME = 20


class Split(NamedTuple):
    """A POPE split: what readers call it, and what its columns begin with."""

    name: str
    column: str


def splits(rows: Sequence[Row]) -> list[Split]:
    """Return the POPE splits that any row has answers of."""
    columns = dict.fromkeys(name for row in rows for name in row.columns if name.startswith("pope_"))
    found = [name.removesuffix("_accuracy") for name in columns if name.endswith("_accuracy")]
    return [Split(column.removeprefix("pope").strip("_").replace("_", " "), column) for column in found]


def terminal_tables(comparison: Comparison) -> list[str]:
    """Return the tables for a terminal, within its columns; names that are longer than 20 are broken.

    A star marks what differs from the baseline by its paired interval.
    """
    rows, baseline = comparison.rows, comparison.baseline
    alone = len(rows) == 1
    found = []
    if any("chair_s" in row.columns for row in rows):
        header = ["run", "CHAIR_s", "difference", "beyond brevity", "recall", "words", "loops"]
        lines = []
        for row in rows:
            beyond = row.vs_truncation
            lines.append(
                [
                    row.name,
                    _value(row.columns.get("chair_s")),
                    _range(row.columns.get("chair_s")) if row.name == baseline else _difference(row, "chair_s"),
                    "" if beyond is None else _marked(beyond.chair_s.signed, beyond.chair_s),
                    *(
                        _marked(_value(row.columns.get(n)), row.differences.get(n))
                        for n in ("recall", "words", "looped")
                    ),
                ]
            )
        if alone:
            header[2:4], lines = ["interval"], [[*line[:3], *line[4:]] for line in lines]
        title = f"captions, n = {comparison.n}" + ("" if alone else f"; difference: minus {baseline}")
        found.append(f"{title}\n{_simple(header, lines)}")
    lines = [
        [
            split.name,
            row.name,
            _value(row.columns[f"{split.column}_accuracy"]),
            _range(row.columns[f"{split.column}_accuracy"])
            if row.name == baseline
            else _difference(row, f"{split.column}_accuracy"),
            _marked(_value(row.columns.get(f"{split.column}_f1")), row.differences.get(f"{split.column}_f1")),
            _value(row.columns.get(f"{split.column}_yes_ratio")),
        ]
        for split in splits(rows)
        for row in rows
        if f"{split.column}_accuracy" in row.columns
    ]
    if lines:
        header = ["POPE", "run", "accuracy", "interval" if alone else "difference", "F1", "yes %"]
        found.append(_simple(header, lines))
    return found


def legend(comparison: Comparison) -> str:
    """Return what the marks of the terminal's tables mean."""
    return (
        f"* the {100 * LEVEL:.0f}% interval of the difference to {comparison.baseline} (or beyond brevity) excludes 0"
    )


def paper_tables(comparison: Comparison) -> list[str]:
    """Return the tables for a paper, as LaTeX with captions and labels.

    Bold is what is better than the baseline by the interval of the paired difference, of CHAIR_s and beyond brevity
    also after Holm's correction over the runs.
    """
    rows, baseline, stated = comparison.rows, escaped(comparison.baseline), comparison.settings
    intervals = f"95\\% bootstrap intervals over images ({stated['draws']} draws, seed {stated['seed']})"
    bold = f"Bold: better than {baseline} by the interval of the paired difference"
    found = []
    if any("chair_s" in row.columns for row in rows):
        headings = [
            "",
            "CHAIR$_s\\downarrow$",
            "CHAIR$_i\\downarrow$",
            "Recall$\\uparrow$",
            "Words",
            "Loops$\\downarrow$",
        ]
        beyond = any(row.vs_truncation for row in rows)
        lines = []
        for row in rows:
            names = ("chair_i", "recall", "words", "looped")
            line = [escaped(row.name), _with_range(row.columns.get("chair_s"), _holds(row, "chair_s"))]
            line += [_bold(_value(row.columns.get(name)), _holds(row, name)) for name in names]
            if beyond:
                of_row = row.vs_truncation
                line.append("" if of_row is None else _with_range(of_row.chair_s, _beats_brevity(row), "+"))
            lines.append(line)
        caption = f"Object hallucination in {comparison.n} captions; brackets: {intervals}"
        if len(rows) > 1:
            caption += f". {bold}"
        if beyond:
            headings.append("Beyond brevity$\\downarrow$")
            several = sum(row.vs_truncation is not None for row in rows)
            caption += f", CHAIR$_s$ also after Holm over {several} runs" if several > 1 else ""
            caption += f". Beyond brevity: CHAIR$_s$ minus that of {baseline}'s captions, best cut to the same recall"
        found.append(latex_table(headings, lines, f"{caption}.", "tab:hallucination"))
    if of_rows := splits(rows):
        several = len(of_rows) > 1
        headings = ["", *(f"{escaped(split.name)} acc.$\\uparrow$".strip() for split in of_rows)]
        headings += [f"{escaped(split.name)} yes".strip() for split in of_rows] if several else ["F1$\\uparrow$", "yes"]
        lines = []
        for row in rows:
            line = [escaped(row.name)]
            for split in of_rows:
                name = f"{split.column}_accuracy"
                line.append(_with_range(row.columns.get(name), _above(row.differences.get(name))))
            figures = [f"{split.column}_yes_ratio" for split in of_rows]
            figures = figures if several else [f"{of_rows[0].column}_f1", *figures]
            lines.append(line + [_value(row.columns.get(name)) for name in figures])
        caption = f"POPE: accuracy and answers read as yes, in percent; brackets: {intervals}"
        found.append(
            latex_table(headings, lines, f"{caption}. {bold}." if len(rows) > 1 else f"{caption}.", "tab:pope")
        )
    return found


def _simple(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return table(header, lines, [_NAME if title in ("run", "POPE") else None for title in header])


def _value(found: Interval | None) -> str:
    return "" if found is None or found.value is None else f"{round(found.value, 1) + 0.0:.1f}"


def _range(found: Interval | None) -> str:
    if found is None or found.low is None or found.high is None:
        return ""
    return f"     [{found.low:.1f}, {found.high:.1f}]"


def _difference(row: Row, name: str) -> str:
    found = row.differences.get(name)
    return "" if found is None else _marked(found.signed, found)


def _marked(text: str, difference: Interval | None) -> str:
    return f"{text}*" if difference is not None and (difference.above_zero or difference.below_zero) else text


def _holds(row: Row, name: str) -> bool:
    """Return whether a column of a row is better than the baseline's by its interval, and not by silence."""
    difference = row.differences.get(name)
    better = CAPTION_FIGURES[name].better
    if difference is None or better is None or too_silent(row.captions) or row.holm.get(name, 0.0) > 1 - LEVEL:
        return False
    return difference.above_zero if better == "higher" else difference.below_zero


def _beats_brevity(row: Row) -> bool:
    beyond = row.vs_truncation
    if beyond is None or too_silent(row.captions):
        return False
    return beyond.chair_s.below_zero and row.holm.get("beyond", 0.0) <= 1 - LEVEL


def _above(difference: Interval | None) -> bool:
    return difference is not None and difference.above_zero


def _bold(text: str, holds: bool) -> str:
    return f"\\textbf{{{text}}}" if holds else text


def _with_range(found: Interval | None, holds: bool, sign: str = "") -> str:
    if found is None or found.value is None:
        return ""
    value, *bounds = (
        f"{round(number, 1) + 0.0:{sign}.1f}".replace("-", "$-$")
        for number in (found.value, found.low, found.high)
        if number is not None
    )
    return _bold(value, holds) + (f" {{\\scriptsize [{', '.join(bounds)}]}}" if len(bounds) == 2 else "")
