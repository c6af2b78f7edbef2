"""VCD's formula and its published settings."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from lmms_fixattn import make_method
from lmms_fixattn.engine.contrastive_branch import Step


def test_the_defaults_are_the_released_command_line():
    assert dataclasses.asdict(make_method("vcd")) == {"alpha": 1, "cutoff": 0.1, "noise_step": 500, "seed": 42}


def test_tokens_are_ranked_by_twice_the_logits_less_those_for_the_noised_image_if_they_are_likely_enough():
    scores, noised = torch.tensor([[2.0, 1.0, -0.3, -0.4]]), torch.tensor([[3.0, 1.0, 0.0, -9.0]])
    out = make_method("vcd").guide(scores, Step(0, branch=noised))
    expected = torch.tensor([[1.0, 1.0, -0.6, -math.inf]])  # log(0.1) is -2.3026
    torch.testing.assert_close(out, expected.log_softmax(-1))


@pytest.mark.parametrize("bad", [-1, 1000, 2.5, True])
def test_a_noise_step_outside_the_schedule_is_refused(bad):
    with pytest.raises(ValueError, match=r"vcd: noise_step must be a whole number in \[0, 999\], got"):
        make_method("vcd", noise_step=bad)
