"""Write a comparison in every form: for a terminal, as Markdown and LaTeX, as CSV with a line a figure, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmms_fixattn.errors import UserError
from lmms_fixattn.report import glance, grids
from lmms_fixattn.report.compare import Comparison, to_json
from lmms_fixattn.report.controls import BESIDE
from lmms_fixattn.report.tables import Table
from lmms_fixattn.report.terminal import wrapped
from lmms_fixattn.scoring.bootstrap import NO_INTERVAL, Interval

if TYPE_CHECKING:
    import pandas


def tables(comparison: Comparison) -> list[Table]:
    """Return the comparison's tables with every figure, and those of each task.

    A cell is `value [low, high]`, the 95% interval. Nothing is printed bold: which of two figures is the better one is
    for their paired difference to say.
    """
    of_tasks = [grids.tables(comparison, rows, f" of {task}") for task, rows in comparison.by_task.items()]
    return sum(of_tasks, grids.tables(comparison))


def verdicts(comparison: Comparison) -> list[tuple[str, str]]:
    """Return (where, verdict) of every run but the baseline; of a single task where the runs hold several."""
    parts = {"": comparison.rows, **{f" on {task}": rows for task, rows in comparison.by_task.items()}}
    return [
        (f"{row.name}{where}", row.verdict)
        for where, rows in parts.items()
        for row in rows
        if row.name != comparison.baseline
    ]


def settings(comparison: Comparison) -> str:
    """Return in one line what all figures rest on."""
    stated = comparison.settings
    parts = [f"n = {comparison.n}", f"baseline {comparison.baseline}"][: len(comparison.rows)]
    parts.append(f"{100 * stated['level']:.0f}% bootstrap intervals over images")
    parts.append(f"{stated['draws']} draws, seed {stated['seed']}")
    parts.append(f"analyser {stated['analyser']}, POPE parser {stated['parser']}")
    return "; ".join(parts)


def render(comparison: Comparison, form: str) -> str:
    """Return the comparison as text of a form; raises ValueError for one that is none of FORMS.

    "table" is for a terminal: the verdicts, a short table and the notes. "latex" is for a paper: short tables as well.
    The others hold every figure: "full" (for a terminal with long lines), "markdown", "csv" and "json".
    """
    if form not in FORMS:
        raise ValueError(f"a table's form is one of {', '.join(FORMS)}, not {form!r}")
    return FORMS[form](comparison)


def write(comparison: Comparison, directory: Path) -> list[Path]:
    """Write comparison.json, table.md, table.tex and table.csv into a directory, which is made; return the paths."""
    files = {"comparison.json": "json", "table.md": "markdown", "table.tex": "latex", "table.csv": "csv"}
    return write_files(directory, {name: render(comparison, form).encode() for name, form in files.items()})


def write_files(directory: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files by name into a directory, which is made; UserError where that cannot be."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (directory / name).write_bytes(content)
    except OSError as error:
        raise UserError(f"{directory}: cannot be written: {error.strerror or error}") from None
    return [directory / name for name in contents]


def frame(comparison: Comparison) -> pandas.DataFrame:
    """Return every figure, indexed by run, task ("" pools all) and figure: value, low and high, and those of its
    paired difference to the baseline, minus, minus_low and minus_high.

    Beside the columns of report.compare.Row: NAME_beyond_brevity, the distance from the baseline cut short,
    smallest_shown, the further controls, and holm_p_CLAIM.
    """
    import pandas

    rows = []
    for task, of_task in {"": comparison.rows, **comparison.by_task}.items():
        for row in of_task:
            found: dict[str, Interval | None] = {**row.columns}
            if beyond := row.vs_truncation:
                names = ("chair_s", "chair_i", "chair_i_unique")
                found |= {f"{name}_beyond_brevity": getattr(beyond, name) for name in names}
                found["smallest_shown"] = Interval(beyond.chair_s.smallest_fall)
            found |= {name: getattr(row, name) for name in BESIDE}
            found |= {f"holm_p_{claim}": Interval(p) for claim, p in row.holm.items()}
            for name, one in found.items():
                minus = row.differences.get(name, NO_INTERVAL)
                if one is not None:
                    figures = (one.value, one.low, one.high, minus.value, minus.low, minus.high)
                    rows.append((row.name, task, name, *figures))
    columns = ["run", "task", "figure", "value", "low", "high", "minus", "minus_low", "minus_high"]
    return pandas.DataFrame(rows, columns=columns).set_index(columns[:3]).astype(float)


def _table(comparison: Comparison) -> str:
    """Return verdicts, the short tables and the notes, within the columns of a terminal."""
    said = [f"{row.name}: {row.verdict}" for row in comparison.rows if row.name != comparison.baseline]
    short = glance.for_terminal(comparison)
    if said:
        short[-1] += f"\n* the 95% interval of the difference to {comparison.baseline} (or beyond brevity) excludes 0"
    notes = [wrapped(line) for line in _notes(comparison)]
    return _blocks(*_listed("verdicts", [wrapped(line) for line in said], "{}"), *short, *_listed("notes", notes, "{}"))


def _full(comparison: Comparison) -> str:
    found = [table.text() for table in tables(comparison)]
    said = [f"{name}: {words}" for name, words in verdicts(comparison)]
    return _blocks(*found, *_listed("verdicts", said), *_listed("notes", _notes(comparison)))


def _markdown(comparison: Comparison) -> str:
    found = [table.markdown for table in tables(comparison)]
    said = [f"**{name}**: {words}" for name, words in verdicts(comparison)]
    return _blocks(
        *found, *_listed("### Verdicts\n", said, "- {}"), *_listed("### Notes\n", _notes(comparison), "- {}")
    )


def _latex(comparison: Comparison) -> str:
    """Return the tables for a paper; what they leave out is said in comments."""
    said = [f"{name}: {words}" for name, words in verdicts(comparison)]
    remarks = "\n".join(f"% {line}" for line in (*said, *_notes(comparison)))
    return _blocks(*glance.for_paper(comparison), remarks)


def _blocks(*blocks: str) -> str:
    return "\n\n".join(blocks) + "\n"


def _listed(title: str, lines: Sequence[str], item: str = "  {}") -> list[str]:
    return ["\n".join([title, *(item.format(line) for line in lines)])] if lines else []


def _notes(comparison: Comparison) -> list[str]:
    return [settings(comparison), *comparison.notes]


def _json(comparison: Comparison) -> str:
    return json.dumps(to_json(comparison), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


FORMS: Mapping[str, Callable[[Comparison], str]] = {
    "table": _table,
    "full": _full,
    "markdown": _markdown,
    "latex": _latex,
    "csv": lambda comparison: str(frame(comparison).to_csv()),
    "json": _json,
}
"""How a comparison can be written as text."""
