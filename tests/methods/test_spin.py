"""SPIN's formula and its published settings."""

from __future__ import annotations

import dataclasses

import torch
from query_rows import edited, make_rows

from lmms_fixattn import make_method


def test_the_defaults_are_the_released_ones_for_captions():
    assert dataclasses.asdict(make_method("spin")) == {"kept": 0.95, "factor": 0.08, "layers": (0, None)}


def weights_after(method, scores, is_image, **settings):
    rows = make_rows(torch.tensor(scores), is_image, **settings)
    before = rows.weights()
    return edited(method, rows) / before


def test_heads_are_ranked_by_raw_scores_on_the_image_not_by_attention_mass():
    # Head 0 puts nearly all of its attention on the image, but has the lower score there.
    scores = [[[-9.0, 1.0], [9.0, 2.0], [0.0, 3.0]]]
    factors = weights_after(make_method("spin", kept=0.67, factor=0.25), scores, [[False, True]])
    torch.testing.assert_close(factors, torch.tensor([[[0.25, 0.25], [1.0, 1.0], [1.0, 1.0]]]))


def test_each_row_ranks_its_own_heads_and_one_without_image_keeps_all():
    scores = [[[0.0, 1.0], [0.0, 2.0]], [[0.0, 2.0], [0.0, 1.0]], [[0.0, 2.0], [0.0, 1.0]]]
    is_image = [[False, True], [False, True], [False, False]]
    factors = weights_after(make_method("spin", kept=0.5, factor=0), scores, is_image)
    assert factors[..., 0].tolist() == [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
