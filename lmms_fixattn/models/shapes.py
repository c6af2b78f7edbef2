"""Models of known sizes, without weights: configurations by name, to be filled with random numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    Qwen2_5_VLConfig,
    Qwen3VLConfig,
)


def _llava(vision: CLIPVisionConfig, text: LlamaConfig) -> LlavaConfig:
    patches = (vision.image_size // vision.patch_size) ** 2
    return LlavaConfig(vision_config=vision, text_config=text, image_seq_length=patches)


def _tower(hidden: int, layers: int, heads: int, image_size: int = 336) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=hidden,
        intermediate_size=hidden * 4,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=image_size,
        patch_size=14,
        projection_dim=hidden * 3 // 4,
    )


def _llama(hidden: int, inner: int, layers: int, heads: int, vocabulary: int) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        vocab_size=vocabulary,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
    )


def _llava_next(vision: CLIPVisionConfig, text: LlamaConfig) -> LlavaNextConfig:
    side = int(vision.image_size)
    grids = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
    return LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_grid_pinpoints=[[rows * side, columns * side] for rows, columns in grids],
        image_seq_length=(side // vision.patch_size) ** 2,
    )


def _qwen_text(hidden: int, inner: int, layers: int, heads: int, key_heads: int, **others: Any) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "rms_norm_eps": 1e-6,
        **others,
    }


def _qwen_tokens(vocabulary: int, image: int) -> dict[str, int]:
    names = {"vision_start": -3, "vision_end": -2, "image": 0, "video": 1}
    return {"vocab_size": vocabulary, **{f"{name}_token_id": image + offset for name, offset in names.items()}}


def _qwen2_5_vl(text: dict[str, Any], vision: dict[str, Any], vocabulary: int, image: int) -> Qwen2_5_VLConfig:
    tokens = _qwen_tokens(vocabulary, image)
    rope = {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]}
    words = {"vocab_size": tokens.pop("vocab_size"), "max_position_embeddings": 128_000, "rope_parameters": rope}
    words |= {"bos_token_id": None, "eos_token_id": None}  # the tokenizer's, which are no matter of a shape
    return Qwen2_5_VLConfig(
        text_config=text | words,
        vision_config=vision | {"out_hidden_size": text["hidden_size"]},
        tie_word_embeddings=False,
        **tokens,
    )


def _qwen3_vl(text: dict[str, Any], vision: dict[str, Any], vocabulary: int, image: int) -> Qwen3VLConfig:
    tokens = _qwen_tokens(vocabulary, image)
    rope = {
        "rope_type": "default",
        "rope_theta": 5_000_000.0,
        "mrope_section": [24, 20, 20],
        "mrope_interleaved": True,
    }
    words = {"vocab_size": tokens.pop("vocab_size"), "max_position_embeddings": 262_144, "rope_parameters": rope}
    return Qwen3VLConfig(
        text_config=text | words,
        vision_config=vision | {"out_hidden_size": text["hidden_size"]},
        tie_word_embeddings=False,
        **tokens,
    )


_QWEN2_5_TOWER = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
_QWEN3_TOWER = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16}
_SMALL_TOWER = {"depth": 4, "hidden_size": 64, "intermediate_size": 256, "num_heads": 4}

SHAPES: dict[str, Callable[[], Any]] = {
    "tiny": lambda: _llava(_tower(32, 3, 2, image_size=70), _llama(64, 96, 4, 4, 1000)),
    "hidden1024": lambda: _llava(_tower(64, 4, 4), _llama(1024, 2816, 8, 16, 1000)),
    "llava-1.5-7b-shape": lambda: _llava(_tower(1024, 24, 16), _llama(4096, 11008, 32, 32, 32064)),
    "llava-1.5-13b-shape": lambda: _llava(_tower(1024, 24, 16), _llama(5120, 13824, 40, 40, 32064)),
    "llava-next-small": lambda: _llava_next(_tower(64, 4, 4), _llama(512, 1408, 4, 4, 1000)),
    "llava-next-7b-shape": lambda: _llava_next(_tower(1024, 24, 16), _llama(4096, 11008, 32, 32, 32064)),
    "qwen2.5-vl-small": lambda: _qwen2_5_vl(
        _qwen_text(512, 1408, 4, 4, 2), _SMALL_TOWER | {"fullatt_block_indexes": [1, 3]}, 1000, 990
    ),
    "qwen2.5-vl-7b-shape": lambda: _qwen2_5_vl(_qwen_text(3584, 18944, 28, 28, 4), _QWEN2_5_TOWER, 152_064, 151_655),
    "qwen3-vl-small": lambda: _qwen3_vl(
        _qwen_text(512, 1408, 4, 4, 2, head_dim=128), _SMALL_TOWER | {"deepstack_visual_indexes": [0, 1, 2]}, 1000, 990
    ),
    "qwen3-vl-8b-shape": lambda: _qwen3_vl(
        _qwen_text(4096, 12288, 36, 32, 8, head_dim=128), _QWEN3_TOWER, 151_936, 151_655
    ),
}
"""The shapes by name. hidden1024 is a text model of hidden size 1024 and 8 layers behind a small tower; the small ones
of the other families have their layout, hidden size 512 and 4 layers."""
