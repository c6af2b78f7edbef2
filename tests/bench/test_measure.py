"""Ratios of times against a naive reading of them, and what is timed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmms_fixattn.bench import measure
from lmms_fixattn.bench.measure import Times, interleave, median, ratio, time_answer

SECONDS = st.floats(0.001, 1000)
CPU = torch.device("cpu")


def middle(values):
    """The median by its definition: the middle value, or the mean of the two in the middle."""
    values = sorted(values)
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2


@given(st.lists(st.tuples(SECONDS, SECONDS, SECONDS, SECONDS), min_size=1, max_size=9))
def test_a_ratio_is_the_median_of_the_ratios_within_rounds(rounds):
    mine = [Times(prefill, step, None, 0) for prefill, step, _, _ in rounds]
    other = [Times(prefill, step, None, 0) for _, _, prefill, step in rounds]
    assert ratio(mine, other, "prefill") == pytest.approx(middle([r[0] / r[2] for r in rounds]))
    assert ratio(mine, other, "step") == pytest.approx(middle([r[1] / r[3] for r in rounds]))
    assert median(mine, "step") == pytest.approx(middle([r[1] for r in rounds]))


def test_a_slow_round_does_not_count_when_it_hits_both():
    mine = [Times(1, 2, None, 0), Times(100, 200, None, 0), Times(1, 2, None, 0)]
    other = [Times(1, 1, None, 0), Times(100, 100, None, 0), Times(1, 1, None, 0)]
    assert ratio(mine, other, "step") == 2


def test_every_way_runs_once_a_round_in_changing_order_and_warm_up_does_not_count():
    ran = []

    def way(name):
        def run():
            ran.append(name)
            return Times(len(ran), 1, None, 0)

        return run

    times = interleave({name: way(name) for name in "abc"}, rounds=5, warm_up=2)
    assert [sorted(ran[start : start + 3]) for start in range(0, 21, 3)] == [["a", "b", "c"]] * 7
    assert len({tuple(ran[start : start + 3]) for start in range(0, 21, 3)}) > 1
    assert {name: [ran[int(taken.prefill) - 1] for taken in found] for name, found in times.items()} == {
        name: [name] * 5 for name in "abc"
    }
    assert min(taken.prefill for found in times.values() for taken in found) == 7


def test_prefill_lasts_to_the_first_token_and_a_step_is_the_median_of_the_later_ones(monkeypatch):
    now = [3.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])

    def answer(marks):
        for seconds in (5, 0.25, 9, 0.125, 0.25):
            now[0] += seconds
            assert not marks(torch.zeros(2, 7, dtype=torch.long), None).any()

    assert time_answer(answer, CPU) == Times(5, 0.25, None, 0)
    with pytest.raises(ValueError, match="expected tokens after the first, got none"):
        time_answer(lambda marks: marks(torch.zeros(2, 7), None), CPU)
