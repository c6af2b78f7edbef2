"""VAF's formula and its published settings."""

from __future__ import annotations

import dataclasses

import torch
from query_rows import make_rows

from lmms_fixattn import make_method


def test_the_defaults_are_the_published_ones_in_layers_9_to_14():
    assert dataclasses.asdict(make_method("vaf")) == {"enhance": 1.15, "suppress": 0.95, "layers": (9, 15)}


def test_scores_on_the_image_and_before_it_are_scaled_and_keep_their_sign():
    method = make_method("vaf", enhance=1.5, suppress=0.5)
    scores = torch.tensor([[[2.0, 2.0, -2.0, 3.0, 5.0]]])
    method.edit_scores(make_rows(scores, [[False, True, True, False]], method.select(None)))
    torch.testing.assert_close(scores, torch.tensor([[[1.0, 3.0, -3.0, 3.0, 5.0]]]))


def test_text_between_two_images_comes_after_the_first():
    method = make_method("vaf", enhance=1.5, suppress=0.5)
    scores = torch.tensor([[[2.0, 2.0, 2.0, 2.0, 2.0]]])
    method.edit_scores(make_rows(scores, [[False, True, False, True, False]], method.select(None)))
    torch.testing.assert_close(scores, torch.tensor([[[1.0, 3.0, 2.0, 3.0, 2.0]]]))
