"""What saying less would have done: the baseline's own captions, cut short in several ways, as the control of a method.

A caption that stops early mentions fewer objects, so fewer wrong ones, and CHAIR falls without the model seeing any
better. There are many ways to say less, and none of them is best at every length. The control is a set of them, each of
which grows from the empty caption to the whole one:

    the first k words between blanks            k = 0, 1, 2, ... up to the longest caption
    p % of each caption's own words             p = 0, 1, ..., 100
    the first n sentences                       n = 0, 1, 2, ...
    the first sentence end from k words on      k = 0 (nothing), 1, 2, ...; the whole caption where there is none

(a caption that has no more stays whole). Way c gives a curve C_c of CHAIR over recall, and a method at recall r is at

    delta = CHAIR(method) - min_c C_c(r)

from the best of them. The corpus recall R(a) of a way rises with its amount a, but not strictly: a cut inside "baby
elephant" mentions a person, and words that name nothing new leave it level. With M(a) = max of R(b) over b <= a, and r
at most M's end:

    first = the first a with M(a) >= r        last = the last a with M(a) <= r
    t     = (r - M(first - 1)) / (M(first) - M(first - 1))
    C(r)  = (1 - t) * CHAIR(first - 1) + t * CHAIR(first);   CHAIR(0) = 0 at first = 0

Where M is level at r, from first to last, the lower of C(r) and CHAIR(last) is the one to beat, and the higher the one
to be worse than. A recall above M's end is compared with the end of M, so nothing jumps there: a run that names more
true objects than the whole baseline has to hallucinate less than the baseline cut where it named its last true one.

At equal length rather than equal recall, the mean words of the cut captions take the place of the recall (at_length).
That is not the control that decides: repeated words are words too, so a method that repeats itself is compared with
long captions.

In a bootstrap draw the curves, r and the best of the ways are found again. A curve of equal cuts is convex, so captions
of unequal lengths lie above it (Jensen) though nothing but brevity made them: that delta is above 0 is no harm done.
Harm is asked separately, by the distance from the *highest* of the curves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from copy import copy
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmms_fixattn.scoring.bootstrap import LEVEL, Floats, Interval, corpus_weights, interval, p_below, share
from lmms_fixattn.scoring.chair import Analyser
from lmms_fixattn.scoring.figures import CAPTION_FIGURES

_WORD = re.compile(r"\S+")
# As the method "truncate" has it: the dot of "3.5" or "U.S." ends no sentence.
_SENTENCE_END = re.compile(r"(?<![A-Z\d])[.!?][\"')\]]*$")
# A picture shows no more of a band than these give, and each costs time at every point.
_BAND_DRAWS = 1000
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
        lookahead = analyser.lookahead(caption[ends[number - 1] : end].strip())
        if lookahead is not None:
            unsettled = max(unsettled, number + lookahead)
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
    words: NDArray[np.int64]
    """Words of the whole caption, [n]."""
    ends: NDArray[np.bool_]
    """Whether a sentence ends with the k-th word, [n, K + 1]; False at k = 0 and past the caption's end."""

    def of(self, captions: Sequence[int]) -> PrefixCounts:
        """Return the counts of some of the captions, by their places."""
        at = list(captions)
        counts = (self.mentioned[at], self.hallucinated[at], self.unique[at], self.found[at], self.true[at])
        return PrefixCounts(*counts, self.words[at], self.ends[at])


def count_prefixes(captions: Iterable[tuple[str, Set[str]]], analyser: Analyser) -> PrefixCounts:
    """Count the objects in every prefix of captions, given as (caption, the image's true node words)."""
    counts: list[list[tuple[int, ...]]] = []
    true: list[int] = []
    sentences: list[list[int]] = []
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
        sentences.append([k for k, word in enumerate(caption.split(), start=1) if _SENTENCE_END.search(word)])
    longest = max(map(len, counts), default=1)
    padded = [rows + rows[-1:] * (longest - len(rows)) for rows in counts]
    counted = np.array(padded, dtype=np.float64).reshape(-1, longest, 4)
    mentioned, hallucinated, unique, found = np.moveaxis(counted, 2, 0)
    words = np.array([len(rows) - 1 for rows in counts], dtype=np.int64)
    ends = np.zeros((len(counts), longest), dtype=np.bool_)
    for number, places in enumerate(sentences):
        ends[number, places] = True
    return PrefixCounts(mentioned, hallucinated, unique, found, np.array(true, dtype=np.float64), words, ends)


WAYS: Mapping[str, str] = {
    "words": "the first {} words",
    "share": "{}% of each caption's words",
    "sentences": "the first {} sentences",
    "sentence_from": "the first sentence end from {} words on",
}
"""The ways to say less, and what a reader calls one of their amounts."""


def called(way: str, amount: int) -> str:
    """Return what a reader calls a cut."""
    name = WAYS[way].format(amount)
    return name.removesuffix("s") if amount == 1 and way in ("words", "sentences") else name


