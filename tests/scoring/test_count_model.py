from __future__ import annotations

import math

import numpy as np
import pytest

from lmms_fixattn.scoring.bootstrap import NO_INTERVAL, Floats
from lmms_fixattn.scoring.count_model import rate_ratio


def naive(run: tuple[Floats, Floats], baseline: tuple[Floats, Floats]) -> tuple[float, float, float]:
    """Newton's method on the Poisson likelihood, and a sandwich of scores that are summed image by image, in loops."""
    images = len(run[0])
    rows = [(image, 1.0, run[0][image], run[1][image]) for image in range(images)]
    rows += [(image, 0.0, baseline[0][image], baseline[1][image]) for image in range(images)]
    rows_x = [np.array([1.0, is_run, math.log(max(words, 1.0))]) for _, is_run, _, words in rows]
    beta = np.zeros(3)
    beta[0] = math.log(sum(row[2] for row in rows) / len(rows))
    for _ in range(60):
        gradient, information = np.zeros(3), np.zeros((3, 3))
        for (_, _, count, _), x in zip(rows, rows_x, strict=True):
            mean = math.exp(float(x @ beta))
            gradient += (count - mean) * x
            information += mean * np.outer(x, x)
        beta += np.linalg.solve(information, gradient)
    meat = np.zeros((3, 3))
    for image in range(images):
        score = np.zeros(3)
        for (of_image, _, count, _), x in zip(rows, rows_x, strict=True):
            if of_image == image:
                score += (count - math.exp(float(x @ beta))) * x
        meat += np.outer(score, score)
    bread = np.linalg.inv(information)
    # For few clusters: G / (G - 1) * (N - 1) / (N - k).
    few = images / (images - 1) * (len(rows) - 1) / (len(rows) - 3)
    error = math.sqrt(few * (bread @ meat @ bread)[1, 1])
    value, lookahead = beta[1], 1.959964 * error
    return math.exp(value), math.exp(value - lookahead), math.exp(value + lookahead)


def sample(seed: int, images: int, ratio: float) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    source = np.random.default_rng(seed)
    hard = source.gamma(2, 0.5, images)

    def run(factor: float, longest: int) -> tuple[Floats, Floats]:
        words = source.integers(0, longest, images).astype(float)
        return source.poisson(0.02 * factor * hard * words).astype(float), words

    return run(ratio, 80), run(1.0, 120)


@pytest.mark.parametrize("seed", range(8))
def test_ratio_and_interval_are_those_of_the_model_written_out(seed: int) -> None:
    run, baseline = sample(seed, 25 + 10 * seed, (0.5, 1.0, 2.0)[seed % 3])
    found = rate_ratio(run, baseline)
    assert (found.value, found.low, found.high) == pytest.approx(naive(run, baseline), rel=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_at_equal_lengths_it_is_the_ratio_of_the_counts(seed: int) -> None:
    source = np.random.default_rng(seed)
    words = np.full(40, 70.0)
    counts = source.poisson(1.0, 40).astype(float), source.poisson(2.0, 40).astype(float)
    found = rate_ratio((counts[0], words), (counts[1], words))
    assert found.value == pytest.approx(counts[0].sum() / counts[1].sum())


def test_the_interval_holds_the_ratio_in_95_of_100_samples() -> None:
    held = 0
    for seed in range(300):
        found = rate_ratio(*sample(seed, 150, 0.6))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.6 <= found.high
    # The simulation's own error is 1.3 points.
    assert 0.91 <= held / 300 <= 0.99


def test_brevity_alone_is_no_ratio_where_hallucinations_grow_with_words_and_repeats_are() -> None:
    source = np.random.default_rng(0)
    words = source.integers(40, 120, 800).astype(float)
    short = np.round(words * 0.6)

    def counts(of: Floats) -> Floats:
        return source.poisson(0.02 * of).astype(float)

    brief = rate_ratio((counts(short), short), (counts(words), words))
    assert brief.low is not None
    assert brief.high is not None
    assert brief.low < 1 < brief.high
    # The same objects in twice the words, as of a caption that repeats itself: the rate falls, nothing else did.
    repeats = rate_ratio((counts(words), 2 * words), (counts(words), words))
    assert repeats.high is not None
    assert repeats.high < 0.9


def test_what_cannot_be_estimated_has_no_interval() -> None:
    some, none, words = np.array([1.0, 0.0, 2.0]), np.zeros(3), np.array([10.0, 20.0, 30.0])
    assert rate_ratio((none, words), (some, words)) == NO_INTERVAL
    assert rate_ratio((some, words), (none, words)) == NO_INTERVAL
    # Every caption of the run has 10 words and every one of the baseline's 20: length and run cannot be told apart.
    assert rate_ratio((some, np.full(3, 10.0)), (some, np.full(3, 20.0))) == NO_INTERVAL
    assert rate_ratio((some[:1], words[:1]), (some[:1], words[:1])) == NO_INTERVAL
    empty = rate_ratio((some, np.array([0.0, 20.0, 30.0])), (some, words))
    assert empty.value is not None
