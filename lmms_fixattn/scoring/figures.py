"""Every figure once: its name, what it means, which way is good, and the ratio of sums that it is.

A figure of a corpus is scale * sum of parts / sum of wholes, both sums over captions or answers. What is summed are a
caption's counts (:func:`lmms_fixattn.scoring.chair.counts`), or an answer's (:func:`lmms_fixattn.scoring.pope.counts`).
The same table serves the tasks, the command line, comparisons with their bootstrap draws, and the truncation control.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Better = Literal["lower", "higher"]
Terms = Mapping[str, float]
"""A sum of counts, each with its factor."""


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        label: what a reader calls it.
        meaning: in a few words, with its unit.
        part, whole: numerator and denominator.
        better: which way is good; None where neither is by itself.
        scale: 100 for percent, 1 for a mean.
    """

    label: str
    meaning: str
    part: Terms
    whole: Terms
    better: Better | None = None
    scale: float = 100.0

    def of(self, sums: Mapping[str, Any]) -> Any:
        """Return the figure of sums of counts, a number of numbers or an array of arrays; a share of nothing is 0."""
        part, whole = (sum(factor * sums[name] for name, factor in terms.items()) for terms in (self.part, self.whole))
        if isinstance(whole, int | float):
            return self.scale * part / whole if whole else 0.0
        from lmms_fixattn.scoring.bootstrap import share  # arrays alone need numpy

        return share(self.scale * part, whole)


def _mean(label: str, meaning: str, count: str, better: Better | None = None, scale: float = 100.0) -> Figure:
    return Figure(label, meaning, {count: 1}, {"captions": 1}, better, scale)


CAPTION_FIGURES: dict[str, Figure] = {
    "chair_s": _mean("CHAIR_s", "% of captions with a hallucinated object", "hallucinating", "lower"),
    "chair_i": Figure("CHAIR_i", "% of mentions that are hallucinated", {"hallucinated": 1}, {"mentioned": 1}, "lower"),
    "recall": Figure("recall", "% of true objects that are mentioned", {"found": 1}, {"true": 1}, "higher"),
    "precision": Figure(
        "precision",
        "% of mentioned objects that are true, each counted once a caption",
        {"found": 1},
        {"unique": 1},
        "higher",
    ),
    # The harmonic mean of a / b and a / c is 2a / (b + c).
    "f1": Figure("F1", "harmonic mean of recall and precision", {"found": 2}, {"true": 1, "unique": 1}, "higher"),
    "words": _mean("words", "mean words a caption", "words", scale=1),
    "chair_i_unique": Figure(
        "CHAIR_i, once each",
        "% of mentioned objects that are hallucinated, each counted once a caption",
        {"unique": 1, "found": -1},
        {"unique": 1},
        "lower",
    ),
    "rep_4": _mean("repeated 4-grams", "% of 4-grams that are repeats", "rep_4", "lower", scale=1),
    "looped": _mean("looped", "% of captions with rep_4 above 20", "looped", "lower"),
    "unterminated": _mean("cut off", "% of captions cut off by the token cap", "unterminated", "lower"),
}
"""Figures of captions (CHAIR, arXiv:1809.02156, and what stands beside it), in the order of tables."""

ANSWER_FIGURES: dict[str, Figure] = {
    "accuracy": Figure("accuracy", "% of answers that are right", {"tp": 1, "tn": 1}, {"answers": 1}, "higher"),
    "precision": Figure(
        "precision", "% of answers read as yes that are right", {"tp": 1}, {"tp": 1, "fp": 1}, "higher"
    ),
    "recall": Figure("recall", "% of present objects that are affirmed", {"tp": 1}, {"tp": 1, "fn": 1}, "higher"),
    "f1": Figure("F1", "harmonic mean of precision and recall", {"tp": 2}, {"tp": 2, "fp": 1, "fn": 1}, "higher"),
    "yes_ratio": Figure("yes ratio", "% of answers read as yes", {"tp": 1, "fp": 1}, {"answers": 1}),
}
"""Figures of answers to yes/no questions (POPE, arXiv:2305.10355)."""


def total(counts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Sum counts by name."""
    sums: dict[str, float] = {}
    for each in counts:
        for name, count in each.items():
            sums[name] = sums.get(name, 0) + count
    return sums


def means(figures: Mapping[str, Figure], counted: str) -> tuple[str, ...]:
    """Return the names of the figures that are means over what "captions" or "answers" count."""
    return tuple(name for name, figure in figures.items() if figure.whole == {counted: 1})
