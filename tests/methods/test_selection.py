"""Selection against plain Python on random attention, ties included."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmms_fixattn.methods.formulas.selection import largest, outliers, select_tokens

rows = st.lists(st.integers(0, 12), min_size=4, max_size=40)


def naive_largest(values, count):
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    return [i in order[:count] for i in range(len(values))]


def naive_quantile(values, q):
    ordered, place = sorted(values), q * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


@given(rows, st.integers(0, 45))
def test_largest_takes_the_earlier_of_equals(values, count):
    assert largest(torch.tensor([values]), count)[0].tolist() == naive_largest(values, count)


@given(rows)
def test_outliers_lie_above_tukeys_fence(values):
    q1, q3 = naive_quantile(values, 0.25), naive_quantile(values, 0.75)
    fence = q3 + 1.5 * (q3 - q1)
    assert outliers(torch.tensor([values], dtype=torch.float64))[0].tolist() == [value > fence for value in values]


@pytest.mark.parametrize("ratio", [0, 0.05, 0.1, 0.25, 0.29, 1])
@pytest.mark.parametrize("spatial_ratio", [0, 0.05, 0.15])
def test_sets_are_disjoint_and_of_the_right_size(ratio, spatial_ratio):
    draw = torch.Generator().manual_seed(3)
    first, second_last, received = (torch.rand(4, 576, generator=draw) ** 6 for _ in range(3))
    tokens = select_tokens(first, second_last, received, ratio, spatial_ratio)
    for image in range(4):
        summary = set(outliers(second_last)[image].nonzero().flatten().tolist())
        local = {i for i, x in enumerate(naive_largest(first[image].tolist(), int(ratio * 576))) if x}
        local |= {i for i, x in enumerate(naive_largest(received[image].tolist(), int(spatial_ratio * 576))) if x}
        assert set(tokens.summary[image].nonzero().flatten().tolist()) == summary
        assert set(tokens.local[image].nonzero().flatten().tolist()) == local - summary
    assert 0 < tokens.summary.sum() < 4 * 576


def test_images_do_not_see_each_other():
    random.seed(5)
    draw = torch.Generator().manual_seed(4)
    parts = [torch.rand(3, 37, generator=draw) for _ in range(3)]
    together = select_tokens(*parts, 0.25, 0.1)
    for image in range(3):
        alone = select_tokens(*(part[image : image + 1] for part in parts), 0.25, 0.1)
        assert torch.equal(alone.local[0], together.local[image])
        assert torch.equal(alone.summary[0], together.summary[image])
