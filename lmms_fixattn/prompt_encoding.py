"""From chat messages to what the model reads: token ids with the images' places in them, and pixels."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageFile
from transformers.image_utils import load_image

from lmms_fixattn.conversation import IMAGE, Prompt, build_prompt, check_form


@dataclass(frozen=True)
class Encoded:
    """A prompt as the model reads it."""

    ids: list[int]
    pixels: torch.Tensor | None  # [images, 3, height, width]
    dropped_marks: int  # literal <image> marks of the text that were left out


class PromptEncoder:
    """Encode conversations for one checkpoint, in one of :data:`lmms_fixattn.conversation.FORMS`.

    Args:
        processor: the checkpoint's LlavaProcessor.
        config: its LlavaConfig.

    Raises:
        ValueError: an unknown form, or a tokenizer whose ``<image>`` is not the model's image token.
    """

    def __init__(self, processor: Any, config: Any, form: str) -> None:
        self.form = check_form(form)
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self._image_id = config.image_token_id
        self._patch = config.vision_config.patch_size
        self._class_token = int(config.vision_feature_select_strategy == "full")
        self._positions = config.text_config.max_position_embeddings
        found = self.tokenizer.convert_tokens_to_ids(IMAGE)
        if found != self._image_id:
            raise ValueError(f"the tokenizer's {IMAGE} is token {found}, the model's is {self._image_id}")

    def encode(self, messages: Sequence[Any]) -> Encoded:
        """Encode one conversation.

        Raises:
            ValueError: messages that the model cannot read, or more of them than it has positions.
            OSError: a missing or broken picture.
        """
        prompt = build_prompt(messages, self.form, self._template, self.tokenizer.eos_token)
        pixels = None
        if prompt.images:
            pictures = [open_picture(image) for image in prompt.images]
            pixels = self.processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
        ids = self._tokenize(prompt, 0 if pixels is None else self._tokens_an_image(pixels))
        if len(ids) >= self._positions:
            raise ValueError(f"its prompt has {len(ids)} tokens, but the model has {self._positions} positions in all")
        return Encoded(ids, pixels, prompt.dropped_marks)

    def batch(self, encoded: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """Put prompts into one batch, padded on the left; the images of all prompts follow each other."""
        padded = self.tokenizer.pad({"input_ids": [prompt.ids for prompt in encoded]}, return_tensors="pt")
        inputs = {"input_ids": padded["input_ids"], "attention_mask": padded["attention_mask"]}
        pixels = [prompt.pixels for prompt in encoded if prompt.pixels is not None]
        return inputs | {"pixel_values": torch.cat(pixels)} if pixels else inputs

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of generated tokens, without special ones."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def _template(self, messages: list[dict[str, Any]]) -> str:
        return str(self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _tokens_an_image(self, pixels: torch.Tensor) -> int:
        height, width = pixels.shape[-2:]
        return int(height // self._patch) * int(width // self._patch) + self._class_token

    def _tokenize(self, prompt: Prompt, tokens_an_image: int) -> list[int]:
        bos = self.tokenizer.bos_token
        if prompt.whole:
            text = prompt.text.replace(IMAGE, IMAGE * tokens_an_image)
            starts = bool(bos) and text.startswith(bos)
            return list(self.tokenizer(text, add_special_tokens=not starts)["input_ids"])
        ids = [] if bos is None else [self.tokenizer.bos_token_id]
        for index, chunk in enumerate(prompt.chunks):
            ids += [self._image_id] * (tokens_an_image if index else 0)
            ids += self.tokenizer(chunk, add_special_tokens=False)["input_ids"] if chunk else []
        return ids


def open_picture(source: Any) -> Image.Image:
    """Return a picture in RGB, read to the end, so that a broken file fails here.

    Args:
        source: a PIL image, a path, a URL (http, https, file or data), encoded bytes, or the {"bytes", "path"} of the
            datasets library.

    Raises:
        OSError: the file is missing or broken.
        ValueError: none of these.
    """
    if isinstance(source, dict):
        source = source.get("bytes") or source.get("path")
    with whole_pictures():
        if isinstance(source, str) and source.startswith(("http://", "https://", "data:")):
            source = load_image(source)
        if isinstance(source, Image.Image):
            return source.convert("RGB")
        if not isinstance(source, str | Path | bytes):
            raise ValueError(f"expected a picture (PIL image, path, URL or bytes), got {type(source).__name__}")
        file = io.BytesIO(source) if isinstance(source, bytes) else str(source).removeprefix("file://")
        with closing(Image.open(file)) as picture:
            return picture.convert("RGB")


@contextmanager
def whole_pictures() -> Iterator[None]:
    """Make a truncated picture an error inside the block; lmms-eval tells PIL to fill the missing part with grey."""
    fills = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = fills
