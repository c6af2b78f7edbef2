"""Qwen3-VL: as Qwen2.5-VL, with features of inner layers of the tower added behind the first layers (DeepStack)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from transformers import Qwen3VLForConditionalGeneration

from lmms_fixattn.models.qwen2_5_vl import Qwen25VL
from lmms_fixattn.models.transformers_api import EngineError

if TYPE_CHECKING:
    from lmms_fixattn.methods.formulas.branches import Inputs

_ARGUMENTS = "visual_pos_masks", "deepstack_visual_embeds"
"""By which the text model takes where images are, and DeepStack's features of them, a layer each."""


class Qwen3VL(Qwen25VL):
    """Qwen3-VL, arXiv:2511.21631.

    Prompts' equal prefixes are not shared: what DeepStack adds is not among a prefix's keys and values.
    """

    name: ClassVar[str] = "Qwen3-VL"
    checkpoint: ClassVar[str] = "Qwen/Qwen3-VL-8B-Instruct"
    model_class: ClassVar[Any] = Qwen3VLForConditionalGeneration
    shares_prefixes: ClassVar[bool] = False

    def check(self, model: Any) -> None:
        super().check(model)
        takes = inspect.signature(type(self.text(model)).forward).parameters
        if missing := [name for name in _ARGUMENTS if name not in takes]:
            raise EngineError(
                f"expected the text model of {self.name} to take {missing[0]}=, it takes {', '.join(takes)}"
            )

    def added(self, kwargs: Mapping[str, Any], is_image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        embeds, features = kwargs["inputs_embeds"], kwargs.get(_ARGUMENTS[1]) or []
        if len(features) != (count := len(self.config.vision_config.deepstack_visual_indexes)):
            raise EngineError(f"expected DeepStack's features of {count} layers beside an image, got {len(features)}")
        places = is_image[..., None].to(embeds.device)
        return tuple(torch.zeros_like(embeds).masked_scatter(places, one.to(embeds)) for one in features)

    def added_features(self, output: Any) -> tuple[torch.Tensor, ...]:
        layers = output.deepstack_features  # of each one tensor (5.17), or one an image
        return tuple(one if isinstance(one, torch.Tensor) else torch.cat(list(one)) for one in layers)

    def as_arguments(self, inputs: Inputs) -> dict[str, Any]:
        if not inputs.added:
            return {}
        features = [one[inputs.is_image] for one in inputs.added]
        return dict(zip(_ARGUMENTS, (inputs.is_image, features), strict=True))
