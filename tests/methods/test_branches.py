"""What a contrastive branch reads, against loops over one token of one prompt at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmms_fixattn.methods.formulas.branches import Inputs, Instructed, NoisedImage, Prefill, WithoutImage, counted

HIDDEN = 3
PER_IMAGE = 2

batches = st.lists(
    st.tuples(st.booleans(), st.integers(1, 4), st.lists(st.integers(0, 3), max_size=3)), min_size=1, max_size=4
)
"""Prompts: whether each begins with a beginning-of-sequence token, its words before the first image, and those behind
each of its images."""


def tokens_of(begins, words, images):
    """The kinds of a prompt's tokens."""
    kinds = ["bos"] * begins + ["word"] * words
    for behind in images:
        kinds += ["image"] * PER_IMAGE + ["word"] * behind
    return kinds


def make_prompt(batch, copies):
    """Lay prompts out as a left-padded batch, each several times, with embeddings that tell every token apart."""
    kinds = [tokens_of(*sample) for sample in batch for _ in range(copies)]
    width = max(map(len, kinds))
    padded = [["pad"] * (width - len(row)) + row for row in kinds]
    embeds = torch.arange(len(batch) * width * HIDDEN).view(len(batch), width, HIDDEN).float()
    images = sum(len(behind) for _, _, behind in batch)
    pixels = torch.randn(images, 3, 5, 5, generator=torch.Generator().manual_seed(images)) if images else None

    def mask(*which):
        return torch.tensor([[kind in which for kind in row] for row in padded])

    kept = ~mask("pad")
    embeds = embeds.repeat_interleave(copies, dim=0)
    # Positions of three axes, as models with multimodal rotary embeddings have: an image's differ by axis.
    positions = counted(kept).expand(3, -1, -1) + mask("image") * torch.tensor([0, 1, 2])[:, None, None]
    added = (embeds * mask("image")[..., None] / 7,)
    prompt = Prefill(
        inputs=Inputs(embeds, kept, positions, mask("image"), added),
        picture=mask("image"),
        start=mask("word", "image").long().argmax(dim=1, keepdim=True),
        pixels=pixels,
        noise=lambda seed: torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(seed)),
        encode=lambda pixels: (features_of(pixels), (features_of(pixels) / 3,)),
        embed=lambda text: -torch.arange(1.0, 1 + HIDDEN * len(text.split())).view(-1, HIDDEN),
    )
    return prompt, padded


def features_of(pixels):
    """Features of each image that depend on its pixels alone, one image after the other."""
    return torch.stack([image.flatten()[: PER_IMAGE * HIDDEN] for image in pixels]).view(-1, HIDDEN)


def kept_rows(inputs):
    """What each row of a branch reads, without its padding, which must stand in front."""
    for keep in inputs.mask:
        assert keep[int((~keep).sum()) :].all()
    return [embed[keep].tolist() for embed, keep in zip(inputs.embeds, inputs.mask, strict=True)]


def positions_of(inputs, row):
    """The positions of a row's tokens, without its padding: [axes, tokens]."""
    return inputs.positions[:, row, inputs.mask[row]]


@given(batches, st.integers(1, 3))
def test_without_image_every_other_token_stays_in_its_order(batch, copies):
    prompt, padded = make_prompt(batch, copies)
    inputs = WithoutImage().inputs(prompt)
    expected = [
        [
            embed.tolist()
            for embed, kind in zip(prompt.inputs.embeds[row], kinds, strict=True)
            if kind in ("bos", "word")
        ]
        for row, kinds in enumerate(padded)
    ]
    assert kept_rows(inputs) == expected
    assert inputs.embeds.shape[1] == max(map(len, expected))
    assert inputs.added == ()
    assert not inputs.is_image.any()
    for row, read in enumerate(expected):
        assert positions_of(inputs, row).tolist() == [list(range(len(read)))] * 3


def test_a_prompt_that_is_nothing_but_an_image_has_no_text_to_contrast_with():
    prompt, _ = make_prompt([(True, 2, []), (False, 0, [0])], copies=1)
    with pytest.raises(ValueError, match="nothing but its image"):
        WithoutImage().inputs(prompt)


