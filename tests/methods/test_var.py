"""VAR's formula, its published dimensions, and how others are found."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from query_rows import make_rows
from tiny_llava import build_llava, make_prompt

from lmms_fixattn import make_method
from lmms_fixattn.inspection.sinks import sink_dimensions
from lmms_fixattn.methods.text_model import LLAVA_7B, LLAVA_13B, TextModel

IMAGE = [[False, True, True, True, False]]
SINKS = torch.tensor([[[True, True, False, False, False]]])


def moved(weights, **settings):
    """Edit one row's weights, whose first position and first image token are sinks."""
    weights = torch.tensor([weights])
    rows = make_rows(weights.log(), IMAGE, observed={2: SINKS})
    make_method("var", sink_dims=[0], **settings).edit_weights(rows, weights)
    return weights[0]


def test_the_defaults_are_the_published_ones():
    assert dataclasses.asdict(make_method("var")) == {
        "sink_dims": "published", "tau": 20.0, "rho": 0.5, "image_mass": 0.2, "p": 0.6, "layers": (2, None),
    }  # fmt: skip
    assert make_method("var").for_model(LLAVA_7B).sink_dims == (1415, 2533)
    assert make_method("var").for_model(LLAVA_13B).sink_dims == (2100, 4743)


def test_a_model_without_published_dimensions_is_told_how_to_find_its_own():
    model = TextModel("llama", 4096, 32, 32, 8)
    with pytest.raises(ValueError, match=r"this model is another \(llama, .*8 key heads.*sink_dimensions of"):
        make_method("var").for_model(model)
    with pytest.raises(ValueError, match="sink_dims 4096 lies outside the hidden state, of size 4096"):
        make_method("var", sink_dims=[7, 4096]).for_model(model)


def test_sinks_keep_p_of_their_weight_and_the_rest_goes_to_other_image_tokens_in_proportion():
    result = moved([[0.2, 0.2, 0.1, 0.3, 0.1, 0.1]], p=0.5)
    torch.testing.assert_close(result, torch.tensor([[0.1, 0.1, 0.15, 0.45, 0.1, 0.1]]))
    assert result.sum() == pytest.approx(1)


def test_heads_that_see_little_image_or_mostly_its_sinks_stay():
    little, sinky = [0.7, 0.05, 0.05, 0.05, 0.05, 0.1], [0.1, 0.5, 0.1, 0.1, 0.1, 0.1]
    both = [0.2, 0.2, 0.1, 0.3, 0.1, 0.1]
    result = moved([little, sinky, both])
    assert result[:2].tolist() == torch.tensor([little, sinky]).tolist()
    assert not torch.equal(result[2], torch.tensor(both))
    assert moved([little], image_mass=0.1)[0, 0] < 0.7
    assert moved([sinky], rho=0.8)[0, 1] < 0.5


def test_a_row_that_sees_no_image_sink_stays():
    weights = torch.tensor([[[0.4, 0.0, 0.3, 0.3]]])
    for sinks, keep in ((torch.tensor([[[True, False, False, False]]]), None), (SINKS[..., :4], SINKS[..., :4] < 2)):
        if keep is not None:
            keep = keep.clone()
            keep[..., 1] = False
        rows = make_rows(weights.log(), [[False, True, True, True]], keep=keep, observed={2: sinks})
        result = weights.clone()
        make_method("var", sink_dims=[0]).edit_weights(rows, result)
        assert torch.equal(result, weights)


def test_nothing_is_lost_where_every_image_token_is_a_sink():
    weights = torch.tensor([[[0.4, 0.3, 0.3]]])
    rows = make_rows(weights.log(), [[False, True, True]], observed={2: torch.tensor([[[True, True, True]]])})
    result = weights.clone()
    make_method("var", sink_dims=[0], rho=1).edit_weights(rows, result)
    assert torch.equal(result, weights)


def test_a_sink_is_massive_in_one_of_the_dimensions():
    method = make_method("var", sink_dims=[1, 3], tau=1.9)
    states = torch.tensor([[[0.0, 8.0, 0.0, 0.1], [8.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.1, -8.0], [1.0, 1.0, 1.0, 1.0]]])
    assert method.observe_input(2, states).tolist() == [[[True, False, True, False]]]


def test_sink_dimensions_are_those_in_which_the_first_token_is_massive():
    model = build_llava(seed=11)
    with torch.no_grad():
        model.get_input_embeddings().weight[1, [7, 23]] = torch.tensor([90.0, -40.0])
    states = []
    for layer in model.model.language_model.layers[2:]:
        layer.register_forward_pre_hook(lambda _m, args: states.append(args[0][0, 0]))
    found = sink_dimensions(model, torch.tensor([make_prompt(seed=1, images=0).ids]), layers=slice(2, None))
    assert list(found) == [7, 23]
    for dimension, value in found.items():
        naive = [abs(x[dimension]) / (sum(x * x) / len(x) + 1e-6) ** 0.5 for x in map(torch.Tensor.numpy, states)]
        assert value == pytest.approx(sorted(naive)[1], rel=1e-5)
        assert value > 2
