from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from lmms_fixattn.scoring import bootstrap
from lmms_fixattn.scoring.bootstrap import Floats, Interval

SIMULATIONS = 600
DRAWS = 400
N = 61


def test_the_same_seed_draws_the_same_images_and_rows_hold_all_of_them() -> None:
    weights = bootstrap.draw_weights(13, 37, seed=5)
    assert weights.shape == (37, 13)
    assert (weights.sum(axis=1) == 13).all()
    assert (weights == weights.astype(int)).all()
    assert (weights == bootstrap.draw_weights(13, 37, seed=5)).all()
    assert (weights != bootstrap.draw_weights(13, 37, seed=6)).any()
    # Each image is in a draw once on average, with the multinomial's variance 1 - 1/n.
    many = bootstrap.draw_weights(13, 20000, seed=0)
    assert many.mean(axis=0) == pytest.approx(np.ones(13), abs=0.03)
    assert many.var(axis=0) == pytest.approx(np.full(13, 12 / 13), abs=0.05)


@pytest.mark.parametrize(("n", "draws"), [(0, 10), (10, 0)])
def test_no_images_or_no_draws_are_an_error(n: int, draws: int) -> None:
    with pytest.raises(ValueError, match=f"n={n} and draws={draws}"):
        bootstrap.draw_weights(n, draws, 0)


def test_ratios_and_intervals_are_those_of_a_loop_over_drawn_images() -> None:
    draw = random.Random(3)
    for n in (1, 2, 7, 23):
        parts = [[draw.randint(0, 3) for _ in range(2)] for _ in range(n)]
        wholes = [[draw.randint(0, 1), draw.randint(1, 4)] for _ in range(n)]
        weights = bootstrap.draw_weights(n, 29, seed=n)
        found = bootstrap.ratios(weights, np.array(parts, dtype=float), np.array(wholes, dtype=float))
        for row, counts in enumerate(weights):
            images = [image for image, count in enumerate(counts) for _ in range(int(count))]
            assert len(images) == n
            for column in (0, 1):
                part, whole = (sum(table[image][column] for image in images) for table in (parts, wholes))
                assert found[row, column] == pytest.approx(100 * part / whole if whole else 0)
        drawn = sorted(found[:, 1])
        # Linear interpolation between order statistics: position p * (29 - 1).
        expected = [drawn[0] + 0.7 * (drawn[1] - drawn[0]), drawn[27] + 0.3 * (drawn[28] - drawn[27])]
        assert bootstrap.interval(1.5, found[:, 1]) == Interval(
            1.5, pytest.approx(expected[0]), pytest.approx(expected[1])
        )


def test_an_interval_lies_on_a_side_of_zero_only_as_a_whole() -> None:
    assert Interval(1, 0.1, 2).above_zero
    assert not Interval(1, 0.1, 2).below_zero
    assert Interval(-1, -2, -0.1).below_zero
    for across in (Interval(1, 0, 2), Interval(-1, -2, 0), Interval(0, 0, 0), Interval(1), Interval(None)):
        assert not across.above_zero
        assert not across.below_zero


def coverage(figure: Callable[[Floats, Floats, Floats], Floats], truth: float) -> float:
    """Share of simulated samples of N images whose interval holds the truth."""
    source = np.random.default_rng(7)
    held = 0
    weights = bootstrap.draw_weights(N, DRAWS, seed=11)
    for _ in range(SIMULATIONS):
        # Images differ in how many objects they show (0 to 8) and in how hard they are, which two runs share.
        objects = source.integers(0, 9, N).astype(float)
        hard = source.beta(2, 3, N)
        first = source.binomial(objects.astype(int), hard).astype(float)
        second = source.binomial(objects.astype(int), 0.8 * hard).astype(float)
        found = bootstrap.interval(0.0, figure(weights, np.stack([first, second], axis=1), objects))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
    return held / SIMULATIONS


