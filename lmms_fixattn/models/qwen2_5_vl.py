"""Qwen2.5-VL and Qwen2-VL: images of any size, each in as many tokens as it has blocks of patches; m-rope positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLForConditionalGeneration

from lmms_fixattn.models.family import Family, Picture

_USUAL = 480, 640
"""Height and width of most of COCO's images."""
_HEADER = 3
"""Tokens of a turn's header: <|im_start|>, the role, a newline."""


class Qwen25VL(Family):
    """Qwen2.5-VL, arXiv:2502.13923: a token is a block of ``spatial_merge_size`` x ``spatial_merge_size`` patches.

    Position ids have three axes (time, height, width), with the plain count of tokens before them in ``generate``.
    """

    name: ClassVar[str] = "Qwen2.5-VL"
    checkpoint: ClassVar[str] = "Qwen/Qwen2.5-VL-7B-Instruct"
    model_class: ClassVar[Any] = Qwen2_5_VLForConditionalGeneration
    tower_path: ClassVar[str] = "model.visual"
    projector_path: ClassVar[str] = "model.visual.merger"
    picture_inputs: ClassVar[tuple[str, ...]] = ("pixel_values", "image_grid_thw")
    image_mark: ClassVar[str] = "<|image_pad|>"
    further_marks: ClassVar[tuple[str, ...]] = ("<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
    written_image: ClassVar[str] = "<|vision_start|><|image_pad|><|vision_end|>"
    without_parts: ClassVar[str] = "its tower has no class token; methods that edit attention to all of the image run"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.patch = int(config.vision_config.patch_size)
        self.merge = int(config.vision_config.spatial_merge_size)

    def tower_layers(self, model: Any) -> Sequence[Any]:
        return self.tower(model).blocks  # type: ignore[no-any-return]

    def image_tokens(self, picture: Picture) -> int:
        return int(picture["image_grid_thw"].prod()) // self.merge**2

    def usual_image_tokens(self, image_processor: Any) -> int:
        return int(image_processor.get_number_of_image_patches(*_USUAL)) // self.merge**2

    def beside(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"mm_token_type_ids": (ids == self.image_token_id).int()}

    def shown(self, picture: Picture, image_processor: Any) -> torch.Tensor:
        mean, deviation = (torch.tensor(each) for each in (image_processor.image_mean, image_processor.image_std))
        (_, high, wide), merge, patch = picture["image_grid_thw"][0].tolist(), self.merge, self.patch
        blocks = picture["pixel_values"].float().view(high // merge, wide // merge, merge, merge, 3, -1, patch, patch)
        plane = blocks[:, :, :, :, :, 0].permute(0, 2, 5, 1, 3, 6, 4).reshape(high * patch, wide * patch, 3)
        return (plane * deviation + mean).clamp(0, 1)

    def grid(self, picture: Picture) -> tuple[int, int]:
        _, high, wide = picture["image_grid_thw"][0].tolist()
        return high // self.merge, wide // self.merge

    def random_picture(self, draw: torch.Generator) -> Picture:
        block = self.patch * self.merge
        high, wide = (max(1, round(side / block)) * self.merge for side in _USUAL)
        vision = self.config.vision_config
        size = vision.in_channels * vision.temporal_patch_size * self.patch**2
        return {
            "pixel_values": torch.randn(high * wide, size, generator=draw),
            "image_grid_thw": torch.tensor([[1, high, wide]]),
        }

    def noise(self, pictures: Mapping[str, Any], draw: torch.Generator) -> torch.Tensor:
        counts, size = pictures["image_grid_thw"].prod(dim=1).tolist(), pictures["pixel_values"].shape[1]
        seed = draw.initial_seed()
        return torch.cat([torch.randn(count, size, generator=draw.manual_seed(seed)) for count in counts])

    def picture_columns(self, ids: torch.Tensor) -> torch.Tensor:
        around = (self.config.vision_start_token_id, self.config.vision_end_token_id, self.image_token_id)
        return torch.isin(ids, torch.tensor(around, device=ids.device))

    def instruction_start(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the column behind the header of the first turn, the system's where there is one: [rows, 1]."""
        start = mask.long().argmax(dim=1, keepdim=True) + _HEADER
        return start.clamp_max(ids.shape[1] - 1)


class Qwen2VL(Qwen25VL):
    """Qwen2-VL, arXiv:2409.12191: the same outside its vision tower."""

    name: ClassVar[str] = "Qwen2-VL"
    checkpoint: ClassVar[str] = "Qwen/Qwen2-VL-7B-Instruct"
    model_class: ClassVar[Any] = Qwen2VLForConditionalGeneration
