"""AD-HH's formula, its published heads, and what other models are told."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from query_rows import make_rows

from lmms_fixattn import make_method
from lmms_fixattn.methods.text_model import LLAVA_7B, LLAVA_13B, TextModel

ONE = "[2:0]"


def after(method, weights, is_image=((False, True, False),)):
    """Edit these weights [rows, heads, keys] in layer 2."""
    weights = torch.tensor(weights)
    method.edit_weights(make_rows(weights.log(), is_image), weights)
    return weights.tolist()


def test_the_defaults_are_the_published_ones():
    assert dataclasses.asdict(make_method("adhh")) == {"heads": "published", "threshold": 0.4}


@pytest.mark.parametrize(("model", "count", "first"), [(LLAVA_7B, 20, (16, 29)), (LLAVA_13B, 35, (0, 8))])
def test_llava_gets_its_published_heads(model, count, first):
    heads = make_method("adhh").for_model(model).heads
    assert len(set(heads)) == count
    assert heads[0] == first
    assert all(layer < model.layers and head < model.heads for layer, head in heads)


def test_a_model_of_the_same_size_but_another_family_is_no_llava():
    bakllava = TextModel("mistral", 4096, 32, 32, 8)
    message = r"heads are published for LLaVA-1.5-7B and LLaVA-1.5-13B, this model is another \(mistral, .*give heads="
    with pytest.raises(ValueError, match=message):
        make_method("adhh").for_model(bakllava)
    assert make_method("adhh", heads=ONE).for_model(bakllava).heads == ((2, 0),)
    with pytest.raises(ValueError, match="head 2:32 lies outside the model, which has 32 layers of 32"):
        make_method("adhh", heads="2:32").for_model(bakllava)


def test_a_listed_head_that_reads_mostly_text_loses_it_and_nothing_is_renormalised():
    method = make_method("adhh", heads=ONE, threshold=0.4)
    heads = [[0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25]]
    assert after(method, [heads]) == [[[0.25, 0.25, 0.0, 0.0], heads[1]]]


def test_a_head_below_the_threshold_stays_and_one_at_it_does_not():
    method = make_method("adhh", heads=ONE, threshold=0.5)
    assert after(method, [[[0.25, 0.5, 0.125, 0.125]]]) == [[[0.25, 0.5, 0.125, 0.125]]]
    assert after(method, [[[0.25, 0.25, 0.25, 0.25]]]) == [[[0.25, 0.25, 0.0, 0.0]]]


def test_rows_are_judged_one_by_one_and_without_image_not_at_all():
    method = make_method("adhh", heads=ONE, threshold=0.5)
    rows = [[[0.25, 0.5, 0.125, 0.125]], [[0.25, 0.25, 0.25, 0.25]], [[0.25, 0.25, 0.25, 0.25]]]
    is_image = [[False, True, False]] * 2 + [[False] * 3]
    assert after(method, rows, is_image) == [rows[0], [[0.25, 0.25, 0.0, 0.0]], rows[2]]


def test_heads_are_given_in_either_form():
    given = ((16, 29), (26, 9))
    for heads in ("[16:29,26:9]", "16:29 26:9", given, [[16, 29], [26, 9]]):
        assert make_method("adhh", heads=heads).heads == given
    for bad in ("16", "16:29:1", "16:-1", [(1, 2, 3)], [(1.5, 2)], [(True, 2)], [], "[]"):
        with pytest.raises(ValueError, match="adhh: heads must be published, or heads as layer:head"):
            make_method("adhh", heads=bad)
