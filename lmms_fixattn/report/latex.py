"""LaTeX tables with booktabs rules."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import LATEX_ESCAPE_RULES, tabulate


def latex_table(headings: Sequence[str], rows: Sequence[Sequence[str]], caption: str, label: str = "") -> str:
    """Return a table environment: the first column flush left, the others flush right; needs the package booktabs.

    Args:
        headings, rows, caption: LaTeX, escaped already (:func:`escaped`).
        label: what \\ref finds it by; "" for none.
    """
    align = ("left", *["right"] * (len(headings) - 1))
    body = tabulate(rows, headings, tablefmt="latex_raw", disable_numparse=True, colalign=align)
    for rule in ("\\toprule", "\\midrule", "\\bottomrule"):
        body = body.replace("\\hline", rule, 1)
    named = [f"\\label{{{label}}}"] if label else []
    return "\n".join(["\\begin{table}", "\\centering", f"\\caption{{{caption}}}", *named, body, "\\end{table}"])


def escaped(text: str) -> str:
    """Return plain text as LaTeX."""
    return "".join(LATEX_ESCAPE_RULES.get(character, character) for character in text).replace("–", "--")
