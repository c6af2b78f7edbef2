"""Tiny random models of the other families, and prompts for them, as tiny_llava.py has for LLaVA-1.5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from naive_llava_next import layout as llava_next_layout
from naive_llava_next import tiles_of, together
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    MistralConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

PAD, BOS, EOS = 0, 1, 2
IMAGE, VIDEO, VISION_START, VISION_END = 96, 97, 98, 99
TOKENS = {
    "image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": VISION_START,
    "vision_end_token_id": VISION_END,
}  # fmt: skip
FAMILIES = ("llava_next", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")


def build(family: str, key_heads: int = 3, seed: int = 0, **top: Any) -> Any:
    """Build a random model of a family whose attention matters, float32.

    Weights are larger than at initialisation, and those of norms and biases are drawn as well, so that all are told
    from ones and zeros.
    """
    torch.manual_seed(seed)
    model = _MODELS[family](key_heads, **top).eval()
    draw_vectors(model)
    model.generation_config.update(pad_token_id=PAD, eos_token_id=EOS, bos_token_id=BOS, do_sample=False)
    return model


@torch.no_grad()
def draw_vectors(model: Any) -> None:
    """Draw what is ones or zeros at initialisation, and what would make image features too small to matter."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.normal_(mean=float(name.endswith("weight") and ("norm" in name or "ln_q" in name)), std=0.2)
        if name.endswith(("multi_modal_projector.linear_2.weight", "merger.mlp.2.weight", "linear_fc2.weight")):
            parameter.normal_(std=0.3)


def _llava_next(key_heads: int, text: str = "llama", **top: Any) -> Any:
    vision = CLIPVisionConfig(
        hidden_size=33, intermediate_size=29, num_hidden_layers=3, num_attention_heads=3,
        image_size=21, patch_size=7, projection_dim=17, initializer_range=0.3, initializer_factor=3.0,
    )  # fmt: skip
    of_text: Any = {"llama": LlamaConfig, "mistral": MistralConfig}[text]
    settings = {"sliding_window": None} if text == "mistral" else {}
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=of_text(
            hidden_size=42, intermediate_size=31, num_hidden_layers=4, num_attention_heads=6,
            num_key_value_heads=key_heads, head_dim=14, vocab_size=101, max_position_embeddings=389,
            initializer_range=0.25, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, **settings,
        ),
        image_token_index=IMAGE,
        image_grid_pinpoints=[[21, 42], [42, 21], [42, 42], [63, 21], [21, 63]],
        image_seq_length=9,
        **top,
    )  # fmt: skip
    return LlavaNextForConditionalGeneration(config)


def _qwen_text(key_heads: int, **others: Any) -> dict[str, Any]:
    return {
        "intermediate_size": 31, "num_hidden_layers": 4, "num_attention_heads": 6, "num_key_value_heads": key_heads,
        "vocab_size": 101, "max_position_embeddings": 389, "initializer_range": 0.2, "pad_token_id": PAD,
        "bos_token_id": BOS, "eos_token_id": EOS, **others,
    }  # fmt: skip


def _qwen2_vl(key_heads: int, **top: Any) -> Any:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    config = Qwen2VLConfig(
        text_config=_qwen_text(key_heads, hidden_size=96, rope_parameters=rope),
        vision_config={
            "depth": 3, "embed_dim": 40, "hidden_size": 96, "mlp_ratio": 2, "num_heads": 5, "patch_size": 3,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "initializer_range": 0.2,
        },
        **TOKENS,
        **top,
    )  # fmt: skip
    return Qwen2VLForConditionalGeneration(config)


def _qwen2_5_vl(key_heads: int, **top: Any) -> Any:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    config = Qwen2_5_VLConfig(
        text_config=_qwen_text(key_heads, hidden_size=96, rope_parameters=rope),
        vision_config={
            "depth": 3, "hidden_size": 40, "out_hidden_size": 96, "intermediate_size": 29, "num_heads": 5,
            "patch_size": 3, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 12,
            "fullatt_block_indexes": [1], "initializer_range": 0.2,
        },
        **TOKENS,
        **top,
    )  # fmt: skip
    return Qwen2_5_VLForConditionalGeneration(config)


