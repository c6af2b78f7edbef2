"""Tables 1 to 5 of arXiv:2501.12206 in the paper's layout, filled with the figures of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lmms_fixattn.report.tables import Table
from lmms_fixattn.scoring.bootstrap import Interval

FIGURES = {"chair_s": "CHAIR_S ↓", "chair_i": "CHAIR_I ↓", "f1": "F1 ↑", "words": "Length"}
"""The columns of the paper's tables, in percent, the length in words: {figure: its heading}. Table 1 is printed without
the length, which is shown beside its figures all the same."""

SOURCE = "arXiv:2501.12206"


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
    "table2": Layout("Table 2: strength on local tokens", "α", "alpha"),
    "table3": Layout("Table 3: strength on summary tokens", "β", "beta"),
    "table4": Layout("Table 4: share of local tokens", "Local tokens", "local_ratio"),
    "table5": Layout("Table 5: share of spatial tokens", "Spatial tokens", "spatial_ratio"),
}


@dataclass(frozen=True)
class PaperRow:
    """One row: the run's own figures of n captions, and what the paper has for it, where that is known."""

    label: str
    figures: Mapping[str, Interval]
    n: int
    published: Mapping[str, float] = field(default_factory=dict)


def paper_table(layout: str, rows: Sequence[PaperRow], about: str) -> Table:
    """Return a table in the paper's layout, with 95% intervals and n.

    A row with published figures has a line of them below its own; they are never mixed with the run's.

    Args:
        layout: a name of :data:`LAYOUTS`.
        about: what was run, for the line below the table.

    Raises:
        KeyError: an unknown layout.
    """
    shown = LAYOUTS[layout]
    cells = []
    for row in rows:
        cells.append([row.label, *(f"{row.figures[figure]:.1f}" or "–" for figure in FIGURES)])
        if row.published:
            known = (f"{row.published[figure]:.1f}" if figure in row.published else "–" for figure in FIGURES)
            cells.append(["published", *known])
    n = ", ".join(str(n) for n in sorted({row.n for row in rows}))
    notes = f"Run: {about}; n = {n}. In brackets: 95% bootstrap intervals over images."
    if any(row.published for row in rows):
        notes += f" Published: {SOURCE}'s own figures, within 0.1; not of this run."
    return Table(f"{shown.title} ({SOURCE}, in its layout)", [shown.heading, *FIGURES.values()], cells, notes)
