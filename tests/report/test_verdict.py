from __future__ import annotations

import pytest

from lmms_fixattn.metrics.bootstrap import NO_INTERVAL, Interval
from lmms_fixattn.metrics.truncation import Truncation
from lmms_fixattn.report.verdict import FEWEST_IMAGES, verdict

ACROSS, BELOW, ABOVE = Interval(-1.0, -3.0, 1.0), Interval(-4.0, -6.0, -2.0), Interval(4.0, 2.0, 6.0)
ZERO = Interval(0.0, 0.0, 0.0)
MANNER = {"recall": ACROSS, "looped": ACROSS, "unterminated": ACROSS}


def said(
    chair_s: Interval,
    delta: Interval | None = None,
    chair_i: Interval = ACROSS,
    once: Interval = ACROSS,
    n: int = 500,
    **changes: Interval,
) -> str:
    differences = {"chair_s": chair_s} | MANNER | changes
    columns = {name: Interval(50.0, 40.0, 60.0) for name in differences}
    words = None if delta is None or delta.value is None else 40
    beyond = None if delta is None else Truncation(delta, chair_i, words, None, once)
    return verdict(columns, differences, beyond, dict.fromkeys(differences, n))


@pytest.mark.parametrize(
    ("chair_s", "delta", "words"),
    [
        (
            BELOW,
            BELOW,
            "CHAIR_s lower (-4.0 [-6.0, -2.0]), and better than cutting the baseline after 40 words (CHAIR_s -4",
        ),
        (
            BELOW,
            ACROSS,
            "lower (-4.0 [-6.0, -2.0]), but no better than cutting the baseline after 40 words (CHAIR_s -1",
        ),
        (BELOW, ABOVE, "lower (-4.0 [-6.0, -2.0]), but worse than cutting the baseline after 40 words (CHAIR_s +4"),
        (ACROSS, ACROSS, "no different (-1.0 [-3.0, +1.0]), and no better than cutting"),
        (ACROSS, ABOVE, "no different (-1.0 [-3.0, +1.0]), and worse than cutting"),
        (ABOVE, ABOVE, "higher (+4.0 [+2.0, +6.0]), and worse than cutting"),
        (BELOW, None, "CHAIR_s lower (-4.0 [-6.0, -2.0])"),
        (
            BELOW,
            NO_INTERVAL,
            "lower (-4.0 [-6.0, -2.0]) at a recall above the baseline's, so brevity is not what does it",
        ),
        (ACROSS, NO_INTERVAL, "no different (-1.0 [-3.0, +1.0]), with a recall above the baseline's, which no cut"),
    ],
)
def test_the_interval_of_chair_s_and_that_of_its_delta_decide(
    chair_s: Interval, delta: Interval | None, words: str
) -> None:
    text = said(chair_s, delta)
    assert words in text
    for other in ("and better than", "no better than", "worse than"):
        assert (other in text) == (other in words)


def test_a_bound_at_zero_decides_nothing() -> None:
    assert "no different" in said(Interval(-2.0, -4.0, 0.0), ACROSS)
    assert "no better than" in said(BELOW, Interval(-2.0, -4.0, 0.0))


def test_chair_i_is_said_where_it_points_elsewhere() -> None:
    assert "CHAIR_i" not in said(BELOW, ACROSS)
    assert "CHAIR_i" not in said(BELOW, BELOW, BELOW, BELOW)
    assert "though better in CHAIR_i (-4.0" in said(BELOW, ACROSS, BELOW, BELOW)
    assert "and worse in CHAIR_i (+4.0" in said(BELOW, ACROSS, ABOVE)
    assert (
        "and better than cutting the baseline after 40 words (CHAIR_s -4.0 [-6.0, -2.0]), but worse in CHAIR_i"
        in said(BELOW, BELOW, ABOVE)
    )


def test_a_chair_i_that_only_repeats_lower_is_no_merit() -> None:
    text = said(BELOW, ACROSS, BELOW, ABOVE)
    assert (
        "better in CHAIR_i (-4.0 [-6.0, -2.0]) only by repeats, with each object counted once no better (+4.0" in text
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
    assert text.endswith("POPE chat random no different")
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
    text = said(ZERO, BELOW, n=n, **dict.fromkeys(MANNER, ZERO))
    assert text == "identical to the baseline in every column and every draw"
