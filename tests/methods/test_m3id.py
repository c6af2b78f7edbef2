"""M3ID's formula and its settings."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from lmms_fixattn import make_method
from lmms_fixattn.engine.contrastive_branch import Step


def test_the_defaults_are_those_of_the_re_implementations():
    assert dataclasses.asdict(make_method("m3id")) == {"rate": 0.02, "cutoff": 0.1}


@pytest.mark.parametrize(("index", "weight"), [(0, 0.0202), (49, 1.718), (99, 6.389)])
def test_the_weight_of_the_contrast_grows_from_the_first_token_on(index, weight):
    scores, text_only = torch.tensor([[1.0, 0.8, 0.4]]), torch.tensor([[0.9, 1.0, 0.0]])
    out = make_method("m3id").guide(scores, Step(index, branch=text_only))
    expected = scores + weight * (scores - text_only)
    torch.testing.assert_close(out, expected.log_softmax(-1), atol=1e-3, rtol=0)


def test_the_longest_answer_still_has_a_likeliest_token_and_keeps_excluded_ones_out():
    scores, text_only = torch.tensor([[1.0, 0.8, -math.inf]]), torch.tensor([[0.9, 0.1, 0.0]])
    out = make_method("m3id", rate=9).guide(scores, Step(10**6, branch=text_only))
    assert out.argmax().item() == 1
    assert not out.isnan().any()
    assert out[0, 2] == -math.inf
