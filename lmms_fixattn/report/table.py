"""Write a comparison as tables: for a terminal, Markdown and LaTeX, as CSV with a line a figure, and as JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

from lmms_fixattn.errors import UserError
from lmms_fixattn.report import glance
from lmms_fixattn.report.columns import POPE_FIGURES
from lmms_fixattn.report.compare import Comparison, Row, to_json
from lmms_fixattn.report.controls import BESIDE
from lmms_fixattn.report.terminal import wrapped
from lmms_fixattn.scoring.bootstrap import Interval

_OBJECTS = ("chair_s", "chair_i", "chair_i_unique", "recall", "precision", "f1")
_MANNER = ("words", "rep_4", "looped", "unterminated")
_TIMES = ("seconds", "tokens_per_second")


class Section(NamedTuple):
    """One table.

    Attributes:
        n: captions behind its figures; 0 in a table of answers, whose lines say how many they are of.
        lines: cells of a run, "" where it has no such figure.
    """

    title: str
    n: int
    header: tuple[str, ...]
    lines: list[tuple[str, ...]]


def sections(comparison: Comparison) -> list[Section]:
    """Return the comparison's tables: figures, differences to the baseline, and what is beyond brevity.

    A cell is `value [low, high]`, the 95% interval. Nothing is printed bold: which of two figures is the better one is
    for their paired difference to say.
    """
    found = _of_rows(comparison.rows, comparison.baseline, "")
    for task, rows in comparison.by_task.items():
        found += _of_rows(rows, comparison.baseline, f" of {task}")
    return found


def verdicts(comparison: Comparison) -> list[tuple[str, str]]:
    """Return (where, verdict) of every run but the baseline; of a single task where the runs hold several."""
    lines = [(row.name, row.verdict) for row in comparison.rows if row.name != comparison.baseline]
    for task, rows in comparison.by_task.items():
        lines += [(f"{row.name} on {task}", row.verdict) for row in rows if row.name != comparison.baseline]
    return lines


def settings(comparison: Comparison) -> str:
    """Return in one line what all figures rest on."""
    stated = comparison.settings
    level = f"{100 * stated['level']:.0f}% bootstrap intervals over images"
    draws = f"{stated['draws']} draws, seed {stated['seed']}"
    read = f"analyser {stated['analyser']}, POPE parser {stated['parser']}"
    return f"baseline {comparison.baseline}; {level} ({draws}); {read}"


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
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, form in files.items():
            (directory / name).write_text(render(comparison, form), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{directory}: cannot be written: {error.strerror or error}") from None
    return [directory / name for name in files]


def _table(comparison: Comparison) -> str:
    """Return verdicts, the short tables and the notes, within the columns of a terminal."""
    blocks = []
    if said := [(row.name, row.verdict) for row in comparison.rows if row.name != comparison.baseline]:
        blocks.append("\n".join(["verdicts", *(wrapped(f"{name}: {words}") for name, words in said)]))
    blocks += glance.terminal_tables(comparison)
    if said:
        blocks[-1] += f"\n{glance.legend(comparison)}"
    blocks.append("\n".join(["notes", *map(wrapped, _remarks(comparison))]))
    return "\n\n".join(blocks) + "\n"


def _full(comparison: Comparison) -> str:
    blocks = [f"{part.title}\n{_grid(part, 'simple')}" for part in sections(comparison)]
    if said := verdicts(comparison):
        blocks.append("\n".join(["verdicts", *(f"  {name}: {words}" for name, words in said)]))
    blocks.append("\n".join(["notes", *(f"  {note}" for note in _remarks(comparison))]))
    return "\n\n".join(blocks) + "\n"


def _markdown(comparison: Comparison) -> str:
    blocks = [f"### {_capital(part.title)}\n\n{_grid(_piped(part), 'github')}" for part in sections(comparison)]
    if said := verdicts(comparison):
        blocks.append("### Verdicts\n\n" + "\n".join(f"- **{name}**: {words}" for name, words in said))
    blocks.append("### Notes\n\n" + "\n".join(f"- {note}" for note in _remarks(comparison)))
    return "\n\n".join(blocks) + "\n"


def _latex(comparison: Comparison) -> str:
    """Return the tables for a paper; what they leave out is said in comments."""
    said = [f"{name}: {words}" for name, words in verdicts(comparison)]
    remarks = "\n".join(f"% {line}" for line in (*said, *_remarks(comparison)))
    return "\n\n".join(["% Needs \\usepackage{booktabs}", *glance.paper_tables(comparison), remarks]) + "\n"


def _remarks(comparison: Comparison) -> tuple[str, ...]:
    return (f"n = {comparison.n}; {settings(comparison)}", *comparison.notes)


def _csv(comparison: Comparison) -> str:
    """Return a line a figure: run, task ("" pools all), column, value and difference with their bounds."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    bounds = ("value", "low", "high")
    writer.writerow(("run", "task", "column", *bounds, *(f"difference_{bound}" for bound in bounds)))
    for task, rows in {"": comparison.rows, **comparison.by_task}.items():
        for row in rows:
            for name, column in row.columns.items():
                difference = row.differences.get(name, Interval(None))
                writer.writerow((row.name, task, name, *_bare(column), *_bare(difference)))
            if row.vs_truncation is not None:
                for name in ("chair_s", "chair_i", "chair_i_unique"):
                    beyond: Interval = getattr(row.vs_truncation, name)
                    writer.writerow((row.name, task, f"{name}_vs_truncation", *_bare(beyond), "", "", ""))
                for name in BESIDE:
                    if (held := getattr(row, name)) is not None:
                        writer.writerow((row.name, task, name, *_bare(held), "", "", ""))
                writer.writerow((row.name, task, "best_cut", row.vs_truncation.cut, "", "", "", "", ""))
                smallest = row.vs_truncation.chair_s.smallest_fall
                writer.writerow((row.name, task, "smallest_shown", smallest, "", "", "", "", ""))
            for claim, p in row.holm.items():
                writer.writerow((row.name, task, f"holm_p_{claim}", p, "", "", "", "", ""))
    return out.getvalue()


