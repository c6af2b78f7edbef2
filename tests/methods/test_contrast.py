"""The formulas of contrasts by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmms_fixattn.methods.formulas.contrast import contrast, jensen_shannon

scores = st.lists(st.floats(-8, 8, width=32), min_size=4, max_size=4)


@given(scores, scores, st.floats(0, 3), st.floats(0, 1))
def test_the_contrast_is_the_published_formula(with_image, without_image, weight, cutoff):
    result = contrast(torch.tensor([with_image]), torch.tensor([without_image]), weight, cutoff)[0]

    def log_softmax(x):
        total = math.log(sum(math.exp(v) for v in x))
        return [v - total for v in x]

    lc, lu = log_softmax(with_image), log_softmax(without_image)
    for out, c, u in zip(result.tolist(), lc, lu, strict=True):
        margin = c - max(lc) - (math.log(cutoff) if cutoff else -math.inf)
        if abs(margin) > 1e-4:
            assert out == (pytest.approx((1 + weight) * c - weight * u, abs=1e-3) if margin > 0 else -math.inf)


def test_no_weight_gives_the_distribution_with_image_and_excluded_tokens_stay_excluded():
    with_image = torch.tensor([[0.5, -math.inf, 1.5]])
    result = contrast(with_image, torch.tensor([[3.0, 9.0, -1.0]]), weight=0.0, cutoff=0.0)
    torch.testing.assert_close(result, with_image.log_softmax(-1))


def test_at_least_the_most_likely_token_survives_any_cutoff():
    result = contrast(torch.randn(5, 11), torch.randn(5, 11), weight=1.0, cutoff=1.0)
    assert result.isfinite().sum(dim=1).tolist() == [1] * 5


@given(scores, scores)
def test_the_divergence_is_the_mean_of_those_from_the_mean_distribution(one, other):
    p, q = (torch.tensor(x, dtype=torch.float64).softmax(-1) for x in (one, other))
    m = [(a + b) / 2 for a, b in zip(p.tolist(), q.tolist(), strict=True)]
    parts = [sum(a * math.log(a / c) for a, c in zip(x.tolist(), m, strict=True)) for x in (p, q)]
    assert jensen_shannon(p, q).item() == pytest.approx(sum(parts) / 2, abs=1e-9)


def test_the_divergence_of_what_excludes_each_other_is_log_2():
    assert jensen_shannon(torch.tensor([0.25, 0.75, 0.0]), torch.tensor([0.0, 0.0, 1.0])).item() == pytest.approx(
        math.log(2)
    )
