"""The percentile bootstrap over images: how far a corpus figure may lie from what other images would give.

Every figure here is a ratio of sums over images,

    figure = scale * sum_i w_i numerator_i / sum_i w_i denominator_i,

with w = 1 for the corpus itself. A draw takes n of the n images with replacement, so its w are multinomial counts. One
matrix of counts [draws, n] serves every figure of every run on these images: the figures of a draw stand on the same
images, and a difference of two runs is paired (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8
and 13). Images are resampled, not captions or answers: the six POPE questions of an image come and go together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

LEVEL = 0.95
DRAWS = 5000
"""Enough for p-values after Holm over a comparison's rows: the smallest of 5,000 draws is 0.0004."""
POWER = 0.8
# Equal figures may differ in their last bits; one object of any corpus moves them by more.
_TIE = 1e-9
# Standard deviations below the mean that hold LEVEL (on both sides) and POWER (on one) of a normal distribution.
_AT_LEVEL, _AT_POWER = 1.9600, 0.8416


@dataclass(frozen=True)
class Interval:
    """A figure and the bounds that hold it with 95% confidence; None where there is no figure, or no interval of it."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval lies above 0; False without an interval."""
        return self.low is not None and self.low > 0

    @property
    def below_zero(self) -> bool:
        """Whether the whole interval lies below 0; False without an interval."""
        return self.high is not None and self.high < 0

    def __format__(self, form: str) -> str:
        """Write value and bounds in a number's format: "4.1 [1.0, 7.2]"; "" without a value, never "-0.0"."""
        numbers = [number for number in (self.value, self.low, self.high) if number is not None]
        texts = [text if float(text := format(number, form)) else format(0.0, form) for number in numbers]
        return f"{texts[0]} [{texts[1]}, {texts[2]}]" if len(texts) == 3 else "".join(texts[:1])

    @property
    def signed(self) -> str:
        """A difference as a reader is shown it, "-4.1 [-11.0, +1.2]"."""
        return f"{self:+.1f}"

    @property
    def smallest_fall(self) -> float | None:
        """How far below 0 the truth must lie for such an interval to be below 0 in POWER of all samples of images.

        (high - value) + 0.84 * (high - low) / 3.92: what the interval reaches above its value, and the room that the
        value itself needs. None without an interval.
        """
        if self.value is None or self.low is None or self.high is None:
            return None
        return self.high - self.value + _AT_POWER * (self.high - self.low) / (2 * _AT_LEVEL)


NO_INTERVAL = Interval(None)
"""Of a figure that there is none of."""


def corpus_weights(n: int) -> Floats:
    """Return the weights of the corpus itself, [1, n]: the one "draw" whose figures are the values."""
    return np.ones((1, n))


def draw_weights(n: int, draws: int, seed: int) -> Floats:
    """Return how often each of n images is in each draw, [draws, n]; rows sum to n, the same for the same seed.

    Raises ValueError for no images or no draws.
    """
    if n < 1 or draws < 1:
        raise ValueError(f"a bootstrap needs at least one image and one draw, not n={n} and draws={draws}")
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)


def ratios(weights: Floats, numerators: Floats, denominators: Floats, scale: float = 100.0) -> Floats:
    """Return scale * (weights @ numerators) / (weights @ denominators), a figure a column.

    weights [draws, n], numerators and denominators [n, columns] -> [draws, columns]. A share of nothing is 0.
    """
    return scale * share(weights @ numerators, weights @ denominators)


def share(part: Floats, whole: Floats) -> Floats:
    """Return part / whole, 0 where the whole is 0; the two may broadcast."""
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole != 0)


def interval(value: float, drawn: Floats) -> Interval:
    """Return a value with the 2.5% and 97.5% percentiles of its draws [draws]."""
    low, high = np.percentile(drawn, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Interval(float(value), float(low), float(high))


def p_value(drawn: Floats) -> float:
    """Return the two-sided bootstrap p of a figure being 0, from its draws [draws].

    2 (1 + m) / (1 + draws), with m draws on the rarer side of 0, itself included; at most 1. Never 0: the smallest that
    so many draws can give is 2 / (1 + draws).
    """
    rarer = min(int((drawn <= _TIE).sum()), int((drawn >= -_TIE).sum()))
    return min(1.0, 2 * (1 + rarer) / (1 + len(drawn)))


def p_below(drawn: Floats) -> float:
    """Return the bootstrap p of a figure being 0 or more, from its draws [draws].

    Twice the one-sided p, 2 (1 + draws at 0 or above) / (1 + draws), at most 1: it is at most 0.05 only where the
    95% interval lies below 0.
    """
    return min(1.0, 2 * (1 + int((drawn >= -_TIE).sum())) / (1 + len(drawn)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm, Scandinavian Journal of Statistics 6, 1979), in the same order.

    The i-th smallest of m is multiplied by m - i + 1, and is no less than any smaller one's. Whatever is true of the m
    hypotheses, one that holds has an adjusted p of at most 0.05 with a chance of at most 5%.
    """
    adjusted = [0.0] * len(p_values)
    most = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = most
    return adjusted
