"""Decoding variants: the same as asking transformers for them."""

from __future__ import annotations

import pytest
import torch
from tiny_llava import batch, make_prompt

from lmms_fixattn import METHODS, intervene, make_method
from lmms_fixattn.methods import decoding

OWN = {
    "beam": ({"beams": 3}, {"num_beams": 3, "do_sample": False}),
    "nucleus": (
        {"top_p": 0.6, "temperature": 1.5},
        {"do_sample": True, "top_p": 0.6, "temperature": 1.5, "top_k": 0},
    ),
    "repetition_penalty": ({"penalty": 1.7}, {"repetition_penalty": 1.7, "do_sample": False}),
    "no_repeat_ngram": ({"size": 1}, {"no_repeat_ngram_size": 1, "do_sample": False}),
}
"""By name, settings of the method and the arguments of generate that they stand for."""


def test_every_decoding_variant_is_tested() -> None:
    assert set(OWN) == {name for name, method in METHODS.items() if method.__module__ == decoding.__name__}


@pytest.mark.parametrize("name", OWN)
def test_it_is_transformers_own_decoding(llava, name):
    settings, arguments = OWN[name]
    inputs = batch([make_prompt(seed=3), make_prompt(seed=4, images=0)])
    torch.manual_seed(5)
    own = llava.generate(**inputs, max_new_tokens=9, **arguments)
    torch.manual_seed(5)
    with intervene(llava, make_method(name, **settings)):
        assert torch.equal(llava.generate(**inputs, max_new_tokens=9), own)
    assert not torch.equal(llava.generate(**inputs, max_new_tokens=9, do_sample=False), own)


@pytest.mark.parametrize("name", OWN)
def test_an_argument_that_generate_is_given_as_well_is_refused(llava, name):
    key = next(iter(make_method(name).generation))
    with (
        intervene(llava, make_method(name)),
        pytest.raises(ValueError, match=f"the method sets {key}=.*leave it out"),
    ):
        llava.generate(**make_prompt(seed=3).inputs(), max_new_tokens=2, **{key: 2})
