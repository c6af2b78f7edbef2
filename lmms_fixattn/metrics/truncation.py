"""What saying less would have done: the baseline's captions, cut after k words, as the control of a method.

A caption that stops early mentions fewer objects, so fewer wrong ones, and CHAIR falls without the model seeing any
better. Cutting the baseline's captions after their first k words between blanks (a shorter caption stays whole), for
k = 0, 1, 2, ... up to the longest, gives a curve of CHAIR_s and of CHAIR_i over recall. What a method does beyond
brevity is its distance from that curve at its own recall r:

    delta = CHAIR(method) - C(r)

The corpus recall R(k) rises with k, but not strictly: a cut inside "baby elephant" mentions a person. So that every r
has one place on the curve, with M(k) = max of R(j) over j <= k:

    k* = the first k with M(k) >= r
    t  = (r - M(k* - 1)) / (M(k*) - M(k* - 1))
    C(r) = (1 - t) * CHAIR(k* - 1) + t * CHAIR(k*),  and C(r) = CHAIR(0) = 0 at k* = 0.

Where r is above M everywhere, the curve has nothing to say and nothing is extrapolated. In a bootstrap draw both the
curve and r change and k* is chosen again; a draw whose r leaves the curve takes its near end, the uncut captions, and
the share of such draws is reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmms_fixattn.metrics.bootstrap import NO_INTERVAL, Floats, Interval, corpus_weights, interval, share
from lmms_fixattn.metrics.chair import Analyser

_WORD = re.compile(r"\S+")
# Equal recalls may differ in their last bits: points far below one object of any corpus.
_ROUNDING = 1e-9


def cut(caption: str, words: int) -> str:
    """Return a caption up to the end of its first words between blanks; a caption of no more words is whole."""
    return caption[: _ends(caption)[: words + 1][-1]]


def _ends(caption: str) -> list[int]:
    """Return where a caption ends when cut after k words, for k = 0 to all of them; the last is the whole caption."""
    ends = [0, *(found.end() for found in _WORD.finditer(caption))]
    return [*ends[:-1], len(caption)]


def prefix_objects(caption: str, analyser: Analyser) -> list[list[str]]:
    """Return the objects that a caption mentions when cut after k words, for k = 0 to all of them.

    Equal to analysing every prefix, and faster: a prefix is analysed only where one of its last words, near enough to
    the cut to be read otherwise than before, can name an object (Analyser.reach).
    """
    ends = _ends(caption)
    found: list[list[str]] = [[]]
    unsettled = 0
    for number, end in enumerate(ends[1:], start=1):
        reach = analyser.reach(caption[ends[number - 1] : end].strip())
        if reach is not None:
            unsettled = max(unsettled, number + reach)
        found.append(analyser.mentions(caption[:end]).objects if number <= unsettled else found[-1])
    return found


class PrefixCounts(NamedTuple):
    """Counts of each caption's prefixes, [n, K + 1], with the whole caption wherever k passes its length."""

    mentioned: Floats
    hallucinated: Floats
    unique: Floats
    """Mentioned, each object once."""
    found: Floats
    """Unique true objects."""
    true: Floats
    """True objects of the image, [n]."""


def count_prefixes(captions: Iterable[tuple[str, Set[str]]], analyser: Analyser) -> PrefixCounts:
    """Count the objects in every prefix of captions, given as (caption, the image's true node words)."""
    counts: list[list[tuple[int, ...]]] = []
    true: list[int] = []
    for caption, truth in captions:
        rows: list[tuple[int, ...]] = []
        before: list[str] | None = None
        for objects in prefix_objects(caption, analyser):
            if objects is not before:
                wrong = sum(word not in truth for word in objects)
                named = set(objects)
                row = (len(objects), wrong, len(named), len(named & truth))
            rows.append(row)
            before = objects
        counts.append(rows)
        true.append(len(truth))
    longest = max(map(len, counts), default=1)
    padded = [rows + rows[-1:] * (longest - len(rows)) for rows in counts]
    counted = np.array(padded, dtype=np.float64).reshape(-1, longest, 4)
    mentioned, hallucinated, unique, found = np.moveaxis(counted, 2, 0)
    return PrefixCounts(mentioned, hallucinated, unique, found, np.array(true, dtype=np.float64))


