"""HGAI's formula and its published settings."""

from __future__ import annotations

import dataclasses

import torch
from query_rows import make_rows

from lmms_fixattn import make_method


def test_the_defaults_are_the_released_command_line_which_includes_layer_18():
    assert dataclasses.asdict(make_method("hgai")) == {"alpha": 0.5, "layers": (5, 19)}


def test_every_head_gets_the_mean_of_the_absolute_scores_on_an_image_token():
    method = make_method("hgai", alpha=0.5)
    scores = torch.tensor([[[1.0, 4.0, -3.0], [1.0, -2.0, 5.0]]])
    method.edit_scores(make_rows(scores, [[False, True]]))
    assert scores.tolist() == [[[1.0, 5.5, -3.0], [1.0, -0.5, 5.0]]]