# E[objects] = 4, E[hard] = 0.4, independent.
@pytest.mark.parametrize(
    ("figure", "truth"),
    [
        pytest.param(lambda w, x, t: bootstrap.ratios(w, x[:, 0], np.ones(N), 1.0), 1.6, id="mean"),
        pytest.param(lambda w, x, t: bootstrap.ratios(w, x[:, 0], t), 40.0, id="ratio of sums"),
        pytest.param(
            lambda w, x, t: bootstrap.ratios(w, x[:, 1], t) - bootstrap.ratios(w, x[:, 0], t),
            -8.0,
            id="paired difference",
        ),
    ],
)
def test_intervals_hold_the_truth_in_95_of_100_samples(
    figure: Callable[[Floats, Floats, Floats], Floats], truth: float
) -> None:
    # The simulation's own error is 0.9 points; percentile intervals of 61 images fall short by about one point.
    assert 0.92 <= coverage(figure, truth) <= 0.975


def test_pairing_narrows_a_difference() -> None:
    source = np.random.default_rng(1)
    hard = source.beta(2, 3, 200)
    first, second = (hard * 10 + source.normal(0, 0.1, 200) for _ in range(2))
    weights = bootstrap.draw_weights(200, 500, seed=0)
    others = bootstrap.draw_weights(200, 500, seed=1)
    one = np.ones(200)
    paired = bootstrap.interval(0.0, bootstrap.ratios(weights, first, one) - bootstrap.ratios(weights, second, one))
    apart = bootstrap.interval(0.0, bootstrap.ratios(weights, first, one) - bootstrap.ratios(others, second, one))
    assert None not in (paired.low, paired.high, apart.low, apart.high)
    assert paired.high - paired.low < 0.1 * (apart.high - apart.low)  # type: ignore[operator]


def test_p_values_are_counted_by_hand_and_never_zero() -> None:
    drawn = np.array([-3.0, -2, -1, -1, -1, -1, -1, 0, 1])
    assert bootstrap.p_value(drawn) == bootstrap.p_below(drawn) == pytest.approx(2 * 3 / 10)
    assert bootstrap.p_value(-drawn) == pytest.approx(2 * 3 / 10)
    assert bootstrap.p_below(-drawn) == 1
    assert bootstrap.p_value(np.zeros(9)) == bootstrap.p_below(np.zeros(9)) == 1
    assert bootstrap.p_below(np.full(9, -1.0)) == pytest.approx(0.2)


def test_p_is_at_most_a_twentieth_where_the_interval_lies_below_zero_and_only_there() -> None:
    source = np.random.default_rng(0)
    seen = set()
    for shift in np.linspace(1.6, 2.4, 60):
        drawn = source.normal(-shift, 1, 1000)
        below = bootstrap.interval(-shift, drawn).below_zero
        seen.add(below)
        p = bootstrap.p_below(drawn)
        assert p == bootstrap.p_value(drawn)
        # A bound between two draws may be below 0 while the upper of them is not.
        assert below if p <= 0.05 else not below or p <= 0.052
    assert seen == {True, False}


def test_holm_by_hand_and_it_keeps_its_level() -> None:
    assert bootstrap.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert bootstrap.holm([0.5, 0.9]) == [1.0, 1.0]
    assert bootstrap.holm([0.02]) == [0.02]
    assert bootstrap.holm([]) == []
    source = np.random.default_rng(0)
    wrong = sum(min(bootstrap.holm(list(source.random(10)))) <= 0.05 for _ in range(2000)) / 2000
    assert 0.035 <= wrong <= 0.065


def test_a_true_fall_of_the_smallest_size_is_shown_in_eight_of_ten_samples() -> None:
    source = np.random.default_rng(0)
    assert bootstrap.Interval(-1.0, -3.0, 1.0).smallest_fall == pytest.approx(2 + 0.8416 * 4 / 3.92)
    assert bootstrap.NO_INTERVAL.smallest_fall is None
    smallest = bootstrap.Interval(0.0, -1.96, 1.96).smallest_fall
    assert smallest is not None
    values = source.normal(-smallest, 1, 4000)
    shown = sum(bootstrap.Interval(value, value - 1.96, value + 1.96).below_zero for value in values) / 4000
    assert shown == pytest.approx(0.8, abs=0.02)
