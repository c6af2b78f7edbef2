"""Models to measure: shapes by name, filled with random weights, or the packaged demo model with real prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from lmms_fixattn.data.coco import DEMO_SCENES
from lmms_fixattn.errors import did_you_mean
from lmms_fixattn.models.checkpoint import Checkpoint
from lmms_fixattn.models.encoding import PromptEncoder
from lmms_fixattn.models.family import family_of, family_of_model, to_model
from lmms_fixattn.models.shapes import SHAPES

TEXT_TOKENS = 64
"""Of a random prompt beside its image's: 40 before it and 24 behind, about what a system prompt and a question take."""
_BEFORE_IMAGE = 40
_QUESTION = "Please help me describe the image in detail."


@dataclass(frozen=True)
class Workload:
    """A model that is measured, and the prompts that it is measured on."""

    name: str
    model: Any
    tokenizer: Any
    prompts: Callable[[int], dict[str, torch.Tensor]]
    """Returns what ``generate`` takes for a batch of so many prompts of one length with one image each."""


def load(name: str, dtype: torch.dtype, device: torch.device, attention: str | None = None) -> Workload:
    """Load the demo model, or build a model of a shape with random weights.

    Weights are drawn in ``dtype`` on ``device``, so that a shape takes no memory elsewhere. The vocabulary begins with
    the demo tokenizer's, which serves methods that read or write text; a random model's answers mean nothing.

    Args:
        name: ``demo``, one of :data:`SHAPES`, or a folder with the config.json of a model of a known family.
        attention: transformers' name of the attention backend; None leaves the choice to it.

    Raises:
        ValueError: none of these, or a vocabulary smaller than the demo tokenizer's.
    """
    demo = Checkpoint.find("demo", "main")
    encoder = PromptEncoder(demo.load_processor(), demo.config, "default")
    if name == "demo":
        model = demo.load_model(dtype, device, "", attention)
        return Workload(name, model, encoder.tokenizer, lambda rows: _real_prompts(encoder, model, rows))
    model = _draw(_config(name), encoder.tokenizer, dtype, device, attention)
    return Workload(name, model, encoder.tokenizer, lambda rows: _random_prompts(model, len(encoder.tokenizer), rows))


def _config(name: str) -> Any:
    if name in SHAPES:
        return SHAPES[name]()
    if not Path(name).expanduser().is_dir():
        raise ValueError(
            f"unknown model {name!r}{did_you_mean(name, ('demo', *SHAPES))}; expected demo, {', '.join(SHAPES)}, "
            "or a folder with a config.json"
        )
    return Checkpoint.find(name, "main").config


def _draw(config: Any, tokenizer: Any, dtype: torch.dtype, device: torch.device, attention: str | None) -> Any:
    family, words = family_of(config), len(tokenizer)
    text = family.text_config
    if (found := text.vocab_size) < words:
        raise ValueError(f"expected a vocabulary of at least the demo tokenizer's {words} tokens, got {found}")
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config.image_token_id = tokenizer.convert_tokens_to_ids("<image>")
    config.pad_token_id = special["pad_token_id"]
    text.update(special)
    chosen = {} if attention is None else {"attn_implementation": attention}
    torch.manual_seed(0)
    with torch.device(device):
        model = family.model_class._from_config(config, dtype=dtype, **chosen)
    model.generation_config = GenerationConfig(**special)
    return model.eval()


def _random_prompts(model: Any, words: int, rows: int) -> dict[str, torch.Tensor]:
    family = family_of_model(model)
    draw = torch.Generator().manual_seed(0)
    text = torch.randint(3, words - 2, (rows, TEXT_TOKENS), generator=draw)  # no special tokens, which are at both ends
    pictures = [family.random_picture(draw) for _ in range(rows)]
    image = torch.full((rows, family.image_tokens(pictures[0])), family.image_token_id)
    ids = torch.cat([text[:, :_BEFORE_IMAGE], image, text[:, _BEFORE_IMAGE:]], dim=1)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return to_model(model, inputs | family.together(pictures) | family.beside(ids))


def _real_prompts(encoder: PromptEncoder, model: Any, rows: int) -> dict[str, torch.Tensor]:
    scenes = sorted((DEMO_SCENES / "unfamiliar").glob("*.png"))
    encoded = []
    for row in range(rows):
        picture = {"type": "image", "url": str(scenes[row % len(scenes)])}
        encoded.append(encoder.encode([{"role": "user", "content": [picture, {"type": "text", "text": _QUESTION}]}]))
    return to_model(model, encoder.batch(encoded))
