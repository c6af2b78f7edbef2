"""What LLaVA-1.5 does behind the seam."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_llava import PATCHES, SIDE, build_llava

from lmms_fixattn.models.family import family_of_model
from lmms_fixattn.models.llava import Llava


@pytest.fixture(scope="module")
def family() -> Any:
    return Llava(build_llava().config)


def test_a_model_says_its_family() -> None:
    assert isinstance(family_of_model(build_llava()), Llava)
    with pytest.raises(ValueError, match=r"expected a LlavaForConditionalGeneration .*llava-hf.* got Linear"):
        family_of_model(torch.nn.Linear(2, 3))


def test_a_picture_is_one_token_a_patch_and_one_for_the_class_where_that_is_kept(family: Any) -> None:
    picture = {"pixel_values": torch.zeros(1, 3, SIDE, SIDE)}
    whole = Llava(build_llava(vision_feature_select_strategy="full").config)
    assert (family.image_tokens(picture), whole.image_tokens(picture)) == (PATCHES, PATCHES + 1)
    values = torch.tensor([[0.5, 0.25]])
    assert family.per_token(values, {}).tolist() == [[0.5, 0.25]]
    assert whole.per_token(values, {}).tolist() == [[0.0, 0.5, 0.25]]


def test_noise_is_the_same_for_an_image_in_any_batch(family: Any) -> None:
    pixels = torch.zeros(4, 3, 5, 5)
    one, four, other = (
        family.noise({"pixel_values": given}, torch.Generator().manual_seed(seed))
        for given, seed in ((pixels[:1], 3), (pixels, 3), (pixels, 4))
    )
    assert torch.equal(one.expand(4, 3, 5, 5), four.expand(4, 3, 5, 5))
    assert not torch.equal(four, other)
