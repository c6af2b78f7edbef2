"""LLaVA-NeXT (LLaVA-1.6): LLaVA on an image and on tiles of it, whose rows end with a newline token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch.nn.functional import pad
from transformers import LlavaNextForConditionalGeneration
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

from lmms_fixattn.models.family import Picture
from lmms_fixattn.models.llava import Llava

_NEWLINE = -1


class LlavaNext(Llava):
    """LLaVA-NeXT: of an image its whole, resized, then a grid of tiles, without the patches that only pad it.

    Tokens are selected in each tile and in the whole image by themselves, as shares of the patches that are image
    tokens; newline tokens are never selected.
    """

    name: ClassVar[str] = "LLaVA-NeXT"
    checkpoint: ClassVar[str] = "llava-hf/llava-v1.6-vicuna-7b-hf"
    model_class: ClassVar[Any] = LlavaNextForConditionalGeneration
    picture_inputs: ClassVar[tuple[str, ...]] = ("pixel_values", "image_sizes")
    forms: ClassVar[tuple[str, ...]] = ("default",)
    keeps_pictures: ClassVar[bool] = False

    def check_config(self) -> None:
        super().check_config()
        if self.keeps_class_token:
            raise ValueError(
                'keeps the class token (vision_feature_select_strategy "full"), which no tile has a place for'
            )

    def image_tokens(self, picture: Picture) -> int:
        return len(self._tokens(picture["image_sizes"][0]))

    def usual_image_tokens(self, image_processor: Any) -> int:
        return max(len(self._tokens(torch.tensor(size))) for size in self.config.image_grid_pinpoints)

    def together(self, pictures: Sequence[Picture]) -> Picture:
        most = max(picture["pixel_values"].shape[1] for picture in pictures)
        tiles = [pad(one["pixel_values"], (0,) * 6 + (0, most - one["pixel_values"].shape[1])) for one in pictures]
        return {
            "pixel_values": torch.cat(tiles),
            "image_sizes": torch.cat([picture["image_sizes"] for picture in pictures]),
        }

    def shown(self, picture: Picture, image_processor: Any) -> torch.Tensor:
        return super().shown({"pixel_values": picture["pixel_values"][0, :1]}, image_processor)

    def random_picture(self, draw: torch.Generator) -> Picture:
        size = torch.tensor(max(self.config.image_grid_pinpoints, key=lambda size: size[0] * size[1]))
        tiles = 1 + torch.tensor(self._grid(size)).prod()
        return {
            "pixel_values": torch.randn(1, int(tiles), 3, self.side, self.side, generator=draw),
            "image_sizes": size[None],
        }

    def noise(self, pictures: Mapping[str, Any], draw: torch.Generator) -> torch.Tensor:
        _, most, *shape = pictures["pixel_values"].shape
        seed, noises = draw.initial_seed(), []
        for tiles, _ in self._images(pictures):
            count = tiles.stop - tiles.start
            noise = torch.randn(count, *shape, generator=draw.manual_seed(seed))
            noises.append(pad(noise, (0,) * 6 + (0, most - count)))
        return torch.stack(noises)

    def per_token(self, per_patch: torch.Tensor, pictures: Mapping[str, Any]) -> torch.Tensor:
        found = []
        for tiles, tokens in self._images(pictures):
            values = pad(per_patch[tiles].flatten(), (0, 1))  # behind all patches a 0 for the newline
            found.append(values[tokens.to(values.device)])
        return torch.cat(found)

    def real_patches(self, pictures: Mapping[str, Any]) -> torch.Tensor:
        marks = []
        for tiles, tokens in self._images(pictures):
            real = torch.zeros((tiles.stop - tiles.start) * self._per_tile, dtype=torch.bool)
            real[tokens[tokens != _NEWLINE]] = True
            marks.append(real.view(-1, self._per_tile))
        return torch.cat(marks)

    @property
    def _per_tile(self) -> int:
        return int((self.side // self.patch) ** 2)

    def _grid(self, size: torch.Tensor) -> tuple[int, int]:
        rows, columns = get_anyres_image_grid_shape(size.tolist(), self.config.image_grid_pinpoints, self.side)
        return int(rows), int(columns)

    def _images(self, pictures: Mapping[str, Any]) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield of each image which of the tower's pictures are its own, and its tokens (:meth:`_tokens`)."""
        start = 0
        for size in pictures["image_sizes"]:
            rows, columns = self._grid(size)
            yield slice(start, start + 1 + rows * columns), self._tokens(size)
            start += 1 + rows * columns

    def _tokens(self, size: torch.Tensor) -> torch.Tensor:
        """Return which patch each token of an image is, counted through the whole image and its tiles, or _NEWLINE.

        Args:
            size: the image's height and width in pixels.
        """
        rows, columns = self._grid(size)
        side, count = self.side // self.patch, self._per_tile
        tiles = count + torch.arange(rows * columns * count).view(rows, columns, side, side)
        plane = tiles.transpose(1, 2).reshape(1, rows * side, columns * side)
        kept = unpad_image(plane, size.tolist())[0]
        return torch.cat([torch.arange(count), pad(kept, (0, 1), value=_NEWLINE).flatten()])
