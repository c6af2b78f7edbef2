"""Where each prompt's image tokens are, and the gain of each of them."""

from __future__ import annotations

import torch


def column_gains(is_image: torch.Tensor, token_gains: torch.Tensor | float) -> torch.Tensor:
    """Lay gains of image tokens out over the prompts' columns.

    Images and image tokens come in the same order: by row, then by position. Where ``generate`` repeated each prompt
    for its beams or samples after the images were encoded, each image serves all copies of its row.

    Args:
        is_image: bool [rows, prompt], True at image tokens; rows may hold none, one or several images.
        token_gains: [images, tokens an image], or one number for every image token.

    Returns:
        float32 [rows, prompt], 0 outside the image tokens.

    Raises:
        ValueError: the number of image tokens fits the number of images in no way.
    """
    if not isinstance(token_gains, torch.Tensor):
        return is_image.float() * token_gains
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
