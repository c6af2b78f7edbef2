"""From chat messages to what the model reads: token ids with the images' places in them, and pixels."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageFile

from lmms_fixattn.data import DataError
from lmms_fixattn.data.images import PictureError, read_rgb, to_rgb
from lmms_fixattn.lru import LRUCache
from lmms_fixattn.models.family import Picture, family_of
from lmms_fixattn.models.prompts import PromptText, build_prompt, check_form, check_template

_SECONDS = 30  # to wait for a picture's server
_PICTURES_KEPT = 256 << 20  # bytes, 190 pictures of LLaVA-1.5


@dataclass(frozen=True)
class Encoded:
    """A prompt as the model reads it."""

    ids: list[int]
    images: tuple[Picture, ...]  # what the model is given of each image
    pictures: tuple[str, ...]  # the identity of each image: equal ones have equal pixels
    prefix: tuple[Hashable, int]  # what tells its prefix, up to the end of its first image, from others; its tokens
    dropped_marks: int  # literal marks of images in the text that were left out


class PromptEncoder:
    """Encode conversations for one checkpoint, in one of :data:`lmms_fixattn.models.prompts.FORMS`.

    A picture that several prompts hold is decoded and preprocessed once, as long as it was used recently.

    Args:
        processor: the checkpoint's processor.
        config: its configuration, of a family that is known.

    Raises:
        ValueError: an unknown form, one that is not the family's, or a tokenizer whose mark of an image is not the
            model's image token.
    """

    def __init__(self, processor: Any, config: Any, form: str) -> None:
        self.family = family = family_of(config)
        self.form = check_form(form, family.forms)
        check_template(form, processor, family.forms)
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self._pictures: LRUCache[Picture] = LRUCache(_PICTURES_KEPT)
        found = self.tokenizer.convert_tokens_to_ids(family.image_mark)
        if found != family.image_token_id:
            raise ValueError(
                f"the tokenizer's {family.image_mark} is token {found}, the model's is {family.image_token_id}; "
                "expected the tokenizer's files of the same checkpoint beside its config.json"
            )

    def encode(self, messages: Sequence[Any]) -> Encoded:
        """Encode one conversation.

        Raises:
            ValueError: messages that the model cannot read, or more of them than it has positions.
            DataError: a picture that cannot be had or shown; names its file.
        """
        family = self.family
        marks = (family.image_mark, *family.further_marks)
        prompt = build_prompt(
            messages, self.form, self._template, family.written_image, marks, self.tokenizer.eos_token
        )
        read = [self._read(image) for image in prompt.images]
        pictures = tuple(identity for identity, _ in read)
        images = tuple(picture for _, picture in read)
        ids = self._tokenize(prompt, [family.image_tokens(picture) for picture in images])
        if len(ids) >= family.positions:
            raise ValueError(f"its prompt has {len(ids)} tokens, but the model has {family.positions} positions in all")
        return Encoded(ids, images, pictures, self._prefix(ids, pictures), prompt.dropped_marks)

    def outline(self, texts: Sequence[str], images: Sequence[int]) -> list[int]:
        """Return how many tokens texts and their numbers of images come to, without opening an image."""
        ids = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
        an_image = self.family.usual_image_tokens(self.processor.image_processor)
        return [len(of_text) + count * an_image for of_text, count in zip(ids, images, strict=True)]

    def batch(self, encoded: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """Put prompts into one batch, padded on the left; the images of all prompts follow each other."""
        width = max(len(prompt.ids) for prompt in encoded)
        padding = [width - len(prompt.ids) for prompt in encoded]
        pad = [self.tokenizer.pad_token_id]
        ids = [pad * missing + prompt.ids for missing, prompt in zip(padding, encoded, strict=True)]
        masks = [[0] * missing + [1] * (width - missing) for missing in padding]
        inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(masks)}
        images = [image for prompt in encoded for image in prompt.images]
        if not images:
            return inputs
        return inputs | self.family.together(images) | self.family.beside(inputs["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of generated tokens, without special ones."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def _template(self, messages: list[dict[str, Any]]) -> str:
        return str(self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _read(self, source: Any) -> tuple[str, Picture]:
        """Return a picture's identity and what the model is given of it."""
        identity, opened = _identity(source), None
        if identity is None:
            opened = open_picture(source)
            identity = f"{opened.size} {hashlib.sha256(opened.tobytes()).hexdigest()}"
        picture = self._pictures.get(identity)
        if picture is None:
            picture = self.family.picture(self.processor.image_processor, opened or open_picture(source))
            self._pictures.put(identity, picture, sum(tensor.nbytes for tensor in picture.values()))
        return identity, picture

    def _prefix(self, ids: Sequence[int], pictures: tuple[str, ...]) -> tuple[Hashable, int]:
        if not pictures:
            return (), 0
        image = self.family.image_token_id
        end = start = ids.index(image)
        while end < len(ids) and ids[end] == image:
            end += 1
        return (pictures, *ids[:start], end), end

    def _tokenize(self, prompt: PromptText, image_tokens: Sequence[int]) -> list[int]:
        mark, image, bos = self.family.image_mark, self.family.image_token_id, self.tokenizer.bos_token
        if prompt.whole:
            first, *others = prompt.text.split(mark)
            text = first + "".join(mark * count + text for count, text in zip(image_tokens, others, strict=True))
            starts = bool(bos) and text.startswith(bos)
            return list(self.tokenizer(text, add_special_tokens=not starts)["input_ids"])
        ids = [] if bos is None else [self.tokenizer.bos_token_id]
        for count, chunk in zip([0, *image_tokens], prompt.text.split(mark), strict=True):
            ids += [image] * count
            ids += self.tokenizer(chunk, add_special_tokens=False)["input_ids"] if chunk else []
        return ids


