"""LLaVA-1.5 and models of its layout (BakLLaVA): a CLIP tower, an MLP, a text model; a fixed number of image tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch.nn.functional import pad
from transformers import LlavaForConditionalGeneration

from lmms_fixattn.models.family import Family, Picture
from lmms_fixattn.models.vision_watch import VisionWatch, watch_vision


class Llava(Family):
    """LLaVA-1.5, arXiv:2310.03744: the patches of the tower's second-last layer, each one image token."""

    name: ClassVar[str] = "LLaVA-1.5"
    checkpoint: ClassVar[str] = "llava-hf/llava-1.5-7b-hf"
    model_class: ClassVar[Any] = LlavaForConditionalGeneration
    forms: ClassVar[tuple[str, ...]] = ("default", "llava_v1", "pai")
    vision_parts: ClassVar[frozenset[str]] = frozenset(
        {"cls_first", "cls_second_last", "received_first", "released_first", "fingerprint"}
    )
    keeps_pictures: ClassVar[bool] = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.patch = int(config.vision_config.patch_size)
        self.side = int(config.vision_config.image_size)
        self.keeps_class_token = config.vision_feature_select_strategy == "full"

    def check_config(self) -> None:
        tower = getattr(self.config.vision_config, "model_type", None)
        if tower != "clip_vision_model":
            raise ValueError(f"has a {tower} vision tower, not CLIP's")

    def image_tokens(self, picture: Picture) -> int:
        rows, columns = self.grid(picture)
        return rows * columns + int(self.keeps_class_token)

    def usual_image_tokens(self, image_processor: Any) -> int:
        return (self.side // self.patch) ** 2 + int(self.keeps_class_token)

    def shown(self, picture: Picture, image_processor: Any) -> torch.Tensor:
        mean, deviation = (torch.tensor(each) for each in (image_processor.image_mean, image_processor.image_std))
        return (picture["pixel_values"][0].float().permute(1, 2, 0) * deviation + mean).clamp(0, 1)

    def grid(self, picture: Picture) -> tuple[int, int]:
        height, width = picture["pixel_values"].shape[-2:]
        return int(height) // self.patch, int(width) // self.patch

    def random_picture(self, draw: torch.Generator) -> Picture:
        return {"pixel_values": torch.randn(1, 3, self.side, self.side, generator=draw)}

    def watch(self, model: Any, parts: frozenset[str]) -> AbstractContextManager[VisionWatch]:
        return watch_vision(self.tower(model), parts)

    def per_token(self, per_patch: torch.Tensor, pictures: Mapping[str, Any]) -> torch.Tensor:
        return pad(per_patch, (1, 0)) if self.keeps_class_token else per_patch

    def kept_layers(self) -> list[int]:
        layers: int | Sequence[int] = self.config.vision_feature_layer
        return [layers] if isinstance(layers, int) else list(layers)