def kept_words(counts: PrefixCounts) -> dict[str, NDArray[np.int64]]:
    """Return how many words each caption keeps, [n, amounts], by way and growing amount: from none to all."""
    words = counts.words[:, None]
    longest = counts.ends.shape[1] - 1
    amounts = np.arange(longest + 1)
    ended = counts.ends.cumsum(axis=1)
    # One sentence more than any caption has: what follows the last end of a sentence is said there.
    numbers = range(int(ended.max(initial=0)) + 2)
    first = np.stack([(ended < number).sum(axis=1) for number in numbers], axis=1)
    next_end = np.minimum.accumulate(np.where(counts.ends, amounts, longest)[:, ::-1], axis=1)[:, ::-1]
    return {
        "words": np.minimum(amounts, words),
        "share": (np.arange(101) * words + 50) // 100,
        "sentences": np.minimum(first, words),
        "sentence_from": np.where(amounts == 0, 0, np.minimum(next_end, words)),
    }


@dataclass(frozen=True)
class Curve:
    """Figures of the baseline's captions over recall, percent; recall[i] belongs to the i-th of every other.

    chair_s_low to chair_i_high: the pointwise 95% band, at each recall by itself: that two points lie in it at once has
    a smaller chance. () where none was drawn.
    """

    recall: tuple[float, ...]
    chair_s: tuple[float, ...]
    chair_i: tuple[float, ...]
    chair_s_low: tuple[float, ...] = ()
    chair_s_high: tuple[float, ...] = ()
    chair_i_low: tuple[float, ...] = ()
    chair_i_high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Truncation:
    """What a method does beyond saying less: its CHAIR minus that of the baseline's cuts at the same recall, in points.

    Attributes:
        chair_s, chair_i: minus the best cut; negative is better than saying less.
        chair_i_unique: as chair_i, each object counted once a caption: unlike chair_i, repeats do not lower it.
        cut: the best cut in CHAIR_s, in words: the one that first reaches the method's recall.
        chair_s_worst, chair_i_worst: minus the worst cut; positive is worse than every way to say less.
        p: bootstrap p of chair_s being 0 or more (bootstrap.p_below).
        note: what limits the comparison; None where nothing does.
    """

    chair_s: Interval
    chair_i: Interval
    chair_i_unique: Interval
    cut: str
    chair_s_worst: Interval
    chair_i_worst: Interval
    p: float
    note: str | None = None


class TruncationControl:
    """The cuts of one baseline, over the corpus and in every draw of a bootstrap."""

    def __init__(self, counts: PrefixCounts, weights: Floats) -> None:
        """Take the counts of the n baseline captions and the draws' weights [draws, n] (bootstrap.draw_weights)."""
        kept = kept_words(counts)
        self._corpus = {way: _Curves(counts, words, corpus_weights(len(words))) for way, words in kept.items()}
        self._draws = {way: _Curves(counts, words, weights) for way, words in kept.items()}

    @property
    def curves(self) -> dict[str, Curve]:
        """The curve of each way to say less over the corpus, by its amount."""
        found = {}
        for way, curves in self._corpus.items():
            columns = (curves.recall, curves.chair["chair_s"], curves.chair["chair_i"])
            found[way] = Curve(*(tuple(map(float, values[0])) for values in columns))
        return found

    def curve(self) -> Curve:
        """Return the lowest of the curves at each recall, over the corpus, with its band.

        A draw whose curves end below a recall stands there with the cut of most recall, as in compare.
        """
        recall = np.unique(np.concatenate([curves.highest[0] for curves in self._corpus.values()]))
        best, _, _ = _envelope(self._corpus, recall)
        drawn = {way: curves.first(_BAND_DRAWS) for way, curves in self._draws.items()}
        draws = len(next(iter(drawn.values())).recall)
        each = [_envelope(drawn, np.full(draws, point))[0] for point in recall]
        bands = [
            np.percentile([at[name] for at in each], bound, axis=1)
            for name in ("chair_s", "chair_i")
            for bound in (50 * (1 - LEVEL), 50 * (1 + LEVEL))
        ]
        columns = (recall, best["chair_s"], best["chair_i"], *bands)
        return Curve(*(tuple(map(float, values)) for values in columns))

    def compare(self, method: Mapping[str, tuple[float, Floats]]) -> Truncation:
        """Return a method's distance from the cuts.

        method: its "recall", "chair_s", "chair_i" and "chair_i_unique", percent, each over the corpus and in every draw
        [draws] of the weights that the curves were drawn with.
        """
        recall, recall_drawn = method["recall"]
        best, worst, cut = _envelope(self._corpus, np.array([recall]))
        best_drawn, worst_drawn, _ = _envelope(self._draws, recall_drawn)

        def minus(name: str, of: Mapping[str, Floats], drawn: Mapping[str, Floats]) -> Interval:
            return interval(method[name][0] - float(of[name][0]), method[name][1] - drawn[name])

        return Truncation(
            chair_s=minus("chair_s", best, best_drawn),
            chair_i=minus("chair_i", best, best_drawn),
            chair_i_unique=minus("chair_i_unique", best, best_drawn),
            cut=cut,
            chair_s_worst=minus("chair_s", worst, worst_drawn),
            chair_i_worst=minus("chair_i", worst, worst_drawn),
            p=p_below(method["chair_s"][1] - best_drawn["chair_s"]),
            note=self._note(recall, recall_drawn),
        )

    def at_length(self, words: tuple[float, Floats], chair_s: tuple[float, Floats]) -> Interval | None:
        """Return a method's CHAIR_s minus that of the best cut with as many mean words as the method.

        words: of its captions, between blanks, and chair_s, each over the corpus and in every draw. A draw in which it
        has more words than the baseline stands with the whole captions. None for a method of more words over the
        corpus: no cut has so many.
        """
        if words[0] > max(float(curves.words[0, -1]) for curves in self._corpus.values()) + _ROUNDING:
            return None
        best, _, _ = _envelope(self._corpus, np.array([words[0]]), "words")
        drawn, _, _ = _envelope(self._draws, words[1], "words")
        return interval(chair_s[0] - float(best["chair_s"][0]), chair_s[1] - drawn["chair_s"])

    def _note(self, recall: float, recall_drawn: Floats) -> str | None:
        most = max(float(curves.highest[0, -1]) for curves in self._corpus.values())
        if recall > most + _ROUNDING:
            return (
                f"its recall {recall:.1f} is above the baseline's {most:.1f}, which no cut reaches; "
                "the cut with the most recall stands in"
            )
        tops = np.max([curves.highest[:, -1] for curves in self._draws.values()], axis=0)
        left = recall_drawn > tops + _ROUNDING
        if left.any():
            share_left = f"{100 * left.mean():.1f}% of the draws"
            return f"in {share_left} its recall is above the baseline's, and the cut with the most recall stands in"
        return None


