"""Tables 1 to 5 of arXiv:2501.12206 in the paper's layout, filled with the figures of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tabulate import tabulate

from lmms_fixattn.report.latex import escaped, latex_table
from lmms_fixattn.report.terminal import wrapped

FIGURES = {"chair_s": "CHAIR_S ↓", "chair_i": "CHAIR_I ↓", "f1": "F1 ↑", "words": "Length"}
"""The columns of the paper's tables, in percent, the length in words: {figure: its heading}. Table 1 is printed without
the length, which is shown beside its figures all the same."""

FORMATS = {"text": "txt", "markdown": "md", "latex": "tex"}
"""The forms of a table: {name: suffix of its file}."""


@dataclass(frozen=True)
class Layout:
    """A table of the paper.

    Attributes:
        title: what it shows.
        heading: of the first column.
        parameter: the hyper-parameter whose value labels a row; None: the row's name does.
    """

    title: str
    heading: str
    parameter: str | None = None


LAYOUTS = {
    "table1": Layout("Table 1: methods", "Method"),
    "table2": Layout("Table 2: strength on local tokens", "alpha", "alpha"),
    "table3": Layout("Table 3: strength on summary tokens", "beta", "beta"),
    "table4": Layout("Table 4: share of local tokens", "Local tokens", "local_ratio"),
    "table5": Layout("Table 5: share of spatial tokens", "Spatial tokens", "spatial_ratio"),
}

SOURCE = "arXiv:2501.12206"
_LATEX = {
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "_S": "$_S$",
    "_I": "$_I$",
    "alpha": r"$\alpha$",
    "beta": r"$\beta$",
}


class Estimate(Protocol):
    """A figure with its 95% interval; None where there is none."""

    @property
    def value(self) -> float | None: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


@dataclass(frozen=True)
class PaperRow:
    """One row: the run's own figures of n captions, and what the paper has for it, where that is known."""

    label: str
    figures: Mapping[str, Estimate]
    n: int
    published: Mapping[str, float] = field(default_factory=dict)


def paper_table(layout: str, rows: Sequence[PaperRow], about: str, form: str) -> str:
    """Return a table in the paper's layout, with 95% intervals and n.

    A row with published figures has a line of them below its own; they are never mixed with the run's.

    Args:
        layout: a name of :data:`LAYOUTS`.
        about: what was run, for the line below the title.
        form: a name of :data:`FORMATS`.

    Raises:
        KeyError: an unknown layout or form.
    """
    shown = LAYOUTS[layout]
    cells = []
    for row in rows:
        cells.append([row.label, *(_estimate(row.figures[figure]) for figure in FIGURES)])
        if row.published:
            known = (f"{row.published[figure]:.1f}" if figure in row.published else "–" for figure in FIGURES)
            cells.append(["published", *known])
    n = ", ".join(str(n) for n in sorted({row.n for row in rows}))
    notes = [f"Run: {about}; n = {n}. In brackets: 95% bootstrap intervals over images."]
    if any(row.published for row in rows):
        notes.append(f"Published: {SOURCE}'s own figures, within 0.1; not of this run.")
    writers = {"text": _text, "markdown": _markdown, "latex": _latex}
    return writers[form](f"{shown.title} ({SOURCE}, in its layout)", notes, [shown.heading, *FIGURES.values()], cells)


def _estimate(estimate: Estimate) -> str:
    if estimate.value is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.1f}"
    return f"{estimate.value:.1f} [{estimate.low:.1f}, {estimate.high:.1f}]"


def _text(title: str, notes: Sequence[str], headings: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    table = tabulate(cells, headings, disable_numparse=True)
    return "\n".join([title, "", table, "", *(wrapped(note, "") for note in notes), ""])


def _markdown(title: str, notes: Sequence[str], headings: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    table = tabulate(cells, headings, tablefmt="github", disable_numparse=True)
    return "\n".join([f"**{title}**", "", table, "", "  \n".join(notes), ""])


def _latex(title: str, notes: Sequence[str], headings: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    rows = [[escaped(cell) for cell in row] for row in cells]
    caption = f"{escaped(title)}. {escaped(' '.join(notes))}"
    return f"% needs the package booktabs\n{latex_table([*map(_heading, headings)], rows, caption)}\n"


def _heading(heading: str) -> str:
    for plain, written in _LATEX.items():
        heading = heading.replace(plain, written)
    return heading
