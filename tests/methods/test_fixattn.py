"""FixAttn's selection and gains put together; the parts have tests of their own."""

from __future__ import annotations

import dataclasses

import torch
from query_rows import make_rows

from lmms_fixattn import make_method
from lmms_fixattn.models.clip_attention import VisionAttention


def test_the_defaults_are_the_best_row_of_the_paper():
    values = dataclasses.asdict(make_method("fixattn"))
    assert values == {
        "alpha": 0.7, "beta": 0.4, "local_ratio": 0.25, "spatial_ratio": 0.0, "spatial": "received",
        "layers": (2, None), "gamma": 1.1, "cutoff": 0.1, "released_first_token": True,
        "head_modulation": "off", "g_max": 2.0, "share": 0.5,
    }  # fmt: skip


def test_summary_wins_over_local_and_spatial_joins_local():
    first = torch.tensor([[0.9, 0.8, 0.1, 0.2, 0.3, 0.15, 0.12, 0.11]])
    second_last = torch.tensor([[9.0, 0.1, 0.11, 0.12, 0.1, 0.11, 0.12, 0.1]])
    received = torch.tensor([[0.1, 0.1, 0.1, 5.0, 0.1, 0.1, 0.1, 0.1]])
    vision = VisionAttention(False, first, second_last, received)
    gains = make_method("fixattn", spatial_ratio=0.125).select(vision)
    torch.testing.assert_close(gains, torch.tensor([[0.4, 0.7, 0.0, 0.7, 0.0, 0.0, 0.0, 0.0]]))


def test_a_head_keeps_the_gain_that_it_had_at_prefill():
    method = make_method("fixattn", gamma=1, head_modulation="top", share=0.5)
    is_image = [[True, False]]
    measured: dict[int, torch.Tensor] = {}
    prompt = torch.tensor([[[3.0, 0.0], [0.0, 3.0]]])
    method.edit_scores(make_rows(prompt, is_image, 0.7, prefill=True, measured=measured))
    torch.testing.assert_close(prompt, torch.tensor([[[5.1, 0.0], [0.0, 3.0]]]))
    later = torch.tensor([[[1.0, 0.0, 4.0], [9.0, 0.0, 4.0]]])
    method.edit_scores(make_rows(later, is_image, 0.7, measured=measured))
    torch.testing.assert_close(later, torch.tensor([[[1.7, 0.0, 4.0], [9.0, 0.0, 4.0]]]))


def test_heads_are_measured_at_prefill_even_where_it_is_not_amplified():
    method = make_method("fixattn", head_modulation="proportional")
    measured: dict[int, torch.Tensor] = {}
    scores = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    before = scores.clone()
    assert method.needs_row(prefill=True)
    method.edit_scores(make_rows(scores, [[True, False]], 0.7, prefill=True, layer=3, measured=measured))
    assert torch.equal(scores, before)
    assert measured[3].flatten()[0] > 1 > measured[3].flatten()[1]