def _envelope(
    ways: Mapping[str, _Curves], place: Floats, along: Along = "highest"
) -> tuple[dict[str, Floats], dict[str, Floats], str]:
    """Return the lowest and highest figures of all ways at a place a row, and the lowest cut in CHAIR_s of row 0."""
    found = {way: curves.at(place, along) for way, curves in ways.items()}
    names = next(iter(ways.values())).chair
    best = {name: np.min([low[name] for _, low, _ in found.values()], axis=0) for name in names}
    worst = {name: np.max([high[name] for _, _, high in found.values()], axis=0) for name in names}
    binding = min(found, key=lambda way: float(found[way][1]["chair_s"][0]))
    return best, worst, called(binding, int(found[binding][0][0]))


Along: TypeAlias = Literal["highest", "words"]
"""What a place on the curves is given by: recall, by its running maximum, or mean words."""


class _Curves:
    """Curves of one way for every row of weights, [rows, amounts]: recall, its running maximum, words, CHAIR."""

    def __init__(self, counts: PrefixCounts, kept: NDArray[np.int64], weights: Floats) -> None:
        def total(values: Floats) -> Floats:
            return weights @ np.take_along_axis(values, kept, axis=1)

        sums = {
            "captions": weights.sum(axis=1, keepdims=True),
            "hallucinating": total((counts.hallucinated > 0).astype(np.float64)),
            "hallucinated": total(counts.hallucinated),
            "mentioned": total(counts.mentioned),
            "unique": total(counts.unique),
            "found": total(counts.found),
            "true": (weights @ counts.true)[:, None],
        }
        self.recall: Floats = CAPTION_FIGURES["recall"].of(sums)
        self.highest = np.maximum.accumulate(self.recall, axis=1)
        self.words = share(weights @ kept.astype(np.float64), sums["captions"])
        self.chair: dict[str, Floats] = {
            name: CAPTION_FIGURES[name].of(sums) for name in ("chair_s", "chair_i", "chair_i_unique")
        }

    def first(self, rows: int) -> _Curves:
        """Return the curves of the first rows alone."""
        some = copy(self)
        some.recall, some.highest, some.words = self.recall[:rows], self.highest[:rows], self.words[:rows]
        some.chair = {name: curve[:rows] for name, curve in self.chair.items()}
        return some

    def at(
        self, place: Floats, along: Along = "highest"
    ) -> tuple[NDArray[np.int64], dict[str, Floats], dict[str, Floats]]:
        """Return the first amount that reaches a place a row, and the figures to beat and to be worse than there.

        place: [rows], recall or mean words; of any length where the curves are those of one row.
        """
        grows: Floats = getattr(self, along)
        rows = np.arange(len(place)) if len(grows) > 1 else np.zeros(len(place), dtype=np.int64)
        reached = np.minimum(place, grows[rows, -1])[:, None]
        first = (grows < reached - _ROUNDING).sum(axis=1)
        last = (grows <= reached + _ROUNDING).sum(axis=1) - 1
        before = np.maximum(first - 1, 0)
        low, high = grows[rows, before], grows[rows, first]
        part = np.minimum(share(reached[:, 0] - low, high - low), 1.0)
        best, worst = {}, {}
        for name, curve in self.chair.items():
            here = (1 - part) * curve[rows, before] + part * curve[rows, first]
            end = np.where(last > first, curve[rows, last], here)
            best[name], worst[name] = np.minimum(here, end), np.maximum(here, end)
        return first, best, worst
