"""Nucleus sampling: the same as asking transformers for it."""

from __future__ import annotations

import pytest
import torch
from tiny_llava import batch, make_prompt

from lmms_fixattn import intervene, make_method

OWN = {"do_sample": True, "top_p": 0.6, "temperature": 1.5, "top_k": 0}


def test_it_is_transformers_own_decoding(llava):
    inputs = batch([make_prompt(seed=3), make_prompt(seed=4, images=0)])
    torch.manual_seed(5)
    own = llava.generate(**inputs, max_new_tokens=9, **OWN)
    torch.manual_seed(5)
    with intervene(llava, make_method("nucleus", top_p=0.6, temperature=1.5)):
        assert torch.equal(llava.generate(**inputs, max_new_tokens=9), own)
    assert not torch.equal(llava.generate(**inputs, max_new_tokens=9, do_sample=False), own)


def test_an_argument_that_generate_is_given_as_well_is_refused(llava):
    key = next(iter(make_method("nucleus").generation))
    with (
        intervene(llava, make_method("nucleus")),
        pytest.raises(ValueError, match=f"the method sets {key}=.*leave it out"),
    ):
        llava.generate(**make_prompt(seed=3).inputs(), max_new_tokens=2, **{key: 2})
