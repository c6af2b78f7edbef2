"""What a contrastive branch reads as its prompt: less, a noisier picture, or a further instruction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Inputs:
    """What the text model reads of a batch of prompts, padded on the left.

    Attributes:
        embeds: image features in their places, [rows, width, hidden size].
        mask: bool [rows, width], False at padding.
        positions: int64 [rows, width], or [axes, rows, width] where a position has several.
        is_image: bool [rows, width], True at image tokens.
        added: what is added to the states behind the first layers, one each, 0 outside image tokens: [rows, width,
            hidden size] each. Most model families have none.
    """

    embeds: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    is_image: torch.Tensor
    added: tuple[torch.Tensor, ...] = ()

    def ordered(self, order: torch.Tensor) -> Inputs:
        """Return the columns that ``order`` names, int64 [rows, columns]."""
        return Inputs(
            _of_columns(self.embeds, order),
            self.mask.gather(1, order),
            self.positions.gather(-1, order.expand(*self.positions.shape[:-2], -1, -1)),
            self.is_image.gather(1, order),
            tuple(_of_columns(one, order) for one in self.added),
        )

    def aligned_right(self, keep: torch.Tensor) -> Inputs:
        """Leave out what is not kept; rows keep their order and end together, padded on the left."""
        width = int(keep.sum(dim=1).max())
        order = keep.long().argsort(dim=1, stable=True)[:, -width:]
        return replace(self.ordered(order), mask=keep.gather(1, order))


def counted(mask: torch.Tensor) -> torch.Tensor:
    """Return the positions of tokens that follow each other, 0 at padding: int64 [rows, width]."""
    return (mask.long().cumsum(dim=1) - 1).clamp_min(0)


@dataclass(frozen=True)
class Prefill:
    """A batch of prompts as its prefill sees them, after any expansion for beams or samples.

    Attributes:
        inputs: what the text model reads.
        picture: bool [rows, prompt], True at image tokens and at what the prompt's form puts around them.
        start: int64 [rows, 1], the column before which a further instruction stands.
        pixels: the ``pixel_values`` that image features were made of; None where no image was encoded.
        noise: from a seed, noise of the pixels' shape that is the same for every image.
        encode: from pixels like these, the features of all images one after the other, [image tokens, hidden size], and
            those of ``inputs.added``.
        embed: from a text, the embeddings of its tokens without a beginning-of-sequence token, [tokens, hidden size].
    """

    inputs: Inputs
    picture: torch.Tensor
    start: torch.Tensor
    pixels: torch.Tensor | None
    noise: Callable[[int], torch.Tensor]
    encode: Callable[[torch.Tensor], tuple[torch.Tensor, tuple[torch.Tensor, ...]]]
    embed: Callable[[str], torch.Tensor]


@dataclass(frozen=True)
class WithoutImage:
    """The same prompt without its image."""

    def inputs(self, prompt: Prefill) -> Inputs:
        """Return what the branch reads.

        Raises:
            ValueError: a prompt holds nothing but its image.
        """
        inputs = prompt.inputs
        keep = inputs.mask & ~prompt.picture
        if not bool(keep.any(dim=1).all()):
            raise ValueError("a prompt holds nothing but its image: without it no text is left to contrast with")
        positions, none = counted(keep).expand_as(inputs.positions), torch.zeros_like(inputs.is_image)
        return Inputs(inputs.embeds, keep, positions, none).aligned_right(keep)


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
        inputs = prompt.inputs
        features, added = prompt.encode(self.noised(prompt.pixels, prompt.noise(self.seed)))
        copies = int(inputs.is_image.sum()) // len(features)  # of each prompt, for beams or samples

        def placed(states: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
            originals = states[::copies].masked_scatter(inputs.is_image[::copies, :, None], features.to(states))
            return originals.repeat_interleave(copies, dim=0)

        beside = tuple(placed(*each) for each in zip(inputs.added, added, strict=True))
        return replace(inputs, embeds=placed(inputs.embeds, features), added=beside)

    def noised(self, pixels: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return the pixels with their noise, of the same shape."""
        rates = torch.linspace(-6, 6, 1000, dtype=torch.float64).sigmoid() * (0.5e-2 - 1e-5) + 1e-5
        kept = (1 - rates).cumprod(dim=0)[self.step]
        noised = kept.sqrt().item() * pixels.float() + (1 - kept).sqrt().item() * noise.to(pixels.device)
        return noised.to(pixels.dtype)


@dataclass(frozen=True)
class Instructed:
    """The same prompt with further words before it, right behind what begins the sequence."""

    words: str

    def inputs(self, prompt: Prefill) -> Inputs:
        """Return what the branch reads."""
        inputs, start = prompt.inputs, prompt.start
        words = prompt.embed(self.words).to(inputs.embeds)
        (rows, width), more = inputs.mask.shape, len(words)
        columns = torch.arange(width, device=words.device)
        # Sorted by place, with the words' place just before that of the column at which they stand.
        place = torch.cat([2 * columns.expand(rows, -1), (2 * start - 1).expand(-1, more)], dim=1)
        axes = inputs.positions.shape[:-2]
        first = inputs.positions.gather(-1, start.expand(*axes, -1, -1))
        behind = inputs.positions + more * (columns >= start)
        longer = Inputs(
            torch.cat([inputs.embeds, words.expand(rows, -1, -1)], dim=1),
            torch.cat([inputs.mask, inputs.mask.new_ones(rows, more)], dim=1),
            torch.cat([behind, first + torch.arange(more, device=words.device)], dim=-1),
            torch.cat([inputs.is_image, inputs.is_image.new_zeros(rows, more)], dim=1),
            tuple(torch.cat([one, one.new_zeros(rows, *words.shape)], dim=1) for one in inputs.added),
        ).ordered(place.argsort(dim=1, stable=True))
        return longer.aligned_right(longer.mask)


Branch = WithoutImage | NoisedImage | Instructed


def _of_columns(states: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    return states.gather(1, order[..., None].expand(-1, -1, states.shape[-1]))
