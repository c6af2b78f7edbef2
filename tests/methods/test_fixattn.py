"""FixAttn's selection and gains put together; the parts have tests of their own."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from query_rows import make_rows

from lmms_fixattn import make_method
from lmms_fixattn.methods.views import VisionAttention


def test_the_defaults_are_the_best_row_of_the_paper():
    values = dataclasses.asdict(make_method("fixattn"))
    assert values == {
        "alpha": 0.7, "beta": 0.4, "local_ratio": 0.25, "spatial_ratio": 0.0, "spatial": "received",
        "selection": "vision", "draw": 0,
        "layers": (2, None), "gamma": 1.1, "cutoff": 0.1, "released_first_token": True,
        "head_modulation": "off", "g_max": 2.0, "share": 0.5,
    }  # fmt: skip


def test_summary_wins_over_local_and_spatial_joins_local():
    first = torch.tensor([[0.9, 0.8, 0.1, 0.2, 0.3, 0.15, 0.12, 0.11]])
    second_last = torch.tensor([[9.0, 0.1, 0.11, 0.12, 0.1, 0.11, 0.12, 0.1]])
    received = torch.tensor([[0.1, 0.1, 0.1, 5.0, 0.1, 0.1, 0.1, 0.1]])
    vision = VisionAttention(first, second_last, received)
    gains = make_method("fixattn", spatial_ratio=0.125).select(vision)
    torch.testing.assert_close(gains, torch.tensor([[0.4, 0.7, 0.0, 0.7, 0.0, 0.0, 0.0, 0.0]]))


def test_random_tokens_are_as_many_and_as_strong_as_the_selected_ones():
    draw = torch.Generator().manual_seed(1)
    first, second_last = torch.rand(3, 96, generator=draw), torch.rand(3, 96, generator=draw) ** 9
    vision = VisionAttention(first, second_last, fingerprint=torch.tensor([7, 8, 11]))
    method = make_method("fixattn", selection="random")
    assert "fingerprint" in method.vision_parts - make_method("fixattn").vision_parts
    chosen, drawn = make_method("fixattn").select(vision), method.select(vision)
    assert all(0 < int((row == row.new_tensor(0.4)).sum()) < 24 for row in chosen)
    assert torch.equal(drawn.sort(dim=-1).values, chosen.sort(dim=-1).values)
    assert not torch.equal(drawn, chosen)
    assert not torch.equal(make_method("fixattn", selection="random", draw=1).select(vision), drawn)


def test_a_head_keeps_the_gain_that_it_had_at_prefill():
    method = make_method("fixattn", gamma=1, head_modulation="top", share=0.5)
    is_image = [[True, False]]
    stats: dict[int, torch.Tensor] = {}
    prompt = torch.tensor([[[3.0, 0.0], [0.0, 3.0]]])
    method.edit_scores(make_rows(prompt, is_image, 0.7, prefill=True, prefill_stats=stats))
    torch.testing.assert_close(prompt, torch.tensor([[[5.1, 0.0], [0.0, 3.0]]]))
    later = torch.tensor([[[1.0, 0.0, 4.0], [9.0, 0.0, 4.0]]])
    method.edit_scores(make_rows(later, is_image, 0.7, prefill_stats=stats))
    torch.testing.assert_close(later, torch.tensor([[[1.7, 0.0, 4.0], [9.0, 0.0, 4.0]]]))


def test_heads_are_measured_at_prefill_even_where_it_is_not_amplified():
    method = make_method("fixattn", head_modulation="proportional")
    stats: dict[int, torch.Tensor] = {}
    scores = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    before = scores.clone()
    assert method.needs_row(prefill=True)
    method.edit_scores(make_rows(scores, [[True, False]], 0.7, prefill=True, layer=3, prefill_stats=stats))
    assert torch.equal(scores, before)
    assert stats[3].flatten()[0] > 1 > stats[3].flatten()[1]


def test_heads_are_weighed_at_the_mean_gain_of_no_modulation():
    for heads in (4, 32):
        r = torch.rand(5, heads, generator=torch.Generator().manual_seed(heads)) ** 4
        proportional = make_method("fixattn", head_modulation="proportional", g_max=heads)
        top = make_method("fixattn", alpha=0.7 / 0.5, beta=0.4 / 0.5, head_modulation="top", share=0.5)
        for method in (proportional, top):
            gains = method.head_gains(r).tolist()
            for strength, own in ((method.alpha, 0.7), (method.beta, 0.4)):
                for row in gains:
                    assert sum(strength * g for g in row) / heads == pytest.approx(own)
        assert proportional.head_gains(r).max() > 2  # what the default bound would cut off
