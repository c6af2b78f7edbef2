"""The vision towers written out by hand are what transformers computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from naive_qwen import of_first
from naive_towers import clip, places, qwen, window_of
from tiny_families import GRIDS, build, make_picture
from tiny_llava import SIDE, build_llava

QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


def close(found: Any, expected: torch.Tensor) -> None:
    torch.testing.assert_close(torch.tensor(found).float(), expected, atol=1e-3, rtol=1e-3)
    assert expected.std() > 0.2


@pytest.mark.parametrize("family", ["llava", "llava_next"])
@torch.no_grad()
def test_every_layer_of_a_clip_tower_equals_transformers(family: str) -> None:
    model = build_llava() if family == "llava" else build(family)
    tower = model.model.vision_tower
    side = model.config.vision_config.image_size
    assert (side == SIDE) == (family == "llava")
    pixels = torch.randn(3, side, side, generator=torch.Generator().manual_seed(1))
    expected = tower(pixels[None], output_hidden_states=True).hidden_states
    found = clip(tower, pixels)
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        close(mine, theirs[0])


@pytest.mark.parametrize("grid", [*GRIDS, (2, 2), (12, 2)])
@pytest.mark.parametrize("family", QWEN)
@torch.no_grad()
def test_features_of_a_qwen_tower_equal_transformers(family: str, grid: tuple[int, int]) -> None:
    model = build(family)
    picture, tokens = make_picture(model.config, torch.Generator().manual_seed(2), grid)
    expected = model.get_image_features(picture["pixel_values"], picture["image_grid_thw"])
    features, deep = qwen(model.model.visual, picture)
    assert features.shape[0] == tokens
    close(features, expected.pooler_output[0])
    assert len(deep) == (2 if family == "qwen3_vl" else 0)
    for mine, theirs in zip(deep, getattr(expected, "deepstack_features", []), strict=True):
        close(mine, of_first(theirs))


def test_patches_come_in_blocks_and_windows_hold_whole_blocks() -> None:
    assert places(2, 4, 2) == [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3)]
    config = build("qwen2_5_vl").config.vision_config  # windows of 12 pixels: 4 x 4 patches of 3
    windows = [window_of(config, 0, *place) for place in places(6, 14, 2)]
    assert sorted(np.unique(windows, axis=0, return_counts=True)[1].tolist()) == [4, 8, 8, 8, 8, 16, 16, 16]
    assert {window_of(config, 1, *place) for place in places(6, 14, 2)} == {0}
