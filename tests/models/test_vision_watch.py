"""What is read from the tower, against transformers' own attention weights."""

from __future__ import annotations

import copy

import pytest
import torch

from lmms_fixattn.models.vision_watch import watch_vision

PARTS = frozenset({"cls_first", "cls_second_last", "received_first", "released_first", "fingerprint"})


@pytest.fixture(scope="module")
def tower(llava):
    return copy.deepcopy(llava.model.vision_tower)


def test_every_part_equals_the_eager_attention_weights(tower):
    pixels = torch.randn(3, 3, 35, 35, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        with watch_vision(tower, PARTS) as watch:
            tower(pixels)
        tower.set_attn_implementation("eager")
        weights = tower(pixels, output_attentions=True).attentions
    seen = watch.take()
    torch.testing.assert_close(seen.cls_first, weights[0][:, :, 0, 1:].sum(1))
    torch.testing.assert_close(seen.cls_second_last, weights[-2][:, :, 0, 1:].sum(1))
    torch.testing.assert_close(seen.received_first, weights[0].mean(1).sum(1)[:, 1:])
    torch.testing.assert_close(seen.released_first, torch.ones(3, 25))
    assert watch.take() is None


def test_only_what_is_asked_for_is_read(tower):
    with torch.no_grad(), watch_vision(tower, frozenset({"cls_first"})) as watch:
        tower(torch.zeros(1, 3, 35, 35))
    seen = watch.take()
    assert seen.cls_first is not None
    assert seen.cls_second_last is seen.received_first is seen.released_first is seen.fingerprint is None
    with watch_vision(tower, frozenset()) as watch:
        tower(torch.zeros(1, 3, 35, 35))
    assert watch.take() is None


def test_a_picture_has_the_fingerprint_of_its_own_pixels_whatever_it_is_encoded_with(tower):
    pixels = torch.randn(3, 3, 35, 35, generator=torch.Generator().manual_seed(0))
    pixels[2] = pixels[0]
    with torch.no_grad(), watch_vision(tower, frozenset({"fingerprint"})) as watch:
        tower(pixels)
        first, second, third = watch.take().fingerprint.tolist()
        tower(pixels[1:2])
        assert watch.take().fingerprint.tolist() == [second]
    assert first == third != second


def test_no_hook_outlives_the_block(tower):
    with pytest.raises(KeyError), watch_vision(tower, PARTS):
        raise KeyError
    assert not any(module._forward_pre_hooks for module in tower.modules())


def test_what_is_no_clip_tower_is_refused():
    with (
        pytest.raises(ValueError, match=r"needs a CLIP vision tower .* got Linear; method=pai"),
        watch_vision(torch.nn.Linear(2, 2), PARTS),
    ):
        pass
