"""VAF's formula and its published settings."""

from __future__ import annotations

import dataclasses

import torch
from query_rows import make_rows
from tiny_llava import IMAGE, PATCHES, make_prompt

from lmms_fixattn import intervene, make_method


def test_the_defaults_are_the_published_ones_in_layers_9_to_14():
    assert dataclasses.asdict(make_method("vaf")) == {"enhance": 1.15, "suppress": 0.95, "layers": (9, 15)}


def test_scores_on_the_image_and_before_it_are_scaled_and_keep_their_sign():
    method = make_method("vaf", enhance=1.5, suppress=0.5)
    scores = torch.tensor([[[2.0, 2.0, -2.0, 3.0, 5.0]]])
    method.edit_scores(make_rows(scores, [[False, True, True, False]]))
    torch.testing.assert_close(scores, torch.tensor([[[1.0, 3.0, -3.0, 3.0, 5.0]]]))


def test_of_a_prompt_that_ends_with_its_image_the_newest_row_is_edited(llava):
    ids = torch.tensor([[1, 7, 9, *[IMAGE] * PATCHES]])
    pixels = make_prompt(seed=4).pixel_values
    plain = llava(input_ids=ids, pixel_values=pixels).logits
    with intervene(llava, make_method("vaf", enhance=1.5, layers="0-")):
        edited = llava(input_ids=ids, pixel_values=pixels).logits
    torch.testing.assert_close(edited[:, :-1], plain[:, :-1])
    assert not torch.allclose(edited[:, -1], plain[:, -1])


def test_text_between_two_images_comes_after_the_first():
    method = make_method("vaf", enhance=1.5, suppress=0.5)
    scores = torch.tensor([[[2.0, 2.0, 2.0, 2.0, 2.0]]])
    method.edit_scores(make_rows(scores, [[False, True, False, True, False]]))
    torch.testing.assert_close(scores, torch.tensor([[[1.0, 3.0, 2.0, 3.0, 2.0]]]))