@given(batches, st.integers(1, 3))
def test_the_instruction_stands_behind_the_token_that_begins_the_sequence_before_everything_else(batch, copies):
    prompt, padded = make_prompt(batch, copies)
    words = [[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]]
    expected = []
    for row, kinds in enumerate(padded):
        read = [embed.tolist() for embed, kind in zip(prompt.inputs.embeds[row], kinds, strict=True) if kind != "pad"]
        begins = "bos" in kinds
        expected.append(read[:begins] + words + read[begins:])
    inputs = Instructed("two words").inputs(prompt)
    assert kept_rows(inputs) == expected
    for row, kinds in enumerate(padded):
        begins, own = "bos" in kinds, positions_of(prompt.inputs, row)
        if own.shape[1] > begins:
            first = own[:, begins : begins + 1]
            found = torch.cat([own[:, :begins], first, first + 1, own[:, begins:] + 2], dim=1)
            assert torch.equal(positions_of(inputs, row), found)
        image = [kind == "image" for kind in kinds if kind != "pad"]
        assert inputs.is_image[row, inputs.mask[row]].tolist() == [*image[:begins], False, False, *image[begins:]]
    torch.testing.assert_close(inputs.added[0], inputs.embeds * inputs.is_image[..., None] / 7)


@settings(deadline=None)
@given(batches.filter(lambda batch: any(images for _, _, images in batch)), st.integers(1, 3))
def test_each_noised_image_stands_where_its_image_stood_in_every_copy(batch, copies):
    prompt, padded = make_prompt(batch, copies)
    branch = NoisedImage(step=300, seed=4)
    inputs = branch.inputs(prompt)
    embeds = inputs.embeds
    features = iter(features_of(branch.noised(prompt.pixels, prompt.noise(4))).view(-1, PER_IMAGE, HIDDEN))
    for sample, (_, _, images) in enumerate(batch):
        own = [feature for _ in images for feature in next(features)]
        for row in range(sample * copies, (sample + 1) * copies):
            read = iter(own)
            for column, kind in enumerate(padded[row]):
                expected = next(read) if kind == "image" else prompt.inputs.embeds[row, column]
                assert torch.equal(embeds[row, column], expected)
    assert inputs.mask is prompt.inputs.mask
    assert inputs.positions is prompt.inputs.positions
    torch.testing.assert_close(inputs.added[0], embeds * inputs.is_image[..., None] / 3)


def test_a_noised_image_needs_pixels():
    prompt, _ = make_prompt([(True, 2, [])], copies=1)
    with pytest.raises(ValueError, match="needs the picture itself; pass pixel_values"):
        NoisedImage(step=1, seed=0).inputs(prompt)


@pytest.mark.parametrize(("step", "signal", "noise"), [(500, 0.863017, 0.505175), (999, 0.285042, 0.958515)])
def test_the_noise_has_the_published_shares(step, signal, noise):
    drawn = torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(1))
    ones, zeros = (NoisedImage(step, 1).noised(torch.full((1, 3, 5, 5), value), drawn) for value in (1.0, 0.0))
    torch.testing.assert_close(ones - zeros, torch.full((1, 3, 5, 5), signal), atol=1e-6, rtol=0)
    torch.testing.assert_close(zeros[0], noise * drawn, atol=1e-5, rtol=0)


@pytest.mark.parametrize("step", [0, 1, 137, 999])
def test_the_noise_is_what_so_many_steps_of_diffusion_leave(step):
    variance = 0.0
    signal = 1.0
    for t in range(step + 1):
        rate = 1e-5 + (0.005 - 1e-5) / (1 + math.exp(6 - 12 * t / 999))
        signal *= math.sqrt(1 - rate)
        variance = (1 - rate) * variance + rate
    pixels = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    drawn = torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(9))
    expected = signal * pixels.numpy() + math.sqrt(variance) * drawn.numpy()
    np.testing.assert_allclose(NoisedImage(step, seed=9).noised(pixels, drawn).numpy(), expected, atol=1e-5)


def test_noising_keeps_the_precision_of_the_pixels():
    pixels = torch.randn(4, 3, 5, 5, dtype=torch.float16)
    assert NoisedImage(step=600, seed=3).noised(pixels, torch.randn(3, 5, 5)).dtype == torch.float16
