"""What each family of models makes of prompts and pictures, as its own processor does."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from miniature_checkpoints import CHECKPOINTS, write
from PIL import Image

from lmms_fixattn.models.checkpoint import Checkpoint
from lmms_fixattn.models.encoding import PromptEncoder

QUESTION = "Please describe this image in detail."
NOISE = [
    Image.effect_noise(size, 90).convert("RGB")
    for size in ((50, 31), (40, 190), (640, 480), (300, 41), (84, 84), (9, 9))
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Find a miniature checkpoint; it is written when it is first asked for."""
    root = tmp_path_factory.mktemp("checkpoints")

    @cache
    def find(name: str) -> tuple[Checkpoint, Any, PromptEncoder]:
        checkpoint = Checkpoint.find(str(write(name, root / name)), "main")
        processor = checkpoint.load_processor()
        return checkpoint, processor, PromptEncoder(processor, checkpoint.config, "default")

    return find


@pytest.fixture(params=CHECKPOINTS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ask(pictures: list[Image.Image], *turns: str) -> list[dict[str, Any]]:
    """A conversation about pictures; turns after the question are the answer to it and a further question."""
    shown = [{"type": "image", "url": picture} for picture in pictures]
    asked = [{"role": "user", "content": [*shown, {"type": "text", "text": QUESTION}]}]
    roles = ("assistant", "user")
    return asked + [
        {"role": role, "content": [{"type": "text", "text": text}]} for role, text in zip(roles, turns, strict=False)
    ]


CONVERSATIONS = [
    ask(NOISE[:1]), ask([]), ask(NOISE[1:3]), ask([NOISE[3]], "A black dog.", "And the cat?"), ask(NOISE[4:]),
]  # fmt: skip
COUNTS = [1, 0, 2, 1, 2]


def test_prompts_and_pictures_are_those_of_the_processor_alone_and_in_a_batch(name: str, found: Any) -> None:
    _, processor, encoder = found(name)
    encoded = [encoder.encode(messages) for messages in CONVERSATIONS]
    texts = [processor.apply_chat_template(messages, add_generation_prompt=True) for messages in CONVERSATIONS]
    pictures = [part["url"] for messages in CONVERSATIONS for part in messages[0]["content"] if "url" in part]
    expected = processor(text=texts, images=pictures, padding=True, return_tensors="pt")
    together = encoder.batch(encoded)
    assert set(together) == set(expected)
    for key, value in expected.items():
        assert torch.equal(together[key], value), key
    given = iter(pictures)
    for prompt, text, count in zip(encoded, texts, COUNTS, strict=True):
        of_prompt = [next(given) for _ in range(count)]
        alone = processor(text=text, images=of_prompt or None, return_tensors="pt")
        assert prompt.ids == alone["input_ids"][0].tolist()
        assert len(prompt.images) == count


@pytest.mark.parametrize("picture", NOISE, ids=lambda picture: f"{picture.width}x{picture.height}")
def test_a_picture_takes_as_many_tokens_as_the_model_makes_features_of_it(
    name: str, found: Any, picture: Image.Image
) -> None:
    checkpoint, processor, _ = found(name)
    family = checkpoint.family
    given = family.picture(processor.image_processor, picture)
    model = checkpoint.family.model_class(checkpoint.config).eval()
    for each in (given, family.random_picture(torch.Generator().manual_seed(1))):
        with torch.no_grad():
            features = model.get_image_features(**each).pooler_output
        assert [len(feature) for feature in features] == [family.image_tokens(each)]


def test_shown_is_the_picture_where_nothing_had_to_be_resized(name: str, found: Any) -> None:
    checkpoint, processor, _ = found(name)
    size = {"llava_next": (42, 42), "qwen3_vl": (96, 128)}.get(checkpoint.config.model_type, (84, 112))
    picture = Image.effect_noise(size[::-1], 90).convert("RGB")
    shown = checkpoint.family.shown(
        checkpoint.family.picture(processor.image_processor, picture), processor.image_processor
    )
    np.testing.assert_allclose(shown.numpy() * 255, np.asarray(picture), atol=0.01)
    rows, columns = checkpoint.family.grid(checkpoint.family.picture(processor.image_processor, picture))
    assert rows / columns == size[0] / size[1]


def test_usual_tokens_are_those_of_a_usual_picture(name: str, found: Any) -> None:
    checkpoint, processor, _ = found(name)
    family = checkpoint.family
    of_sizes = [
        family.image_tokens(family.picture(processor.image_processor, Image.new("RGB", size)))
        for size in ((640, 480), (42, 126), (126, 42), (84, 84), (84, 42), (42, 84))
    ]
    expected = max(of_sizes) if checkpoint.config.model_type == "llava_next" else of_sizes[0]
    assert family.usual_image_tokens(processor.image_processor) == expected
