"""Which methods are measured, at which settings."""

from __future__ import annotations

import pytest

from lmms_fixattn import METHODS
from lmms_fixattn.bench.contenders import all_methods, make_methods
from lmms_fixattn.methods.base import share_of_layers
from lmms_fixattn.methods.text_model import LLAVA_7B, TextModel

SHALLOW = TextModel("llama", hidden_size=1024, layers=8, heads=16, key_heads=16)


@pytest.mark.parametrize(
    ("layers", "depth", "share"),
    [
        ((5, 19), 8, (1, 5)),
        ((9, 15), 8, (2, 4)),
        ((2, None), 8, (0, None)),
        ((2, None), 16, (1, None)),
        ((0, 32), 8, (0, 8)),
        ((20, 21), 2, (1, 2)),
        ((9, 15), 32, (9, 15)),
    ],
)
def test_a_shallower_model_has_the_same_share_of_layers(layers, depth, share):
    assert share_of_layers(layers, depth) == share


@pytest.mark.parametrize("text", [SHALLOW, LLAVA_7B, TextModel("llama", 64, 2, 4, 2)])
def test_all_methods_fit_every_model(text, tmp_path):
    methods = make_methods(["all"], text, tmp_path)
    assert {method.name for method in methods.values()} == set(METHODS)
    for method in methods.values():
        method.for_model(text)


def test_all_methods_come_with_their_refine_and_without():
    listed = all_methods()
    assert {"pai", "pai,gamma=1", "fixattn", "fixattn,gamma=1", "hgai"} < set(listed)
    assert "hgai,gamma=1" not in listed
    assert "vanilla" not in listed


def test_what_is_given_stays_as_given(tmp_path):
    methods = make_methods(["hgai", "hgai,layers=0-7", "pai + spin,spin.layers=3-4"], SHALLOW, tmp_path)
    assert list(methods) == ["vanilla", "hgai", "hgai, layers=0-7", "pai + spin, spin.layers=3-4"]
    assert methods["hgai"].settings()["layers"] == (1, 5)
    assert methods["hgai, layers=0-7"].settings()["layers"] == (0, 7)
    both = methods["pai + spin, spin.layers=3-4"].settings()
    assert (both["pai.layers"], both["spin.layers"]) == ((0, None), (3, 4))


def test_heads_are_the_published_share_of_a_model(tmp_path):
    heads = {
        depth: make_methods(["adhh"], TextModel("llama", 4096, depth, 32, 32), tmp_path)["adhh"].settings()["heads"]
        for depth in (32, 8)
    }
    assert len(heads[32]) == 20
    assert len(heads[8]) == 5
    assert {layer for layer, _ in heads[8]} == {4, 5, 6, 7}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fixatn", "did you mean 'fixattn'"),
        ("fixattn,gama=1", "did you mean 'gamma'"),
        ("pai+spn", "did you mean 'spin'"),
        ("spin,kept=2", r"kept must be a number in \[0, 1\]"),
        ("hgai,layers", "expected name=value"),
    ],
)
def test_what_cannot_be_meant_is_refused(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_methods([text], SHALLOW, tmp_path)


def test_a_method_that_is_given_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="method pai, gamma=1 is given twice"):
        make_methods(["pai,gamma=1", "pai, gamma=1"], SHALLOW, tmp_path)
