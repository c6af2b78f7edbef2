"""What a contrastive branch reads as its prompt: less, a noisier picture, or a further instruction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Prefill:
    """A batch of prompts as its prefill sees them, after any expansion for beams or samples.

    Attributes:
        is_image: bool [rows, prompt], True at image tokens.
        is_bos: bool [rows, prompt], True at the token that begins a sequence, where the model has one.
        kept: bool [rows, prompt], False at padding.
        embeds: what the text model reads, image features in their places, [rows, prompt, hidden size].
        pixels: what the vision tower was given, [images, 3, height, width]; None where no image was encoded.
        encode: from pixels like these, the features of all images one after the other, [image tokens, hidden size].
        embed: from a text, the embeddings of its tokens without a beginning-of-sequence token, [tokens, hidden size].
    """

    is_image: torch.Tensor
    is_bos: torch.Tensor
    kept: torch.Tensor
    embeds: torch.Tensor
    pixels: torch.Tensor | None
    encode: Callable[[torch.Tensor], torch.Tensor]
    embed: Callable[[str], torch.Tensor]


Inputs = tuple[torch.Tensor, torch.Tensor]
"""Embeddings [rows, width, hidden size] and which of them count, bool [rows, width]."""


@dataclass(frozen=True)
class WithoutImage:
    """The same prompt without its image tokens."""

    def inputs(self, prompt: Prefill) -> Inputs:
        """Return what the branch reads.

        Raises:
            ValueError: a prompt holds nothing but its image.
        """
        keep = prompt.kept & ~prompt.is_image
        if not bool(keep.any(dim=1).all()):
            raise ValueError("a prompt holds nothing but its image: without it no text is left to contrast with")
        return aligned_right(prompt.embeds, keep)


@dataclass(frozen=True)
class NoisedImage:
    """The same prompt with its images after a number of steps of diffusion noise.

    With e ~ N(0, 1), drawn from ``seed``, the same for every image, on pixels x as the vision tower reads them::

        x' = sqrt(a) x + sqrt(1 - a) e,   a = prod over t <= step of (1 - b[t]),
        b = sigmoid(1000 steps from -6 to 6) * (0.005 - 0.00001) + 0.00001

    Source: VCD, arXiv:2311.16922, eq. 1-2, and the released code DAMO-NLP-SG/VCD (vcd_add_noise.py).
    """

    step: int
    seed: int

    def inputs(self, prompt: Prefill) -> Inputs:
        """Return what the branch reads.

        Raises:
            ValueError: the pixels are not known, because the images were encoded elsewhere.
        """
        if prompt.pixels is None:
            raise ValueError("the branch with a noised image needs the picture itself; pass pixel_values to generate")
        features = prompt.encode(self.noised(prompt.pixels)).to(prompt.embeds)
        copies = int(prompt.is_image.sum()) // len(features)  # of each prompt, for beams or samples
        places = prompt.is_image[::copies, :, None]
        embeds = prompt.embeds[::copies].masked_scatter(places, features)
        return embeds.repeat_interleave(copies, dim=0), prompt.kept

    def noised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the pixels with their noise, [images, 3, height, width]."""
        rates = torch.linspace(-6, 6, 1000, dtype=torch.float64).sigmoid() * (0.5e-2 - 1e-5) + 1e-5
        kept = (1 - rates).cumprod(dim=0)[self.step]
        noise = torch.randn(pixels.shape[1:], generator=torch.Generator().manual_seed(self.seed))
        noised = kept.sqrt().item() * pixels.float() + (1 - kept).sqrt().item() * noise.to(pixels.device)
        return noised.to(pixels.dtype)


@dataclass(frozen=True)
class Instructed:
    """The same prompt with further words before it, right behind the token that begins the sequence."""

    words: str

    def inputs(self, prompt: Prefill) -> Inputs:
        """Return what the branch reads."""
        words = prompt.embed(self.words).to(prompt.embeds)
        rows, width = prompt.is_image.shape
        columns = torch.arange(width, device=words.device)
        first = (prompt.kept & ~prompt.is_bos).long().argmax(dim=1, keepdim=True)
        # Sorted by place, with the words' place just before that of the prompt's first token.
        place = torch.cat([2 * columns.expand(rows, -1), (2 * first - 1).expand(-1, len(words))], dim=1)
        order = place.argsort(dim=1, stable=True)
        embeds = torch.cat([prompt.embeds, words.expand(rows, -1, -1)], dim=1)
        kept = torch.cat([prompt.kept, prompt.kept.new_ones(rows, len(words))], dim=1)
        return aligned_right(_gathered(embeds, order), kept.gather(1, order))


Branch = WithoutImage | NoisedImage | Instructed


def aligned_right(embeds: torch.Tensor, keep: torch.Tensor) -> Inputs:
    """Leave out what is not kept; rows keep their order and end together, padded on the left."""
    width = int(keep.sum(dim=1).max())
    order = keep.long().argsort(dim=1, stable=True)[:, -width:]
    return _gathered(embeds, order), keep.gather(1, order)


def _gathered(embeds: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    return embeds.gather(1, order[..., None].expand(-1, -1, embeds.shape[-1]))
