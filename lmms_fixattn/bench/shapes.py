"""LLaVAs to measure: shapes by name, filled with random weights, or the packaged demo model with real prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionConfig, GenerationConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from lmms_fixattn.data.coco import DEMO_SCENES
from lmms_fixattn.errors import did_you_mean
from lmms_fixattn.models.checkpoint import Checkpoint
from lmms_fixattn.models.encoding import PromptEncoder
from lmms_fixattn.models.prompts import IMAGE

TEXT_TOKENS = 64
"""Of a random prompt beside its image's: 40 before it and 24 behind, about what LLaVA-1.5's system prompt and a
question take."""
_BEFORE_IMAGE = 40
_QUESTION = "Please help me describe the image in detail."


@dataclass(frozen=True)
class Subject:
    """A model that is measured, and the prompts that it is measured on."""

    name: str
    model: Any
    tokenizer: Any
    prompts: Callable[[int], dict[str, torch.Tensor]]
    """Returns what ``generate`` takes for a batch of so many prompts of one length with one image each."""


def load(name: str, dtype: torch.dtype, device: torch.device, attention: str | None = None) -> Subject:
    """Load the demo model, or build a model of a shape with random weights.

    Weights are drawn in ``dtype`` on ``device``, so that a shape takes no memory elsewhere. The vocabulary begins with
    the demo tokenizer's, which serves methods that read or write text; a random model's answers mean nothing.

    Args:
        name: ``demo``, one of :data:`SHAPES`, or a folder with the config.json of a LLaVA-1.5.
        attention: transformers' name of the attention backend; None leaves the choice to it.

    Raises:
        ValueError: none of these, or a vocabulary smaller than the demo tokenizer's.
    """
    demo = Checkpoint.find("demo", "main")
    encoder = PromptEncoder(demo.load_processor(), demo.config, "default")
    if name == "demo":
        model = demo.load_model(dtype, device, "", attention)
        return Subject(name, model, encoder.tokenizer, lambda rows: _real_prompts(encoder, model, rows))
    model = _draw(_config(name), encoder.tokenizer, dtype, device, attention)
    return Subject(name, model, encoder.tokenizer, lambda rows: _random_prompts(model, len(encoder.tokenizer), rows))


def _config(name: str) -> LlavaConfig:
    if name in SHAPES:
        return SHAPES[name]()
    if not Path(name).expanduser().is_dir():
        raise ValueError(
            f"unknown model {name!r}{did_you_mean(name, ('demo', *SHAPES))}; expected demo, {', '.join(SHAPES)}, "
            "or a folder with the config.json of a LLaVA-1.5"
        )
    return Checkpoint.find(name, "main").config


def _draw(config: Any, tokenizer: Any, dtype: torch.dtype, device: torch.device, attention: str | None) -> Any:
    text, words = config.text_config, len(tokenizer)
    if text.vocab_size < words:
        raise ValueError(
            f"expected a vocabulary of at least the demo tokenizer's {words} tokens, got {text.vocab_size}"
        )
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config.image_token_index = config.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE)
    config.pad_token_id = special["pad_token_id"]
    text.update(special)
    chosen = {} if attention is None else {"attn_implementation": attention}
    torch.manual_seed(0)
    with torch.device(device):
        model = LlavaForConditionalGeneration._from_config(config, dtype=dtype, **chosen)
    model.generation_config = GenerationConfig(**special)
    return model.eval()


def _random_prompts(model: Any, words: int, rows: int) -> dict[str, torch.Tensor]:
    vision, image = model.config.vision_config, model.config.image_token_id
    patches = (vision.image_size // vision.patch_size) ** 2
    draw = torch.Generator().manual_seed(0)
    text = torch.randint(3, words - 2, (rows, TEXT_TOKENS), generator=draw)  # no special tokens, which are at both ends
    middle = torch.full((rows, patches), image)
    ids = torch.cat([text[:, :_BEFORE_IMAGE], middle, text[:, _BEFORE_IMAGE:]], dim=1)
    pixels = torch.randn(rows, 3, vision.image_size, vision.image_size, generator=draw)
    return _placed(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels})


def _real_prompts(encoder: PromptEncoder, model: Any, rows: int) -> dict[str, torch.Tensor]:
    scenes = sorted((DEMO_SCENES / "unfamiliar").glob("*.png"))
    encoded = []
    for row in range(rows):
        picture = {"type": "image", "url": str(scenes[row % len(scenes)])}
        encoded.append(encoder.encode([{"role": "user", "content": [picture, {"type": "text", "text": _QUESTION}]}]))
    return _placed(model, encoder.batch(encoded))


def _placed(model: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    return inputs | {"pixel_values": inputs["pixel_values"].to(model.dtype)}


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
