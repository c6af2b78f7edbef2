"""Tiny random LLaVAs of the real architecture, and prompts for them. Sizes differ, so that none passes for another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from lmms_fixattn.methods.text_model import TextModel

IMAGE, PAD, BOS, EOS = 96, 0, 1, 2
SIDE, PATCH = 35, 7
PATCHES = (SIDE // PATCH) ** 2


def build_llava(key_heads: int = 6, vision_layers: int = 5, seed: int = 0, **top: Any) -> Any:
    """Build a random LlavaForConditionalGeneration whose attention matters: weights larger than at initialisation."""
    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=33, intermediate_size=29, num_hidden_layers=vision_layers, num_attention_heads=3,
        image_size=SIDE, patch_size=PATCH, projection_dim=17, initializer_range=0.3, initializer_factor=3.0,
    )  # fmt: skip
    text = LlamaConfig(
        hidden_size=42, intermediate_size=31, num_hidden_layers=5, num_attention_heads=6, num_key_value_heads=key_heads,
        head_dim=14, vocab_size=97, max_position_embeddings=211, initializer_range=0.25,
        pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        image_seq_length=PATCHES,
        pad_token_id=PAD,
        **top,
    )
    model = LlavaForConditionalGeneration(config).eval()
    torch.nn.init.normal_(model.model.multi_modal_projector.linear_2.weight, std=0.5)
    model.generation_config.update(pad_token_id=PAD, eos_token_id=EOS, bos_token_id=BOS)
    return model


def text_model(key_heads: int = 6) -> TextModel:
    """Say what text model build_llava builds."""
    return TextModel("llama", hidden_size=42, layers=5, heads=6, key_heads=key_heads)


@dataclass
class Prompt:
    """Token ids with image tokens, and the images in order: [images, 3, SIDE, SIDE] or None."""

    ids: list[int]
    pixel_values: Any

    def inputs(self) -> dict[str, Any]:
        return batch([self])


def make_prompt(seed: int, images: int = 1) -> Prompt:
    """Draw a prompt with this many images in random places; its length depends on the seed."""
    draw = torch.Generator().manual_seed(seed)

    def words(low: int, high: int) -> list[int]:
        return torch.randint(3, IMAGE, (int(torch.randint(low, high, (), generator=draw)),), generator=draw).tolist()

    ids = [BOS, *words(1, 7)]
    for _ in range(images):
        ids += [*[IMAGE] * PATCHES, *words(1, 5)]
    ids += words(1, 6)
    return Prompt(ids, torch.randn(images, 3, SIDE, SIDE, generator=draw) if images else None)


def batch(prompts: list[Prompt]) -> dict[str, Any]:
    """Left-pad prompts into what ``generate`` takes."""
    width = max(len(prompt.ids) for prompt in prompts)
    padding = [width - len(prompt.ids) for prompt in prompts]
    inputs = {
        "input_ids": torch.tensor([[PAD] * pad + p.ids for pad, p in zip(padding, prompts, strict=True)]),
        "attention_mask": torch.tensor([[0] * pad + [1] * (width - pad) for pad in padding]),
    }
    pixels = [prompt.pixel_values for prompt in prompts if prompt.pixel_values is not None]
    return inputs | ({"pixel_values": torch.cat(pixels)} if pixels else {})


class WordTokenizer:
    """A stand-in: token 17 is the word "bh.", so that every token is a word that ends a sentence."""

    eos_token_id = 2

    def __call__(self, text: str, **settings: Any) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.tensor([[11 + sum(map(ord, word)) % 70 for word in text.split()]])}

    def decode(self, tokens: list[int], **settings: Any) -> str:
        return " ".join("".join(chr(ord("a") + int(digit)) for digit in str(token)) + "." for token in tokens)
