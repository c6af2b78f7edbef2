"""How hallucination depends on the place in the caption: the share of hallucinated mentions, place by place."""

from __future__ import annotations

import bisect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmms_fixattn.scoring.bootstrap import Floats, Interval, draw_weights, interval
from lmms_fixattn.scoring.chair import Analyser

Ints: TypeAlias = NDArray[np.int64]

TENTHS = 10
WORDS_A_BIN = 20
FEWEST = 10
"""A place in which fewer captions than this mention an object has no rate: a few captions that loop would make it."""

_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Rate:
    """The rate of one place, from start to end (end excluded): percent of a caption, or words.

    Attributes:
        mentions: in this place, over all captions.
        rate: percent of them that are hallucinated; without value where fewer than FEWEST captions have one.
    """

    start: int
    end: int
    mentions: int
    rate: Interval


@dataclass(frozen=True)
class Positions:
    """Rates by tenths of the caption, and by word in bins of WORDS_A_BIN words."""

    tenths: tuple[Rate, ...]
    words: tuple[Rate, ...]


def positions(rows: Sequence[Mapping[str, Any]], analyser: Analyser, draws: int, seed: int) -> Positions:
    """Return the rates of a run's captions (rows of chair.score_caption; at least one).

    A mention is where its first word is, counted between blanks: word i of w (from 0) is in tenth floor(10 i / w).
    Intervals are percentiles over draws of whole captions, the same draws for runs over the same images; draws in which
    a place holds no mention are left out.
    """
    placed: list[tuple[int, int, int, bool]] = []
    for number, row in enumerate(rows):
        starts = [word.start() for word in _WORD.finditer(row["caption"])]
        truth = frozenset(row["truth"])
        for name, start, _ in analyser.located(row["caption"]):
            word = bisect.bisect_right(starts, start) - 1
            placed.append((number, TENTHS * word // len(starts), word // WORDS_A_BIN, name not in truth))
    captions, tenths, bins, wrong = np.array(placed, dtype=np.int64).reshape(-1, 4).T
    weights = draw_weights(len(rows), draws, seed)
    longest = int(bins.max(initial=-1)) + 1
    return Positions(
        _rates(captions, tenths, wrong, TENTHS, 100 // TENTHS, weights),
        _rates(captions, bins, wrong, longest, WORDS_A_BIN, weights),
    )


def _rates(captions: Ints, places: Ints, wrong: Ints, count: int, width: int, weights: Floats) -> tuple[Rate, ...]:
    mentioned = np.zeros((weights.shape[1], count))
    hallucinated = np.zeros_like(mentioned)
    np.add.at(mentioned, (captions, places), 1)
    np.add.at(hallucinated, (captions, places), wrong)
    drawn_mentions = weights @ mentioned
    drawn = np.full(drawn_mentions.shape, np.nan)
    np.divide(100 * (weights @ hallucinated), drawn_mentions, out=drawn, where=drawn_mentions > 0)
    found = []
    for place in range(count):
        total = int(mentioned[:, place].sum())
        rate = Interval(None)
        if np.count_nonzero(mentioned[:, place]) >= FEWEST:
            kept = drawn[~np.isnan(drawn[:, place]), place]
            rate = interval(100 * float(hallucinated[:, place].sum()) / total, kept)
        found.append(Rate(place * width, (place + 1) * width, total, rate))
    return tuple(found)
