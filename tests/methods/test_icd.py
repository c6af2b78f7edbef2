"""ICD's formula and its published settings."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lmms_fixattn import intervene, make_method
from lmms_fixattn.engine.contrastive_branch import Step
from lmms_fixattn.methods.formulas.branches import Instructed
from lmms_fixattn.methods.icd import DISTURBANCE


def test_the_defaults_are_the_published_strength_and_words():
    assert dataclasses.asdict(make_method("icd")) == {"alpha": 1, "cutoff": 0.1}
    assert make_method("icd").branch == Instructed(DISTURBANCE)
    assert "confused objects detector" in DISTURBANCE


def test_tokens_are_ranked_by_twice_the_logits_less_those_of_the_disturbed_prompt():
    scores, disturbed = torch.tensor([[2.0, 1.0, 0.5]]), torch.tensor([[4.0, -1.0, 0.0]])
    out = make_method("icd", alpha=0.5).guide(scores, Step(3, branch=disturbed))
    torch.testing.assert_close(out, torch.tensor([[1.0, 2.0, 0.75]]).log_softmax(-1))


def test_a_missing_tokenizer_is_named(llava):
    with (
        pytest.raises(ValueError, match=r"icd reads or writes text: give intervene\(model, method, tokenizer\)"),
        intervene(llava, make_method("icd")),
    ):
        pass
