"""What each column of a prompt is: before the image, image, or text after it; and the gain of each image token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import pad


@dataclass(frozen=True)
class Columns:
    """What the columns of a batch of prompts are, by row; a prompt without image has none of the three kinds.

    Of several images, text between them counts as after: it follows the first. Padding counts as before, which is of
    no effect, since masked keys get no weight. For a cache of fixed length the columns go on behind the prompt, up to
    that length, so that a compiled step sees the same shapes after every prompt.
    """

    image: torch.Tensor
    """bool [rows, 1, columns]."""
    before: torch.Tensor
    """bool [rows, 1, columns]: before the first image token, the beginning-of-sequence token included."""
    after: torch.Tensor
    """bool [rows, 1, columns]: the prompt's text after the first image token."""
    generated: torch.Tensor
    """bool [rows, 1, columns]: behind the prompt, if it has an image."""
    has_image: torch.Tensor
    """bool [rows, 1, 1]."""
    gain: torch.Tensor
    """float32 [rows, 1, columns]: what ``Method.select`` gave each image token; 0 elsewhere, and without one."""

    @classmethod
    def lay_out(cls, is_image: torch.Tensor, token_gains: torch.Tensor | None = None) -> Columns:
        """Tell the columns apart; arguments and errors are those of :func:`column_gains`."""
        image, gain = is_image[:, None], column_gains(is_image, token_gains)[:, None]
        begun = image.cumsum(dim=-1) > 0
        has_image = begun[..., -1:]
        return cls(image, ~begun & has_image, begun & ~image, torch.zeros_like(image), has_image, gain)

    def widened(self, columns: int) -> Columns:
        """Return the same prompts with columns of generated text behind them, ``columns`` in all."""
        more = (0, columns - self.image.shape[-1])
        wide = {name: pad(getattr(self, name), more) for name in ("image", "before", "after", "gain")}
        generated = pad(self.generated, more, value=True) & self.has_image
        return Columns(**wide, generated=generated, has_image=self.has_image.clone())

    @property
    def device(self) -> torch.device:
        return self.image.device

    def to(self, device: torch.device) -> Columns:
        return Columns(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def of(self, row: int) -> Columns:
        """Return one row's columns, [1, 1, prompt] each."""
        return Columns(*(getattr(self, name)[row : row + 1] for name in self.__dataclass_fields__))


def column_gains(is_image: torch.Tensor, token_gains: torch.Tensor | None) -> torch.Tensor:
    """Lay gains of image tokens out over the prompts' columns.

    Images and image tokens come in the same order: by row, then by position. Where ``generate`` repeated each prompt
    for its beams or samples after the images were encoded, each image serves all copies of its row.

    Args:
        is_image: bool [rows, prompt], True at image tokens; rows may hold none, one or several images.
        token_gains: [images, tokens an image]; None: no token is selected.

    Returns:
        float32 [rows, prompt], 0 outside the image tokens.

    Raises:
        ValueError: the number of image tokens fits the number of images in no way.
    """
    if token_gains is None:
        return torch.zeros(is_image.shape, dtype=torch.float32, device=is_image.device)
    expected, found = token_gains.numel(), int(is_image.sum())
    copies = found // max(expected, 1)
    if found != copies * expected or (copies and is_image.shape[0] % copies):
        raise ValueError(
            f"the prompts hold {found} image tokens, but {token_gains.shape[0]} images of {token_gains.shape[1]} "
            "tokens were encoded: give every <image> its picture and the processor's own number of image tokens"
        )
    if not copies:
        return torch.zeros(is_image.shape, dtype=torch.float32, device=is_image.device)
    originals = is_image[::copies]
    gains = torch.zeros(originals.shape, dtype=torch.float32, device=is_image.device)
    gains.masked_scatter_(originals, token_gains.to(gains))
    return gains.repeat_interleave(copies, dim=0)
