from __future__ import annotations

import pytest

from lmms_fixattn.report.verdict import FEWEST_IMAGES, verdict
from lmms_fixattn.scoring.bootstrap import Interval
from lmms_fixattn.scoring.truncation import Truncation

ACROSS, BELOW, ABOVE = Interval(-1.0, -3.0, 1.0), Interval(-4.0, -6.0, -2.0), Interval(4.0, 2.0, 6.0)
ZERO = Interval(0.0, 0.0, 0.0)
MANNER = {"recall": ACROSS, "looped": ACROSS, "unterminated": ACROSS}


def said(
    chair_s: Interval,
    delta: Interval | None = None,
    chair_i: Interval = ACROSS,
    once: Interval = ACROSS,
    n: int = 500,
    worst: Interval = ACROSS,
    worst_chair_i: Interval = ACROSS,
    own_chair_i: Interval = ACROSS,
    holm: dict[str, float] | None = None,
    tests: int = 1,
    **changes: Interval,
) -> str:
    differences = {"chair_s": chair_s, "chair_i": own_chair_i} | MANNER | changes
    columns = {name: Interval(50.0, 40.0, 60.0) for name in differences}
    beyond = delta and Truncation(delta, chair_i, once, "the first 40 words", worst, worst_chair_i, 0.5)
    return verdict(columns, differences, beyond, dict.fromkeys(differences, n), holm, tests)


@pytest.mark.parametrize(
    ("chair_s", "delta", "worst", "words"),
    [
        (
            BELOW,
            BELOW,
            ACROSS,
            "lower (-4.0 [-6.0, -2.0]), and better than saying less (the first 40 words: CHAIR_s -4.0 [-6.0, -2.0])",
        ),
        (
            BELOW,
            ACROSS,
            ACROSS,
            "lower (-4.0 [-6.0, -2.0]), but not shown to be better than saying less (the first 40 words: CHAIR_s -1.0",
        ),
        # Unequal lengths lie above the best cut, and what lowers CHAIR_s is no harm.
        (BELOW, ABOVE, ABOVE, "lower (-4.0 [-6.0, -2.0]), but not shown to be better than saying less"),
        (ACROSS, ABOVE, ABOVE, "not told apart (-1.0 [-3.0, +1.0]), and not shown to be better than saying less"),
        (ACROSS, ACROSS, ACROSS, "not told apart (-1.0 [-3.0, +1.0]), and not shown to be better than saying less"),
        (ABOVE, ABOVE, ACROSS, "higher (+4.0 [+2.0, +6.0]), and not shown to be better than saying less"),
        (
            ABOVE,
            ABOVE,
            ABOVE,
            "higher (+4.0 [+2.0, +6.0]), and worse than every cut of the baseline (CHAIR_s +4.0 [+2.0, +6.0] from",
        ),
        (Interval(1.0, -1.0, 3.0), ABOVE, ABOVE, "not told apart (+1.0 [-1.0, +3.0]), and worse than every cut"),
        (BELOW, None, ACROSS, "CHAIR_s lower (-4.0 [-6.0, -2.0])"),
    ],
)
def test_the_interval_of_chair_s_and_those_of_its_distances_from_the_cuts_decide(
    chair_s: Interval, delta: Interval | None, worst: Interval, words: str
) -> None:
    text = said(chair_s, delta, worst=worst)
    assert words in text
    for other in ("and better than", "not shown to be better than", "worse than"):
        assert (other in text) == (other in words)


def test_what_is_not_shown_comes_with_the_smallest_gain_that_would_be() -> None:
    # Two points from value to bound, and 0.84 of a standard deviation of 4 / 3.92.
    assert "where a gain of 2.9 would show in 8 of 10 samples)" in said(BELOW, ACROSS)
    assert "would show" not in said(BELOW, BELOW)


def test_a_bound_at_zero_decides_nothing() -> None:
    assert "not told apart" in said(Interval(-2.0, -4.0, 0.0), ACROSS)
    assert "not shown to be better" in said(BELOW, Interval(-2.0, -4.0, 0.0))


