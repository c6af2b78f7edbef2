"""The families written out by hand are what transformers computes, so that the engine can be compared with them."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from naive_llava_next import layout, resolution, tiles_of
from naive_qwen import positions
from naive_text import Fix, forward, generate
from tiny_families import FAMILIES, GRIDS, IMAGE, SIZES, batch, build, make_prompt
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches, select_best_resolution

STEPS = 5
KINDS = {
    **{family: (family, {}) for family in FAMILIES},
    "llava_next-mistral": ("llava_next", {"text": "mistral"}),
    "qwen3_vl-mha": ("qwen3_vl", {"key_heads": 6}),
}


@cache
def model_of(kind: str) -> Any:
    family, settings = KINDS[kind]
    return build(family, **settings)


@pytest.mark.parametrize("images", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_every_position_of_a_prompt_and_every_step_after_it_equals_transformers(kind: str, images: int) -> None:
    model = model_of(kind)
    prompt = make_prompt(model, seed=7 + images, images=images)
    with torch.no_grad():
        whole = model(**prompt.inputs()).logits[0]
    torch.testing.assert_close(whole, forward(model, prompt.ids, prompt.pictures), atol=2e-3, rtol=2e-4)
    out = model.generate(
        **prompt.inputs(), max_new_tokens=STEPS, eos_token_id=1000, do_sample=False, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    tokens, logits, scores = generate(model, prompt.ids, prompt.pictures, Fix(), STEPS)
    assert out.sequences[0, len(prompt.ids) :].tolist() == tokens
    torch.testing.assert_close(torch.stack(out.logits)[:, 0], logits, atol=2e-3, rtol=2e-4)
    assert torch.equal(logits, scores)
    assert logits.std() > 0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_a_left_padded_batch_equals_its_prompts_one_by_one(family: str) -> None:
    model = model_of(family)
    prompts = [make_prompt(model, seed=20 + images, images=images) for images in (1, 0, 2)]
    inputs = batch(prompts)
    out = model.generate(
        **inputs, max_new_tokens=3, eos_token_id=1000, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    for row, prompt in enumerate(prompts):
        forced = out.sequences[row, inputs["input_ids"].shape[1] :].tolist()
        _, logits, _ = generate(model, prompt.ids, prompt.pictures, Fix(), 3, forced=forced)
        torch.testing.assert_close(torch.stack(out.logits)[:, row], logits, atol=2e-3, rtol=2e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_depends_on_the_picture_and_on_where_its_parts_stand(kind: str) -> None:
    model = model_of(kind)
    prompt = make_prompt(model, seed=3)
    seen = forward(model, prompt.ids, prompt.pictures)[-1]
    (picture,) = prompt.pictures
    pixels = picture["pixel_values"]
    whole = pixels.flip(1) if pixels.ndim == 5 else pixels.flip(0)
    moved = forward(model, prompt.ids, [picture | {"pixel_values": whole}])[-1]
    assert (seen - moved).abs().max() > 0.1


@pytest.mark.parametrize("size", [*SIZES, (21, 21), (21, 42), (1, 100), (100, 1), (200, 100), (64, 63)])
def test_tiles_of_llava_next_are_chosen_as_transformers_does(size: tuple[int, int]) -> None:
    config = model_of("llava_next").config
    assert resolution(config, *size) == tuple(select_best_resolution(list(size), config.image_grid_pinpoints))
    assert tiles_of(config, *size) == image_size_to_num_patches(list(size), config.image_grid_pinpoints, 21)


def test_layout_of_a_wide_picture_leaves_out_the_padding_and_ends_each_row() -> None:
    config = model_of("llava_next").config
    tokens = layout(config, 31, 47)  # 42 by 42: 2 by 2 tiles; 28 of 42 rows of pixels are the picture's, 4 of 6 patches
    assert resolution(config, 31, 47) == (42, 42)
    assert tokens[:9] == [(0, row, column) for row in range(3) for column in range(3)]
    assert tokens[9:16] == [(1, 1, 0), (1, 1, 1), (1, 1, 2), (2, 1, 0), (2, 1, 1), (2, 1, 2), None]
    assert tokens[-7:] == [(3, 1, 0), (3, 1, 1), (3, 1, 2), (4, 1, 0), (4, 1, 1), (4, 1, 2), None]
    assert len(tokens) == 9 + 4 * 7


def test_positions_of_a_picture_count_from_the_words_before_it() -> None:
    ids = [5, 6, *[IMAGE] * 6, 7, 8]
    assert positions(ids, IMAGE, [(1, 4, 6)], 2) == [
        (0, 0, 0), (1, 1, 1),
        (2, 2, 2), (2, 2, 3), (2, 2, 4), (2, 3, 2), (2, 3, 3), (2, 3, 4),
        (5, 5, 5), (6, 6, 6),
    ]  # fmt: skip


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("images", range(1, 1 + len(GRIDS)))
def test_positions_are_those_of_transformers(family: str, images: int) -> None:
    model = model_of(family)
    prompt = make_prompt(model, seed=images, images=images)
    inputs = prompt.inputs()
    expected, past = model.model.get_rope_index(
        inputs["input_ids"], image_grid_thw=inputs["image_grid_thw"], mm_token_type_ids=inputs["mm_token_type_ids"]
    )
    grids = [tuple(picture["image_grid_thw"][0].tolist()) for picture in prompt.pictures]
    found = torch.tensor(positions(prompt.ids, IMAGE, grids, 2)).T
    assert torch.equal(found, expected[:, 0])
    assert int(found.max()) + 1 == len(prompt.ids) + int(past)
