"""DoLa's formula and its settings."""

from __future__ import annotations

import dataclasses
import math

import torch

from lmms_fixattn import make_method
from lmms_fixattn.engine.contrastive_branch import Step


def guided(method, scores, *states):
    """Guide by states that are logits already: the norm would halve them, and must not be used."""
    return method.guide(scores, Step(0, states=torch.stack(states), norm=lambda x: x / 2))


def test_the_defaults_fit_any_depth():
    assert dataclasses.asdict(make_method("dola")) == {"alpha": 1, "cutoff": 0.1, "layers": (0, None)}
    assert make_method("dola").early_layers == (0, None)


def test_each_row_is_contrasted_with_the_layer_that_differs_most_from_it_without_a_norm():
    scores = torch.tensor([[2.0, 1.5, 1.0], [1.0, 1.2, 1.1]])
    near = torch.tensor([[1.8, 1.5, 1.0], [0.0, 9.0, 0.0]])
    far = torch.tensor([[0.0, 3.0, 0.0], [1.0, 1.3, 1.1]])
    skipped = torch.tensor([[0.0, 0.0, 99.0], [99.0, 0.0, 0.0]])  # every second layer is a candidate
    out = guided(make_method("dola"), scores, near, skipped, far)
    chosen = torch.stack([far[0], near[1]])
    torch.testing.assert_close(out, (scores - chosen).log_softmax(-1))


def test_unlikely_and_excluded_tokens_stay_out_and_do_not_spoil_the_choice():
    scores = torch.tensor([[2.0, 1.5, -1.0, -math.inf]])
    near, far = torch.tensor([[2.0, 1.5, 0.0, 0.0]]), torch.tensor([[0.0, 5.0, 0.0, 0.0]])
    out = guided(make_method("dola", alpha=0.5), scores, near, near, far)
    expected = torch.tensor([[2.0, -1.0, -math.inf, -math.inf]])
    torch.testing.assert_close(out, expected.log_softmax(-1))