def test_what_does_not_outlive_the_number_of_runs_is_said_to_hold_by_itself_alone() -> None:
    alone = {"chair_s": 0.2, "beyond": 0.3}
    text = said(BELOW, BELOW, holm=alone, tests=9)
    assert "lower (-4.0 [-6.0, -2.0], by itself alone: p 0.200 after Holm over 9 runs)" in text
    assert "CHAIR_s -4.0 [-6.0, -2.0], by itself alone: p 0.300 after Holm over 9 runs)" in text
    for holm, tests in (({"chair_s": 0.05, "beyond": 0.05}, 9), (alone, 1)):
        assert "Holm" not in said(BELOW, BELOW, holm=holm, tests=tests)
    # What was not claimed needs no correction.
    assert "Holm" not in said(ACROSS, ACROSS, holm=alone, tests=9)


def test_chair_i_is_said_where_it_points_elsewhere() -> None:
    assert "CHAIR_i" not in said(BELOW, ACROSS)
    assert "CHAIR_i" not in said(BELOW, BELOW, BELOW, BELOW)
    assert "though better in CHAIR_i (-4.0" in said(BELOW, ACROSS, BELOW, BELOW)
    assert "of 10 samples), though" in said(BELOW, ACROSS, BELOW, BELOW)
    worse = said(BELOW, BELOW, ABOVE, worst_chair_i=ABOVE, own_chair_i=ABOVE)
    assert "CHAIR_s -4.0 [-6.0, -2.0]), but worse than every cut in CHAIR_i (+4.0 [+2.0, +6.0])" in worse
    assert "CHAIR_i" not in said(BELOW, BELOW, ABOVE, worst_chair_i=ABOVE)


def test_a_chair_i_that_only_repeats_lower_is_no_merit() -> None:
    text = said(BELOW, ACROSS, BELOW, ABOVE)
    assert (
        "better in CHAIR_i (-4.0 [-6.0, -2.0]) only by repeats, with each object counted once not shown to be (+4.0"
        in text
    )


def test_recall_loops_and_ends_are_said_where_their_differences_are_clear() -> None:
    assert said(BELOW, ACROSS).count(";") == 0
    text = said(BELOW, ACROSS, recall=BELOW, looped=ABOVE, unterminated=ABOVE)
    assert "loses recall (-4.0 [-6.0, -2.0])" in text
    assert "loops more often (50.0% of captions, baseline 46.0%)" in text
    assert "ends less often by itself (50.0% of captions are cut off, baseline 46.0%)" in text
    text = said(BELOW, ACROSS, recall=ABOVE, looped=BELOW, unterminated=BELOW)
    assert "gains recall" in text
    assert "loops less often (50.0% of captions, baseline 54.0%)" in text
    assert "ends more often by itself" in text


def test_pope_is_said_by_split() -> None:
    text = said(
        ACROSS, pope_random_accuracy=ABOVE, pope_popular_accuracy=BELOW, pope_chat_random_accuracy=ACROSS, pope_f1=ABOVE
    )
    assert "POPE random better (accuracy +4.0 [+2.0, +6.0]); POPE popular worse (accuracy -4.0" in text
    assert text.endswith("POPE chat random not told apart")
    alone = {"pope_accuracy": BELOW}
    assert verdict(alone, alone, None, {"pope_accuracy": 30}) == "POPE worse (accuracy -4.0 [-6.0, -2.0])"


def test_of_few_images_nothing_is_concluded() -> None:
    assert said(BELOW, BELOW, n=FEWEST_IMAGES - 1) == "captions: too few images for a verdict (29; it takes 30)"
    assert "better than" in said(BELOW, BELOW, n=FEWEST_IMAGES)
    differences = {"chair_s": BELOW, **MANNER, "pope_random_accuracy": ABOVE}
    images = dict.fromkeys(differences, 100) | {"pope_random_accuracy": 5}
    text = verdict(differences, differences, None, images)
    assert text.startswith("CHAIR_s lower")
    assert text.endswith("POPE random: too few images for a verdict (5; it takes 30)")


@pytest.mark.parametrize("n", [1, 500])
def test_identical_runs_are_called_so_at_any_n(n: int) -> None:
    text = said(ZERO, BELOW, n=n, own_chair_i=ZERO, **dict.fromkeys(MANNER, ZERO))
    assert text == "identical to the baseline in every column and every draw"