@dataclass(frozen=True)
class Curve:
    """The corpus figures of the baseline's captions cut after k words, percent, by k = 0, 1, ..., K.

    Each is a tuple of K + 1 values, so recall[k] belongs to chair_s[k] and chair_i[k].
    """

    recall: tuple[float, ...]
    chair_s: tuple[float, ...]
    chair_i: tuple[float, ...]


@dataclass(frozen=True)
class Truncation:
    """What a method does beyond the baseline cut to the same recall: its CHAIR minus the curve's, in points.

    Attributes:
        chair_s, chair_i: negative is better than brevity; without value where the method's recall is off the curve.
        baseline_words: the cut k* whose recall first reaches the method's; None off the curve.
        note: what limits the comparison; None where nothing does.
        chair_i_unique: as chair_i, each object counted once a caption: unlike chair_i, repeats do not lower it.
    """

    chair_s: Interval
    chair_i: Interval
    baseline_words: int | None
    note: str | None = None
    chair_i_unique: Interval = NO_INTERVAL


class TruncationControl:
    """The curve of one baseline, over the corpus and in every draw of a bootstrap."""

    def __init__(self, counts: PrefixCounts, weights: Floats) -> None:
        """Take the counts of the n baseline captions and the draws' weights [draws, n] (bootstrap.draw_weights)."""
        self._corpus = _Curves(counts, corpus_weights(len(counts.true)))
        self._draws = _Curves(counts, weights)

    @property
    def curve(self) -> Curve:
        """The curve over the corpus."""
        found = self._corpus
        recall, chair_s, chair_i = (
            tuple(map(float, values[0])) for values in (found.recall, found.chair["chair_s"], found.chair["chair_i"])
        )
        return Curve(recall, chair_s, chair_i)

    def compare(self, method: Mapping[str, tuple[float, Floats]]) -> Truncation:
        """Return a method's distance from the curve.

        method: its "recall", "chair_s", "chair_i" and "chair_i_unique", percent, each over the corpus and in every draw
        [draws] of the weights that the curve was drawn with.
        """
        recall, recall_drawn = method["recall"]
        cuts, values, outside = self._corpus.at(np.array([recall]))
        if outside[0]:
            most = float(self._corpus.highest[0, -1])
            note = f"its recall {recall:.1f} is above the baseline's {most:.1f}, which no cut reaches"
            return Truncation(NO_INTERVAL, NO_INTERVAL, None, note)
        _, drawn, left = self._draws.at(recall_drawn)
        note = ""
        if left.any():
            share_left = f"{100 * left.mean():.1f}% of the draws"
            note = f"in {share_left} its recall is above the baseline's, and the uncut captions stand in"
        deltas = {
            name: interval(method[name][0] - float(values[name][0]), method[name][1] - drawn[name]) for name in values
        }
        return Truncation(deltas["chair_s"], deltas["chair_i"], int(cuts[0]), note or None, deltas["chair_i_unique"])


class _Curves:
    """Curves of every row of weights, [rows, K + 1]: recall, its running maximum and the figures of hallucination."""

    def __init__(self, counts: PrefixCounts, weights: Floats) -> None:
        found, unique = weights @ counts.found, weights @ counts.unique
        self.recall = 100 * share(found, (weights @ counts.true)[:, None])
        self.highest = np.maximum.accumulate(self.recall, axis=1)
        captions = (counts.hallucinated > 0).astype(np.float64)
        self.chair = {
            "chair_s": 100 * share(weights @ captions, weights.sum(axis=1, keepdims=True)),
            "chair_i": 100 * share(weights @ counts.hallucinated, weights @ counts.mentioned),
            "chair_i_unique": 100 * share(unique - found, unique),
        }

    def at(self, recall: Floats) -> tuple[NDArray[np.int64], dict[str, Floats], NDArray[np.bool_]]:
        """Return k* at a recall a row [rows], the figures there, and whether the row's curve does not reach it."""
        rows = np.arange(len(recall))
        cuts = (self.highest < recall[:, None] - _ROUNDING).sum(axis=1)
        last = self.highest.shape[1] - 1
        outside = cuts > last
        cuts = np.minimum(cuts, last)
        before = np.maximum(cuts - 1, 0)
        low, high = self.highest[rows, before], self.highest[rows, cuts]
        part = np.where(outside, 1.0, np.minimum(share(recall - low, high - low), 1.0))
        values = {
            name: (1 - part) * curve[rows, before] + part * curve[rows, cuts] for name, curve in self.chair.items()
        }
        return cuts, values, outside