def _json(comparison: Comparison) -> str:
    return json.dumps(to_json(comparison), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


FORMS: Mapping[str, Callable[[Comparison], str]] = {
    "table": _table,
    "full": _full,
    "markdown": _markdown,
    "latex": _latex,
    "csv": _csv,
    "json": _json,
}
"""How a comparison can be written as text."""


def _of_rows(rows: Sequence[Row], baseline: str, where: str) -> list[Section]:
    groups = {"objects": ("n", *_OBJECTS), "manner and price": (*_MANNER, *_TIMES)}
    others = [row for row in rows if row.differences]
    n = len(rows[0].captions) or int(rows[0].columns["n"].value or 0)
    found = []
    for title, names in groups.items():
        if present := [name for name in names if name != "n" and any(name in row.columns for row in rows)]:
            counted = ["n", *present] if "n" in names else present
            lines = [(row.name, *(_cell(row.columns.get(name), name) for name in counted)) for row in rows]
            found.append(Section(f"{title}{where}", n, ("run", *counted), lines))
        if compared := [name for name in present if any(name in row.differences for row in others)]:
            lines = [(row.name, *(_difference(row.differences.get(name)) for name in compared)) for row in others]
            found.append(Section(f"{title}{where}, minus {baseline}", n, ("run", *compared), lines))
    found += _of_answers(rows, others, baseline)
    beyond = [(row, row.vs_truncation) for row in rows if row.vs_truncation]
    if beyond:
        lines = [
            (
                row.name,
                control.cut,
                _difference(control.chair_s),
                f"{row.holm['beyond']:.3f}" if "beyond" in row.holm else "",
                "" if control.chair_s.smallest_fall is None else f"{control.chair_s.smallest_fall:.1f}",
                _difference(control.chair_i),
                _difference(control.chair_i_unique),
            )
            for row, control in beyond
        ]
        header = ("run", "best cut in chair_s", "chair_s", "Holm p", "shown from", "chair_i", "chair_i_unique")
        title = f"beyond brevity{where}: minus the best cut of {baseline} at the same recall"
        found.append(Section(title, n, header, lines))
    # The controls that do not decide a verdict; a dash where there is none for a run.
    if having := [name for name in BESIDE if any(getattr(row, name) is not None for row in others)]:
        lines = [(row.name, *(_beside(getattr(row, name), name) for name in having)) for row in others]
        found.append(Section(f"further controls{where}, against {baseline}", n, ("run", *having), lines))
    return found


def _beside(found: Interval | None, name: str) -> str:
    if found is None or found.value is None:
        return "-"
    if name == "rate_ratio":  # a factor, of which 1 is no difference
        return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
    return found.signed


def _of_answers(rows: Sequence[Row], others: Sequence[Row], baseline: str) -> list[Section]:
    """Return the tables of POPE, a line a split and run."""
    lines, differences = [], []
    for said, column in glance.splits(rows):
        n, *names = [f"{column}_{figure}" for figure in ("n", *POPE_FIGURES)]
        for row in rows:
            if names[0] in row.columns:
                cells = (_cell(row.columns[name], name) for name in names)
                lines.append((said, row.name, _cell(row.columns.get(n), "n"), *cells))
        for row in others:
            if names[0] in row.differences:
                differences.append((said, row.name, *(_difference(row.differences[name]) for name in names)))
    found = [Section("POPE", 0, ("split", "run", "n", *POPE_FIGURES), lines)] if lines else []
    if differences:
        found.append(Section(f"POPE, minus {baseline}", 0, ("split", "run", *POPE_FIGURES), differences))
    return found


def _cell(column: Interval | None, name: str) -> str:
    if column is None or column.value is None:
        return ""
    if name == "n":
        return f"{column.value:.0f}"
    if column.low is None or column.high is None:
        return f"{column.value:.0f}" if column.value >= 100 else f"{column.value:.3g}"
    return f"{column.value:.1f} [{column.low:.1f}, {column.high:.1f}]"


def _difference(column: Interval | None) -> str:
    return "" if column is None else column.signed


def _bare(column: Interval) -> tuple[float | None, float | None, float | None]:
    return column.value, column.low, column.high


def _grid(part: Section, form: str) -> str:
    return tabulate(part.lines, headers=part.header, tablefmt=form, disable_numparse=True)


def _piped(part: Section) -> Section:
    """Return a section whose cells cannot end a Markdown cell."""
    return part._replace(lines=[tuple(cell.replace("|", "\\|") for cell in line) for line in part.lines])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
