"""The demo's model: small, whole, LLaVA's own parts, and rebuilt from its seed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration

from lmms_fixattn.checkpoint import DEMO
from lmms_fixattn.conversation import SYSTEM
from lmms_fixattn.demo import build
from lmms_fixattn.metrics.coco_objects import CATEGORIES


@pytest.fixture(scope="module")
def shipped() -> Iterator[tuple[Any, Any]]:
    """The shipped model and processor, loaded by transformers' own classes with every socket closed."""
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError("the demo must not touch the network")

        patch.setattr(socket.socket, "connect", refuse)
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        yield AutoModelForImageTextToText.from_pretrained(DEMO), AutoProcessor.from_pretrained(DEMO)


def test_demo_is_a_small_llava_of_the_real_architecture(shipped: tuple[Any, Any]) -> None:
    model, processor = shipped
    assert isinstance(model, LlavaForConditionalGeneration)
    assert model.config.vision_config.model_type == "clip_vision_model"
    assert (model.config.vision_feature_layer, model.config.vision_config.num_hidden_layers) == (-2, 4)
    assert model.config.text_config.model_type == "llama"
    assert model.dtype == torch.float16
    assert processor.tokenizer.convert_tokens_to_ids("<image>") == model.config.image_token_id
    assert sum(path.stat().st_size for path in DEMO.iterdir()) < 1_500_000
    assert not [path.name for path in DEMO.iterdir() if path.suffix in (".bin", ".pt", ".pkl", ".py")]


def test_demo_is_what_its_seed_builds(shipped: tuple[Any, Any]) -> None:
    model, processor = shipped
    tokenizer = build.build_tokenizer()
    assert tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    rebuilt = build.build_model(tokenizer).state_dict()
    assert rebuilt.keys() == model.state_dict().keys()
    for name, weights in model.state_dict().items():
        torch.testing.assert_close(weights, rebuilt[name], msg=name)


@pytest.mark.parametrize(
    "text", [SYSTEM, "Is there a dog in the image?", "Größe: 3 €, “naïve” 犬 🐕\n\ttab  two spaces"]
)
def test_tokenizer_loses_no_text(shipped: tuple[Any, Any], text: str) -> None:
    tokenizer = shipped[1].tokenizer
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
    assert tokenizer.unk_token_id not in tokenizer(text).input_ids


def test_objects_that_captions_name_are_words_of_the_vocabulary(shipped: tuple[Any, Any]) -> None:
    tokenizer = shipped[1].tokenizer
    for name in CATEGORIES:
        assert tokenizer.tokenize(f"a {name}")[1:] == [f"▁{word}" for word in name.split()]


def test_chat_template_writes_llavas_turns(shipped: tuple[Any, Any]) -> None:
    def turn(role: str, text: str, images: int = 0) -> dict[str, Any]:
        return {"role": role, "content": [{"type": "text", "text": text}, *[{"type": "image"}] * images]}

    talk = [turn("user", "One?", images=2), turn("assistant", "Yes."), turn("user", "Two?")]
    prompt = shipped[1].apply_chat_template(talk, add_generation_prompt=True)
    assert prompt == "USER: <image>\n<image>\nOne? ASSISTANT: Yes. USER: Two? ASSISTANT:"
