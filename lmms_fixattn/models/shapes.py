"""Models of known sizes, without weights: configurations by name, to be filled with random numbers."""

from __future__ import annotations

from collections.abc import Callable

from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig


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


SHAPES: dict[str, Callable[[], LlavaConfig]] = {
    "tiny": lambda: _llava(_tower(32, 3, 2, image_size=70), _llama(64, 96, 4, 4, 1000)),
    "hidden1024": lambda: _llava(_tower(64, 4, 4), _llama(1024, 2816, 8, 16, 1000)),
    "llava-1.5-7b-shape": lambda: _llava(_tower(1024, 24, 16), _llama(4096, 11008, 32, 32, 32064)),
    "llava-1.5-13b-shape": lambda: _llava(_tower(1024, 24, 16), _llama(5120, 13824, 40, 40, 32064)),
}
"""The shapes by name. hidden1024 is a text model of hidden size 1024 and 8 layers behind a small tower."""