def _qwen3_vl(key_heads: int, **top: Any) -> Any:
    rope = {
        "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 3, 3], "mrope_interleaved": True,
    }  # fmt: skip
    config = Qwen3VLConfig(
        text_config=_qwen_text(key_heads, hidden_size=44, head_dim=20, rope_parameters=rope),
        vision_config={
            "depth": 4, "hidden_size": 40, "out_hidden_size": 44, "intermediate_size": 29, "num_heads": 5,
            "patch_size": 3, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 25,
            "deepstack_visual_indexes": [0, 2], "initializer_range": 0.2,
        },
        **TOKENS,
        **top,
    )  # fmt: skip
    return Qwen3VLForConditionalGeneration(config)


_MODELS = {"llava_next": _llava_next, "qwen2_vl": _qwen2_vl, "qwen2_5_vl": _qwen2_5_vl, "qwen3_vl": _qwen3_vl}
SIZES = ((31, 47), (58, 23), (40, 39), (17, 90), (90, 17))
"""Heights and widths of pictures for LLaVA-NeXT, in pixels: one for each pinpoint."""
GRIDS = ((4, 6), (10, 4), (2, 8), (6, 6), (6, 14))
"""Rows and columns of patches for the Qwen families, before four are merged to a token."""


@dataclass
class Prompt:
    """Token ids with image tokens, and what the model is given of each image."""

    ids: list[int]
    pictures: list[dict[str, torch.Tensor]]

    def inputs(self) -> dict[str, Any]:
        return batch([self])


def make_picture(config: Any, draw: torch.Generator, size: tuple[int, int]) -> tuple[dict[str, torch.Tensor], int]:
    """Draw what the model is given of a picture of one of SIZES or GRIDS, and say how many image tokens it takes."""
    if config.model_type == "llava_next":
        side = config.vision_config.image_size
        pixels = torch.randn(1, tiles_of(config, *size), 3, side, side, generator=draw)
        return {"pixel_values": pixels, "image_sizes": torch.tensor([size])}, len(llava_next_layout(config, *size))
    vision = config.vision_config
    values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    pixels = torch.randn(size[0] * size[1], values, generator=draw)
    grid = torch.tensor([[1, *size]])
    return {"pixel_values": pixels, "image_grid_thw": grid}, size[0] * size[1] // vision.spatial_merge_size**2


def make_prompt(model: Any, seed: int, images: int = 1) -> Prompt:
    """Draw a prompt with this many images of different sizes, with words before, between and behind them."""
    config = model.config
    next_like = config.model_type == "llava_next"
    draw = torch.Generator().manual_seed(seed)

    def words(low: int, high: int) -> list[int]:
        return torch.randint(3, IMAGE, (int(torch.randint(low, high, (), generator=draw)),), generator=draw).tolist()

    sizes = SIZES if next_like else GRIDS
    first = int(torch.randint(0, len(sizes), (), generator=draw))
    ids, pictures = [*([BOS] if next_like else []), *words(2, 7)], []
    for image in range(images):
        picture, count = make_picture(config, draw, sizes[(first + image) % len(sizes)])
        pictures.append(picture)
        tokens = [IMAGE] * count
        ids += [*(tokens if next_like else [VISION_START, *tokens, VISION_END]), *words(1, 5)]
    return Prompt([*ids, *words(1, 6)], pictures)


def batch(prompts: list[Prompt]) -> dict[str, Any]:
    """Left-pad prompts into what ``generate`` takes, as the families' processors do."""
    width = max(len(prompt.ids) for prompt in prompts)
    padding = [width - len(prompt.ids) for prompt in prompts]
    ids = torch.tensor([[PAD] * pad + p.ids for pad, p in zip(padding, prompts, strict=True)])
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.tensor([[0] * pad + [1] * (width - pad) for pad in padding]),
    }
    pictures = [picture for prompt in prompts for picture in prompt.pictures]
    if not pictures:
        return inputs
    if "image_sizes" in pictures[0]:
        return inputs | together(pictures)
    joined = {name: torch.cat([picture[name] for picture in pictures]) for name in pictures[0]}
    return inputs | joined | {"mm_token_type_ids": (ids == IMAGE).int()}
