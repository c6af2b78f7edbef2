"""PAI's formula and its published settings."""

from __future__ import annotations

import dataclasses

import torch
from query_rows import make_rows

from lmms_fixattn import make_method


def test_the_defaults_are_the_released_command_line_with_the_first_token_amplified():
    assert dataclasses.asdict(make_method("pai")) == {
        "alpha": 0.2,
        "layers": (2, None),
        "gamma": 1.1,
        "cutoff": 0.1,
        "released_first_token": False,
    }


def test_scores_of_image_tokens_grow_by_alpha_of_their_size():
    method = make_method("pai", alpha=0.5, gamma=1)
    scores = torch.tensor([[[2.0, 2.0, -2.0, -4.0]]])
    method.edit_scores(make_rows(scores, [[False, True, True]]))
    assert scores.tolist() == [[[2.0, 3.0, -1.0, -4.0]]]


def test_only_the_refine_of_the_released_code_leaves_the_prefill_alone():
    assert not make_method("pai", released_first_token=True).needs_row(prefill=True)
    assert make_method("pai", released_first_token=True).needs_row(prefill=False)
    assert make_method("pai", released_first_token=True, gamma=1).needs_row(prefill=True)
    assert make_method("pai").needs_row(prefill=True)
