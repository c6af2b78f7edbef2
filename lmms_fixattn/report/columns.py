"""The columns of a comparison: figures of a run as ratios of sums over images, over the corpus and in every draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmms_fixattn.report.runs import AnswerEntry, Run
from lmms_fixattn.scoring import bootstrap, pope
from lmms_fixattn.scoring.bootstrap import Floats, Interval
from lmms_fixattn.scoring.repetition import LOOPED_ABOVE

CAPTION_COLUMNS = (
    "chair_s",
    "chair_i",
    "recall",
    "precision",
    "f1",
    "words",
    "chair_i_unique",
    "rep_4",
    "looped",
    "unterminated",
)
"""Columns of captions, as metrics.chair.corpus_figures names and defines them."""

POPE_FIGURES = ("accuracy", "f1", "yes_ratio")
"""Figures of each POPE split, as metrics.pope.figures defines them; a column is called pope_SPLIT_FIGURE. Beside them
pope_SPLIT_n counts the answers."""


@dataclass(frozen=True)
class Figures:
    """Some columns of one run.

    Attributes:
        names: of the columns.
        values: over the corpus, [columns].
        drawn: in every draw, [draws, columns].
        entries: captions or answers behind them.
        images: what was drawn from: images, or questions where images are not known.
    """

    names: tuple[str, ...]
    values: Floats
    drawn: Floats
    entries: int
    images: int

    def column(self, name: str) -> tuple[float, Floats]:
        """Return a column's value and its draws [draws]."""
        place = self.names.index(name)
        return float(self.values[place]), self.drawn[:, place]

    def intervals(self) -> dict[str, Interval]:
        """Return every column with its interval."""
        return {name: bootstrap.interval(*self.column(name)) for name in self.names}

    def p_minus(self, other: Figures, name: str) -> float:
        """Return the two-sided bootstrap p of a column's paired difference to another run being 0."""
        return bootstrap.p_value(self.column(name)[1] - other.column(name)[1])

    def minus(self, other: Figures) -> dict[str, Interval]:
        """Return every column's difference to the same columns of another run in the same draws: paired."""
        columns = {name: (self.column(name), other.column(name)) for name in self.names}
        return {
            name: bootstrap.interval(a - b, drawn_a - drawn_b) for name, ((a, drawn_a), (b, drawn_b)) in columns.items()
        }


def caption_figures(rows: Sequence[Mapping[str, Any]], weights: Floats) -> Figures:
    """Return CAPTION_COLUMNS of scored captions (metrics.chair.score_caption), drawn by weights [draws, captions]."""

    def sums(count: Callable[[Mapping[str, Any]], float]) -> Floats:
        return np.array([count(row) for row in rows], dtype=np.float64)

    one = np.ones(len(rows))
    mentioned, wrong = sums(lambda row: len(row["objects"])), sums(lambda row: len(row["hallucinated"]))
    unique, found = sums(lambda row: row["unique_objects"]), sums(lambda row: row["unique_true_objects"])
    true = sums(lambda row: row["true_objects"])
    columns: dict[str, tuple[Floats, Floats]] = {
        "chair_s": (sums(lambda row: bool(row["hallucinated"])), one),
        "chair_i": (wrong, mentioned),
        "recall": (found, true),
        "precision": (found, unique),
        # The harmonic mean of a/b and a/c is 2a / (b + c).
        "f1": (2 * found, true + unique),
        # Words and rep_4 are means, not shares: no percent.
        "words": (sums(lambda row: row["words"] / 100), one),
        "chair_i_unique": (unique - found, unique),
        "rep_4": (sums(lambda row: row["rep_4"] / 100), one),
        "looped": (sums(lambda row: row["rep_4"] > 100 * LOOPED_ABOVE), one),
        "unterminated": (sums(lambda row: not row["terminated"]), one),
    }
    return _figures(CAPTION_COLUMNS, [columns[name] for name in CAPTION_COLUMNS], weights, len(rows))


def answer_figures(
    split: str, answers: Sequence[AnswerEntry], clusters: Sequence[int], weights: Floats, parser: str
) -> Figures:
    """Return POPE_FIGURES of a split's answers.

    clusters: which image each answer is about, 0 to images - 1; weights: [draws, images]. An image's answers are summed
    first, so that they are drawn together.
    """
    counts = np.zeros((weights.shape[1], 5))
    np.add.at(counts, np.array(clusters), np.array([_counts(answer, parser) for answer in answers], dtype=np.float64))
    tp, fp, tn, fn, asked = counts.T
    columns = [(tp + tn, asked), (2 * tp, 2 * tp + fp + fn), (tp + fp, asked)]
    return _figures(tuple(pope_column(split, figure) for figure in POPE_FIGURES), columns, weights, len(answers))


def pope_column(split: str, figure: str) -> str:
    """Return the name of a POPE column; a plain file's only split is called ""."""
    return f"pope_{split}_{figure}" if split else f"pope_{figure}"


def times(run: Run) -> dict[str, Interval]:
    """Return "seconds" an answer and "tokens_per_second", where the run recorded them; a time has no interval."""
    if not run.seconds or not run.requests:
        return {}
    found = {"seconds": Interval(run.seconds / run.requests)}
    if run.generated_tokens:
        found["tokens_per_second"] = Interval(run.generated_tokens / run.seconds)
    return found


def _counts(answer: AnswerEntry, parser: str) -> tuple[bool, bool, bool, bool, bool]:
    """Return tp, fp, tn, fn and 1: what "exact" reads as neither yes nor no is in none of the four."""
    predicted, label = pope.parse_answer(answer.answer, parser, answer.label), answer.label
    right = predicted == label
    return (
        right and predicted == "yes",
        not right and predicted == "yes",
        right and predicted == "no",
        not right and predicted == "no",
        True,
    )


def _figures(
    names: tuple[str, ...], columns: Sequence[tuple[Floats, Floats]], weights: Floats, entries: int
) -> Figures:
    parts, wholes = (np.stack(side, axis=1) for side in zip(*columns, strict=True))
    values = bootstrap.ratios(bootstrap.corpus_weights(len(parts)), parts, wholes)[0]
    return Figures(names, values, bootstrap.ratios(weights, parts, wholes), entries, len(parts))
