"""The one writer of tables: rows of text for a terminal, as Markdown, and as LaTeX with booktabs rules."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from tabulate import LATEX_ESCAPE_RULES, tabulate

from lmms_fixattn.report import terminal

_SYMBOLS = {"–": "--", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "α": r"$\alpha$", "β": r"$\beta$"}


class Table(NamedTuple):
    """A table of cells that are text; **bold** as in Markdown.

    Attributes:
        notes: what stands below it.
        label: what LaTeX's \\ref finds it by; "" for none.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: str = ""
    label: str = ""

    def text(self, most: int | None = None) -> str:
        """Return it for a terminal; cells that are wider than `most` are broken."""
        body = terminal.table(self.header, self.rows, [most] * len(self.header))
        return "\n".join([self.title, body, *([terminal.wrapped(self.notes, "")] if self.notes else [])])

    @property
    def markdown(self) -> str:
        """The table under its title."""
        rows = [[cell.replace("|", "\\|") for cell in row] for row in self.rows]
        body = tabulate(rows, self.header, tablefmt="github", disable_numparse=True)
        title = f"### {self.title}" if self.title else ""
        return "\n\n".join(filter(None, (title, body, self.notes)))

    @property
    def latex(self) -> str:
        """A table environment, title and notes its caption: the first column flush left, the others flush right."""
        align = ("left", *["right"] * (len(self.header) - 1))
        rows = [[_latex_cell(cell) for cell in row] for row in self.rows]
        body = tabulate(rows, [*map(_latex, self.header)], tablefmt="latex_raw", disable_numparse=True, colalign=align)
        for rule in ("\\toprule", "\\midrule", "\\bottomrule"):
            body = body.replace("\\hline", rule, 1)
        caption = _latex(f"{self.title}. {self.notes}".strip())
        named = [f"\\label{{{self.label}}}"] if self.label else []
        head = ["% Needs \\usepackage{booktabs}", "\\begin{table}", "\\centering", f"\\caption{{{caption}}}", *named]
        return "\n".join([*head, body, "\\end{table}"])


def _latex(text: str) -> str:
    escaped = "".join(LATEX_ESCAPE_RULES.get(character, character) for character in text)
    for symbol, written in _SYMBOLS.items():
        escaped = escaped.replace(symbol, written)
    return re.sub(r"CHAIR\\_([siSI])", r"CHAIR$_\1$", escaped)


def _latex_cell(text: str) -> str:
    """Return a cell as LaTeX: a true minus, **bold**, and an interval in small type."""
    cell = re.sub(r"(?<![\w.])-(?=\d)", "$-$", _latex(text))
    cell = re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", cell)
    return re.sub(r"(?<=\d) (\[[^\]]*\])", r" {\\scriptsize \1}", cell)
