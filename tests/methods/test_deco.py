"""DeCo's formula and its published settings."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from lmms_fixattn import intervene, make_method
from lmms_fixattn.engine.contrastive_branch import Step


def test_the_defaults_are_the_published_ones_for_llava_7b():
    expected = {"alpha": 0.6, "top_p": 0.9, "top_k": 20, "layers": (20, 29)}
    assert dataclasses.asdict(make_method("deco")) == expected


def log_of(*probabilities):
    return torch.tensor([probabilities]).log()


@pytest.mark.parametrize(
    ("top_p", "top_k", "candidates"),
    [
        (0.0, 9, [True, False, False, False]),
        (0.5, 9, [True, False, False, False]),
        (0.51, 9, [True, True, False, False]),
        (0.9, 9, [True, True, True, False]),
        (0.9, 2, [True, True, False, False]),
        (1.0, 9, [True, True, True, True]),
    ],
)
def test_the_candidates_are_the_shortest_run_that_reaches_the_probability(top_p, top_k, candidates):
    scores = log_of(0.5, 0.25, 0.1875, 0.0625)
    assert make_method("deco", top_p=top_p, top_k=top_k).candidates(scores).tolist() == [candidates]


def test_excluded_tokens_are_no_candidates():
    scores = torch.tensor([[0.0, -math.inf, -math.inf]])
    assert make_method("deco", top_p=1).candidates(scores).tolist() == [[True, False, False]]


def test_the_layer_most_confident_of_a_candidate_is_added_by_its_confidence():
    scores = log_of(0.5, 0.4, 0.1)
    confident = log_of(0.2, 0.7, 0.1)
    other = log_of(0.6, 0.3, 0.1)
    elsewhere = log_of(0.05, 0.05, 0.9)  # confident, but of no candidate
    step = Step(0, states=2 * torch.stack([other, confident, elsewhere]), norm=lambda states: states / 2)
    out = make_method("deco", alpha=0.5, top_p=0.85).guide(scores, step)
    expected = scores + 0.5 * 0.7 * confident
    expected[0, 2] = -math.inf
    torch.testing.assert_close(out, expected.log_softmax(-1))


def test_a_model_without_those_layers_is_refused(llava):
    with (
        pytest.raises(ValueError, match="layers 20-29 lie outside the model, which has 5 layers"),
        intervene(llava, make_method("deco")),
    ):
        pass
