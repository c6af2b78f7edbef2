"""Tables and sentences within the columns of a terminal; everybody may import it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from tabulate import tabulate

WIDTH = 100
"""Columns that tables are made for and sentences are wrapped at."""


def table(
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    most: Sequence[int | None] | None = None,
    align: Sequence[str] | None = None,
) -> str:
    """Return a table with a rule below its head, no wider than its cells; tabulate's own pad each column by two.

    Args:
        header: of the columns, of one line or more.
        most: by column, where its cells are broken; None leaves them whole.
        align: by column, "left" or "right"; left by default.
    """
    broken = most or [None] * len(header)
    widths = [
        max(len(part) for cell in column for part in cell.split("\n")) for column in zip(header, *lines, strict=True)
    ]
    rule = ["-" * min(width, limit or width) for width, limit in zip(widths, broken, strict=True)]
    return tabulate(
        [header, rule, *lines], tablefmt="plain", disable_numparse=True, maxcolwidths=[*broken], colalign=align
    )


def wrapped(text: str, indent: str = "  ") -> str:
    """Return a sentence within WIDTH columns, its further lines indented deeper than its first."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
