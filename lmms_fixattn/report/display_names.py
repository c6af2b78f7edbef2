"""What a reader calls the columns of a comparison, and which way is good."""

from __future__ import annotations

from typing import NamedTuple

from lmms_fixattn.scoring.figures import ANSWER_FIGURES, CAPTION_FIGURES, Better


class Display(NamedTuple):
    """A column as a reader sees it; better is None where neither way is good by itself."""

    name: str
    better: Better | None = None

    @property
    def arrow(self) -> str:
        """The way that is good: "↓", "↑", or "" where neither is."""
        return {"lower": "↓", "higher": "↑", None: ""}[self.better]

    @property
    def header(self) -> str:
        """The name with its arrow, as a table's header has it."""
        return f"{self.name} {self.arrow}".rstrip()


DISPLAY_NAMES: dict[str, Display] = {
    "n": Display("n"),
    **{name: Display(figure.label, figure.better) for name, figure in CAPTION_FIGURES.items()},
    "seconds": Display("seconds an answer", "lower"),
    "tokens_per_second": Display("tokens a second", "higher"),
}
"""Columns of captions and of time (report.columns), by name."""

_POPE = {
    **{name: Display(figure.label, figure.better) for name, figure in ANSWER_FIGURES.items()},
    "n": Display("n"),
}


def display(column: str) -> Display:
    """Return how a column is shown: one that is not listed by its own name, of a POPE column the figure alone."""
    if column.startswith("pope_"):
        figure = next((name for name in _POPE if column.endswith(f"_{name}")), None)
        if figure is not None:
            return _POPE[figure]
    return DISPLAY_NAMES.get(column, Display(column.replace("_", " ")))
