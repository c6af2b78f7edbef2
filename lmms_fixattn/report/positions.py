"""How hallucination depends on the place in the caption: the share of hallucinated mentions, tenth by tenth."""

from __future__ import annotations

import bisect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmms_fixattn.scoring.bootstrap import NO_INTERVAL, Interval, draw_weights, interval
from lmms_fixattn.scoring.chair import Analyser

TENTHS = 10
FEWEST = 10
"""A place in which fewer captions than this mention an object has no rate: a few captions that loop would make it."""

_WORD = re.compile(r"\S+")


def positions(rows: Sequence[Mapping[str, Any]], analyser: Analyser, draws: int, seed: int) -> tuple[Interval, ...]:
    """Return the percent of mentions that are hallucinated, of each tenth of a run's captions, and its interval.

    A mention is where its first word is, counted between blanks: word i of w (from 0) is in tenth floor(10 i / w).
    Intervals are percentiles over draws of whole captions, the same draws for runs over the same images; draws in which
    a place holds no mention are left out. NO_INTERVAL where fewer than FEWEST captions mention an object.

    rows: of chair.score_caption; at least one.
    """
    mentioned = np.zeros((len(rows), TENTHS))
    hallucinated = np.zeros_like(mentioned)
    for number, row in enumerate(rows):
        starts = [word.start() for word in _WORD.finditer(row["caption"])]
        for name, start, _ in analyser.located(row["caption"]):
            place = TENTHS * (bisect.bisect_right(starts, start) - 1) // len(starts)
            mentioned[number, place] += 1
            hallucinated[number, place] += name not in row["truth"]
    weights = draw_weights(len(rows), draws, seed)
    drawn_mentions, drawn_hallucinated = weights @ mentioned, weights @ hallucinated
    found = []
    for place in range(TENTHS):
        if np.count_nonzero(mentioned[:, place]) < FEWEST:
            found.append(NO_INTERVAL)
            continue
        some = drawn_mentions[:, place] > 0
        drawn = 100 * drawn_hallucinated[some, place] / drawn_mentions[some, place]
        found.append(interval(100 * hallucinated[:, place].sum() / mentioned[:, place].sum(), drawn))
    return tuple(found)
