from __future__ import annotations

import random

import numpy as np
import pytest

from lmms_fixattn.scoring.staircase import StaircaseControl

Points = list[tuple[float, float]]


def naive_height(points: Points, recall: float) -> float:
    """The definition: the least CHAIR_s at this recall or more, or at the most recall that there is."""
    most = max(point[0] for point in points)
    return min(chair_s for at, chair_s in points if at >= min(recall, most))


def drawn(source: random.Random, runs: int, draws: int) -> list[Points]:
    """Corpora of runs, the first the one that was measured; figures that often are equal."""
    return [[(source.randint(0, 8) * 10.0, source.randint(0, 6) * 5.0) for _ in range(runs)] for _ in range(draws)]


def columns(corpora: list[Points], run: int) -> dict[str, tuple[float, np.ndarray]]:
    recall, chair_s = zip(*(corpus[run] for corpus in corpora), strict=True)
    return {"recall": (recall[0], np.array(recall[1:])), "chair_s": (chair_s[0], np.array(chair_s[1:]))}


@pytest.mark.parametrize("seed", range(30))
def test_steps_band_and_distance_are_the_definition_in_every_draw(seed: int) -> None:
    source = random.Random(seed)
    runs = source.randint(1, 5)
    corpora = drawn(source, runs + 1, 14)
    trivial = [corpus[:runs] for corpus in corpora]
    control = StaircaseControl({f"run {run}": columns(corpora, run) for run in range(runs)})
    steps = control.staircase()
    points = trivial[0]
    # Each step is a run that no other equals or beats in both, and heights between steps are the definition's.
    best = sorted({(at, chair_s) for at, chair_s in points if chair_s == naive_height(points, at)})
    best = [point for point in best if not any(other[0] > point[0] and other[1] <= point[1] for other in points)]
    assert list(zip(steps.recall, steps.chair_s, strict=True)) == best
    assert [points[int(name.removeprefix("run "))] for name in steps.runs] == best
    for at, low, high in zip(steps.recall, steps.low, steps.high, strict=True):
        heights = [naive_height(corpus, at) for corpus in trivial[1:]]
        assert (low, high) == pytest.approx(tuple(np.percentile(heights, [2.5, 97.5])))
    own = columns(corpora, runs)
    found = control.minus(own["recall"], own["chair_s"])
    expected = [corpus[runs][1] - naive_height(corpus[:runs], corpus[runs][0]) for corpus in corpora]
    assert found.value == pytest.approx(expected[0])
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(expected[1:], [2.5, 97.5])))


def test_the_steps_of_four_methods_are_those_worked_out_by_hand() -> None:
    at = {"base": (80.0, 50.0), "truncate": (60.0, 20.0), "beam": (70.0, 55.0), "brief": (40.0, 20.0)}
    once = {
        name: {"recall": (recall, np.array([recall])), "chair_s": (chair_s, np.array([chair_s]))}
        for name, (recall, chair_s) in at.items()
    }
    control = StaircaseControl(once)
    steps = control.staircase()
    assert (steps.runs, steps.recall, steps.chair_s) == (("truncate", "base"), (60, 80), (20, 50))

    def minus(recall: float, chair_s: float) -> float | None:
        return control.minus((recall, np.array([recall])), (chair_s, np.array([chair_s]))).value

    assert minus(60.0, 15.0) == -5
    assert minus(60.5, 15.0) == -35
    assert minus(10.0, 15.0) == -5
    assert minus(90.0, 51.0) == 1
