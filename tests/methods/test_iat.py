"""IAT's formula and its published settings."""

from __future__ import annotations

import dataclasses

import torch
from query_rows import make_rows

from lmms_fixattn import make_method


def test_the_defaults_are_the_released_ones():
    assert dataclasses.asdict(make_method("iat")) == {"alpha": 0.8, "layers": (5, 18)}


def test_scores_of_generated_tokens_grow_by_alpha_of_their_size():
    scores = torch.tensor([[[2.0, 1.0, 4.0, -2.0]]])
    make_method("iat", alpha=0.5).edit_scores(make_rows(scores, [[False, True]]))
    assert scores.tolist() == [[[2.0, 1.0, 6.0, -1.0]]]


def test_the_prefill_and_answers_to_prompts_without_image_are_left_alone():
    method = make_method("iat")
    assert not method.needs_row(prefill=True)
    scores = torch.tensor([[[2.0, 1.0, 4.0]]])
    method.edit_scores(make_rows(scores, [[False, False]]))
    assert scores.tolist() == [[[2.0, 1.0, 4.0]]]
