"""AdaIAT's formula by hand, its published settings, and statistics that do not fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from query_rows import make_rows
from statistics_files import statistics_file
from tiny_llava import text_model

from lmms_fixattn import make_method
from lmms_fixattn.methods.statistics import AttentionStatistics
from lmms_fixattn.methods.text_model import TextModel

ONE = TextModel("llama", 8, 1, 2, 2)
WEIGHTS = [[[0.25, 0.25, 0.25, 0.25], [0.5, 0.25, 0.125, 0.125]]]


def edited(tmp_path, ratios, threshold, weights=WEIGHTS, is_image=((False, True),), keep=None, **settings):
    """Edit weights of a one-layer model whose heads have these ratios, and its layer this threshold at beta 0."""
    hallucinated = torch.full((1, 2), threshold / 2)
    file = tmp_path / "made.safetensors"
    AttentionStatistics(hallucinated * torch.tensor([ratios]), hallucinated, ONE, {}).save(file)
    method = make_method("adaiat", beta=0, layers="0-1", statistics=str(file), **settings).for_model(ONE)
    weights = torch.tensor(weights)
    observed = {0: method.observe_input(0, torch.zeros(len(weights), 2, 8))}
    method.edit_weights(make_rows(weights.log(), is_image, keep=keep, layer=0, observed=observed), weights)
    return weights


def test_the_defaults_are_the_released_command_line():
    assert dataclasses.asdict(make_method("adaiat")) == {
        "alpha": 6.0, "beta": 0.5, "layers": (5, 18), "statistics": "none", "digest": "any", "clamp": True,
    }  # fmt: skip


def test_generated_tokens_gain_alpha_times_m_and_the_row_is_normalised(tmp_path):
    # a = 0.25 + 0.125; M = 0.5 and 0.
    result = edited(tmp_path, [1.5, 1.0], threshold=0.4, alpha=4)
    expected = torch.tensor([[[0.125, 0.125, 0.375, 0.375], [0.5, 0.25, 0.125, 0.125]]])
    torch.testing.assert_close(result, expected)


def test_a_layer_at_or_above_its_threshold_stays(tmp_path):
    assert edited(tmp_path, [1.5, 1.5], threshold=0.375).tolist() == WEIGHTS
    assert edited(tmp_path, [1.5, 1.5], threshold=0.38).tolist() != WEIGHTS


def test_each_answer_is_judged_by_itself_and_one_without_image_not_at_all(tmp_path):
    quiet, loud = WEIGHTS[0], [[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5]]
    is_image = [[False, True], [False, True], [False, False]]
    result = edited(tmp_path, [1.5, 1.5], threshold=0.4, weights=[quiet, loud, quiet], is_image=is_image)
    assert result[0].tolist() != quiet
    assert result[1:].tolist() == [loud, quiet]


def test_keys_that_are_not_yet_text_do_not_count_in_the_mean(tmp_path):
    keep = torch.tensor([[[True, True, True, False]]])
    weights = [[[0.5, 0.25, 0.25, 0.0], [0.5, 0.25, 0.25, 0.0]]]
    assert edited(tmp_path, [1.5, 1.5], threshold=0.4, weights=weights, keep=keep).tolist() == weights
    assert edited(tmp_path, [1.5, 1.5], threshold=0.4, weights=weights).tolist() != weights


def test_weights_stop_at_zero_unless_released(tmp_path):
    assert edited(tmp_path, [0.75, 1.0], threshold=0.4)[0, 0].tolist() == [0.5, 0.5, 0.0, 0.0]
    assert edited(tmp_path, [0.75, 1.0], threshold=0.4, clamp=False)[0, 0].tolist() == [1.0, 1.0, -0.5, -0.5]


def test_statistics_must_be_the_model_s_own_and_those_that_were_meant():
    own = text_model()
    with pytest.raises(ValueError, match=r"needs statistics of this very model: make them with `lmms-fixattn cal"):
        make_method("adaiat").for_model(own)
    method = make_method("adaiat", statistics=statistics_file(own))
    digest = AttentionStatistics.read(Path(method.statistics))[1]
    assert method.for_model(own).digest == digest
    assert dataclasses.replace(method, digest=digest).for_model(own) == method.for_model(own)
    with pytest.raises(ValueError, match=f"has sha256 {digest}, not {'0' * 64}"):
        dataclasses.replace(method, digest="0" * 64).for_model(own)
    with pytest.raises(ValueError, match=r"measured on another \(llama, 5 layers, 6 heads, 6 key.*calibrate this"):
        method.for_model(text_model(key_heads=3))
    with pytest.raises(ValueError, match=r"statistics must be none, or a \.safetensors file, got 'some\.pt'"):
        make_method("adaiat", statistics="some.pt")
