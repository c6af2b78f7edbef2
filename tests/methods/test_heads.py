"""Head gains against hand-made numbers and plain Python."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from lmms_fixattn.methods.formulas.heads import proportional_gains, top_gains

masses = st.lists(st.floats(0, 1, width=32), min_size=2, max_size=9)


@given(masses, st.floats(0.5, 3))
def test_proportional_gains_are_mass_over_mean_clipped(mass, g_max):
    gains = proportional_gains(torch.tensor([mass], dtype=torch.float64), g_max)[0]
    mean = sum(mass) / len(mass)
    expected = [min(m / mean, g_max) if mean > 0 else min(1.0, g_max) for m in mass]
    torch.testing.assert_close(gains, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-9)


@given(masses, st.floats(0, 1))
def test_top_gains_mark_the_most_sensitive_share(mass, share):
    gains = top_gains(torch.tensor([mass]), share)[0].tolist()
    best = sorted(range(len(mass)), key=lambda h: (-mass[h], h))[: int(share * len(mass))]
    assert gains == [1.0 if h in best else 0.0 for h in range(len(mass))]


def test_rows_are_independent_and_a_row_without_image_gets_ones():
    sensitivity = torch.tensor([[0.2, 0.4, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(proportional_gains(sensitivity, 2.0), torch.tensor([[1.0, 2.0, 0.0], [1.0, 1.0, 1.0]]))