def open_picture(source: Any) -> Image.Image:
    """Return a picture in RGB as :mod:`lmms_fixattn.data.images` reads it, to the end, so that a broken one fails here.

    Args:
        source: a PIL image, a path, a URL (http, https, file or data), encoded bytes, or the {"bytes", "path"} of the
            datasets library.

    Raises:
        DataError: it is missing, broken, too large or of a form that cannot be shown; names the file.
        ValueError: none of these.
    """
    if isinstance(source, dict):
        source = source.get("bytes") or source.get("path")
    if not isinstance(source, str | Path | bytes | Image.Image):
        raise ValueError(f"expected a picture (PIL image, path, URL or bytes), got {type(source).__name__}")
    try:
        if isinstance(source, Image.Image):
            with whole_pictures():
                return to_rgb(source)
        return read_rgb(_content(source))
    except (PictureError, OSError) as error:
        what = error if isinstance(error, PictureError) else f"cannot be read ({error})"
        raise DataError(f"picture {_place(source)} {what}") from error


def _content(source: str | Path | bytes) -> str | bytes:
    """Return a picture's path, or its bytes, fetched where it is a URL.

    Raises:
        OSError: it cannot be fetched.
    """
    if isinstance(source, bytes):
        return source
    text = str(source)
    if text.startswith("data:"):
        return base64.b64decode(text.partition(",")[2])
    if text.startswith(("http://", "https://")):
        import requests

        answer = requests.get(text, timeout=_SECONDS)
        answer.raise_for_status()
        return answer.content
    return text.removeprefix("file://")


def _place(source: Any) -> str:
    if isinstance(source, bytes):
        return f"of {len(source)} bytes"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or f"of {source.width} by {source.height} pixels")
    text = str(source)
    return text if len(text) <= 300 else f"{text[:40]}..."


def _identity(source: Any) -> str | None:
    """Tell a picture from others before it is opened: by its file, or by its bytes; None where neither is at hand."""
    if isinstance(source, dict):
        source = source.get("bytes") or source.get("path")
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    if isinstance(source, str | Path) and not str(source).startswith(("http://", "https://", "data:")):
        path = Path(str(source).removeprefix("file://"))
        if path.is_file():
            stat = path.stat()
            return f"{path.absolute()} {stat.st_mtime_ns} {stat.st_size}"
    return None


@contextmanager
def whole_pictures() -> Iterator[None]:
    """Make a truncated picture an error inside the block; lmms-eval tells PIL to fill the missing part with grey."""
    fills = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = fills
