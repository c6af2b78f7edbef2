"""What each family makes of pictures, against its layout written out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from covering import covering
from miniature_checkpoints import CHECKPOINTS, write
from naive_llava_next import layout
from PIL import Image
from tiny_families import FAMILIES, SIZES, build, make_picture

from lmms_fixattn.models.checkpoint import Checkpoint
from lmms_fixattn.models.family import family_of, family_of_model

QWEN = [name for name in CHECKPOINTS if name.startswith("Qwen")]


def pictures_of(model: Any, count: int = 3) -> list[Any]:
    draw = torch.Generator().manual_seed(5)
    sizes = SIZES if model.config.model_type == "llava_next" else [(4, 6), (8, 2), (2, 2)]
    return [make_picture(model.config, draw, size)[0] for size in sizes[:count]]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_takes_as_many_tokens_as_the_model_makes_features(family: str) -> None:
    model = build(family)
    own, pictures = family_of_model(model), pictures_of(model)
    with torch.no_grad():
        features = model.model.get_image_features(**own.together(pictures)).pooler_output
    assert [own.image_tokens(picture) for picture in pictures] == [len(one) for one in features]


@pytest.mark.parametrize(("family", "place"), covering(FAMILIES, range(3)))
def test_noise_is_the_same_for_an_image_alone_and_among_others(family: str, place: int) -> None:
    model = build(family)
    own, pictures = family_of_model(model), pictures_of(model)

    def noised(given: list[Any], seed: int = 7) -> torch.Tensor:
        together = own.together(given)
        noise = own.noise(together, torch.Generator().manual_seed(seed))
        return torch.zeros_like(together["pixel_values"]) + noise

    alone, among = noised([pictures[place]]), noised(pictures)
    if family == "llava_next":
        assert torch.equal(among[place, : alone.shape[1]], alone[0])
    else:
        start = sum(len(picture["pixel_values"]) for picture in pictures[:place])
        assert torch.equal(among[start : start + len(alone)], alone)
    assert not torch.equal(alone, noised([pictures[place]], seed=8))


def test_values_of_tiles_go_to_the_tokens_that_their_patches_are_and_newlines_get_none() -> None:
    model = build("llava_next")
    own, pictures = family_of_model(model), pictures_of(model)
    together = own.together(pictures)
    tiles = [picture["pixel_values"].shape[1] for picture in pictures]
    values = torch.rand(sum(tiles), 9, generator=torch.Generator().manual_seed(1)) + 1
    expected, real, first = [], set(), 0
    for picture, count in zip(pictures, tiles, strict=True):
        for what in layout(model.config, *picture["image_sizes"][0].tolist()):
            if what is None:
                expected.append(0.0)
                continue
            tile, row, column = what
            expected.append(float(values[first + tile, 3 * row + column]))
            real.add((first + tile, 3 * row + column))
        first += count
    assert own.per_token(values, together).tolist() == pytest.approx(expected)
    assert {tuple(place) for place in own.real_patches(together).nonzero().tolist()} == real


@pytest.mark.parametrize("name", QWEN)
def test_patches_are_put_together_to_the_picture_again(name: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint.find(str(write(name, tmp_path / "checkpoint")), "main")
    processor = checkpoint.load_processor()
    own = family_of(checkpoint.config)
    block = own.patch * own.merge  # type: ignore[attr-defined]
    noise = np.random.default_rng(3).integers(0, 256, (2 * block, 3 * block, 3), dtype=np.uint8)
    picture = own.picture(processor.image_processor, Image.fromarray(noise))
    assert own.grid(picture) == (2, 3)
    found = own.shown(picture, processor.image_processor).numpy()
    np.testing.assert_allclose(found, noise / 255, atol=1e-5)
