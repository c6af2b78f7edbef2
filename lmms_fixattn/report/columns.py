"""The columns of a comparison: figures of a run as ratios of sums over images, over the corpus and in every draw.

And what a reader calls them, and which way is good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from lmms_fixattn.report.runs import AnswerEntry, Run
from lmms_fixattn.scoring import bootstrap, chair, pope
from lmms_fixattn.scoring.bootstrap import Floats, Interval
from lmms_fixattn.scoring.figures import ANSWER_FIGURES, CAPTION_FIGURES, Better, Figure

CAPTION_COLUMNS = tuple(CAPTION_FIGURES)
"""Columns of captions."""

POPE_FIGURES = ("accuracy", "f1", "yes_ratio")
"""Figures of each POPE split, some of scoring.figures.ANSWER_FIGURES; a column is called pope_SPLIT_FIGURE. Beside them
pope_SPLIT_n counts the answers."""


class Display(NamedTuple):
    """A column as a reader sees it; better is None where neither way is good by itself."""

    name: str
    better: Better | None = None

    @property
    def header(self) -> str:
        """The name with an arrow to the way that is good, as a table's header has it."""
        return f"{self.name} {({'lower': '↓', 'higher': '↑'}).get(self.better or '', '')}".rstrip()


def display(column: str) -> Display:
    """Return how a column is shown: one that is not listed by its own name, of a POPE column the figure alone."""
    times = {
        "seconds": Display("seconds an answer", "lower"),
        "tokens_per_second": Display("tokens a second", "higher"),
    }
    known: Mapping[str, Figure] = CAPTION_FIGURES
    if column.startswith("pope_"):
        known = ANSWER_FIGURES
        column = next((name for name in (*known, "n") if column.endswith(f"_{name}")), column)
    if column in known:
        return Display(known[column].label, known[column].better)
    return times.get(column) or Display(column.replace("_", " "))


@dataclass(frozen=True)
class Figures:
    """Some columns of one run.

    Attributes:
        columns: by name, the value over the corpus and that in every draw [draws].
        entries: captions or answers behind them.
        counted: the name of the column that says how many.
        images: what was drawn from: images, or questions where images are not known.
    """

    columns: dict[str, tuple[float, Floats]]
    entries: int
    counted: str
    images: int

    def intervals(self) -> dict[str, Interval]:
        """Return every column with its interval."""
        return {name: bootstrap.interval(*column) for name, column in self.columns.items()}

    def minus(self, other: Figures) -> Figures:
        """Return the differences to the same columns of another run in the same draws: paired."""
        columns = {
            name: (value - other.columns[name][0], drawn - other.columns[name][1])
            for name, (value, drawn) in self.columns.items()
        }
        return replace(self, columns=columns)


def caption_figures(rows: Sequence[Mapping[str, Any]], weights: Floats) -> Figures:
    """Return CAPTION_COLUMNS of scored captions (scoring.chair.score_caption), drawn by weights [draws, captions]."""
    counted = [chair.counts(row) for row in rows]
    counts = {name: np.array([each[name] for each in counted], dtype=np.float64) for name in counted[0]}
    return _figures(CAPTION_FIGURES, counts, weights, len(rows), "n")


def answer_figures(
    split: str, answers: Sequence[AnswerEntry], clusters: Sequence[int], weights: Floats, parser: str
) -> Figures:
    """Return POPE_FIGURES of a split's answers.

    clusters: which image each answer is about, 0 to images - 1; weights: [draws, images]. An image's answers are summed
    first, so that they are drawn together.
    """
    counted = [pope.counts(pope.parse_answer(one.answer, parser, one.label), one.label) for one in answers]
    counts = {name: np.zeros(weights.shape[1]) for name in counted[0]}
    for name, count in counts.items():
        np.add.at(count, np.array(clusters), [each[name] for each in counted])
    chosen = {pope_column(split, name): ANSWER_FIGURES[name] for name in POPE_FIGURES}
    return _figures(chosen, counts, weights, len(answers), pope_column(split, "n"))


def pope_column(split: str, figure: str) -> str:
    """Return the name of a POPE column; a plain file's only split is called ""."""
    return f"pope_{split}_{figure}" if split else f"pope_{figure}"


def split_name(column: str) -> str:
    """Return what a reader calls the split of a POPE column; "" for that of a plain file."""
    return column.removeprefix("pope").removesuffix("accuracy").strip("_").replace("_", " ")


def accuracies(differences: Mapping[str, Interval]) -> dict[str, Interval]:
    """Return the columns of POPE's accuracy, one a split."""
    return {
        name: found for name, found in differences.items() if name.startswith("pope_") and name.endswith("accuracy")
    }


def times(run: Run) -> dict[str, Interval]:
    """Return "seconds" an answer and "tokens_per_second", where the run recorded them; a time has no interval."""
    if not run.seconds or not run.requests:
        return {}
    found = {"seconds": Interval(run.seconds / run.requests)}
    if run.generated_tokens:
        found["tokens_per_second"] = Interval(run.generated_tokens / run.seconds)
    return found


def _figures(
    figures: Mapping[str, Figure], counts: Mapping[str, Floats], weights: Floats, entries: int, counted: str
) -> Figures:
    """Return figures of counts [images] each, over the corpus and in every draw."""
    sums = {name: count.sum() for name, count in counts.items()}
    drawn = dict(zip(counts, (weights @ np.stack(list(counts.values()), axis=1)).T, strict=True))
    columns = {name: (float(figure.of(sums)), figure.of(drawn)) for name, figure in figures.items()}
    return Figures(columns, entries, counted, weights.shape[1])
