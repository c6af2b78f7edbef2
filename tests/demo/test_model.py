"""The demo's model: small, whole, LLaVA's own parts, and one that sees, talks and hallucinates."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration

from demo_model import architecture
from demo_model.judge import figures
from demo_model.scenes import CAPTION_PROMPTS, GROUP_OF, NAMES, SPLITS
from lmms_fixattn.data.coco import DEMO_CROWDED, DEMO_SCENES, CocoFolder, CocoImage
from lmms_fixattn.data.pope_questions import build, question
from lmms_fixattn.models.checkpoint import DEMO
from lmms_fixattn.models.encoding import PromptEncoder
from lmms_fixattn.models.prompts import SYSTEM
from lmms_fixattn.scoring import pope
from lmms_fixattn.scoring.chair import make_analyser, score_caption
from lmms_fixattn.scoring.objects.coco_objects import CATEGORIES

pytestmark = pytest.mark.system


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
    assert sum(path.stat().st_size for path in DEMO.iterdir()) < 8_000_000
    assert not [path.name for path in DEMO.iterdir() if path.suffix in (".bin", ".pt", ".pkl", ".py")]


def test_demo_has_the_shapes_and_the_vocabulary_that_its_recipe_builds(shipped: tuple[Any, Any]) -> None:
    model, processor = shipped
    tokenizer = architecture.build_tokenizer()
    assert tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    built = architecture.build_model(tokenizer, seed=0)
    shapes = {name: weights.shape for name, weights in built.state_dict().items()}
    assert {name: weights.shape for name, weights in model.state_dict().items()} == shapes


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


def ask(shipped: tuple[Any, Any], asked: list[tuple[CocoImage, str]]) -> list[tuple[str, bool]]:
    """Answer prompts about images greedily: the text, and whether it ended by itself."""
    model, processor = shipped
    model = model.float()
    encoder = PromptEncoder(processor, model.config, "default")
    found = []
    for start in range(0, len(asked), 20):
        batch = [
            encoder.encode([{"role": "user", "content": [{"type": "image", "url": str(image.path)},
                                                          {"type": "text", "text": text}]}])
            for image, text in asked[start : start + 20]
        ]  # fmt: skip
        inputs = encoder.batch(batch)
        with torch.no_grad():
            tokens = model.generate(**inputs, max_new_tokens=128, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        found += [(encoder.decode(row), bool((row == encoder.tokenizer.eos_token_id).any())) for row in tokens]
    return found


@pytest.mark.parametrize("split", SPLITS)
def test_captions_are_of_the_picture_and_false_by_habit(shipped: tuple[Any, Any], split: str) -> None:
    """On a third of the half: wide bounds around what the model card says of all of it."""
    folder, analyser = CocoFolder(DEMO_SCENES), make_analyser()
    images = folder.images(folder.image_ids(split)[::3])
    captions = ask(shipped, [(image, CAPTION_PROMPTS[0]) for image in images])
    rows = [
        score_caption(image.image_id, text, set(image.objects), analyser, ended)
        for image, (text, ended) in zip(images, captions, strict=True)
    ]
    found = figures({"chair": rows}, {i.image_id: i.objects for i in images})
    assert 10 <= found["chair_s"] <= 75
    assert found["recall"] >= 55
    assert 25 <= found["words"] <= 60
    assert found["unterminated"] <= 5
    assert found["rep_4"] <= 10
    assert found["first_object_wrong"] <= 15
    assert found["same_group_ratio"] >= 3


def test_questions_about_crowded_scenes_are_neither_all_answered_right_nor_guessed(shipped: tuple[Any, Any]) -> None:
    """On a twelfth of them: wide bounds around what the model card says."""
    folder = CocoFolder(DEMO_CROWDED)
    images = folder.images(folder.image_ids("crowded")[::12])
    paths = {image.image_id: image for image in images}
    questions = build({image.image_id: image.objects for image in images}, "adversarial")
    answers = ask(shipped, [(paths[asked.image_id], asked.question) for asked in questions])
    found = pope.figures(
        [{"label": asked.label, "answer": text} for asked, (text, _) in zip(questions, answers, strict=True)]
    )
    assert 65 <= found["accuracy"] <= 95
    assert 45 <= found["recall"] <= 90
    assert 20 <= found["yes_ratio"] <= 55


def test_yes_and_no_answer_what_is_there(shipped: tuple[Any, Any]) -> None:
    folder = CocoFolder(DEMO_SCENES)
    images = folder.images(folder.image_ids("familiar")[::6])
    asked, labels = [], []
    for number, image in enumerate(images):
        groups = {GROUP_OF[name] for name in image.objects}
        far = [name for name in NAMES if GROUP_OF[name] not in groups]
        asked += [(image, question(image.objects[0])), (image, question(far[number % len(far)]))]
        labels += ["Yes", "No"]
    answers = [text for text, _ in ask(shipped, asked)]
    assert set(answers) <= {"Yes", "No"}
    assert sum(answer == label for answer, label in zip(answers, labels, strict=True)) >= 0.75 * len(labels)
