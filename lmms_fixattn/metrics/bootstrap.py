"""The percentile bootstrap over images: how far a corpus figure may lie from what other images would give.

Every figure here is a ratio of sums over images,

    figure = scale * sum_i w_i numerator_i / sum_i w_i denominator_i,

with w = 1 for the corpus itself. A draw takes n of the n images with replacement, so its w are multinomial counts. One
matrix of counts [draws, n] serves every figure of every run on these images: the figures of a draw stand on the same
images, and a difference of two runs is paired (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8
and 13). Images are resampled, not captions or answers: the six POPE questions of an image come and go together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

LEVEL = 0.95


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
