"""Checkpoints, prompts and settings that a family cannot serve: one line each, which says what was expected."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from miniature_checkpoints import CHECKPOINTS
from shapes_task import DOCS, make, naive_answer, picture, requests
from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig

from lmms_fixattn import make_method
from lmms_fixattn.harness.model import DocumentError
from lmms_fixattn.methods.adaiat import AdaIAT
from lmms_fixattn.methods.text_model import LLAVA_7B
from lmms_fixattn.models.checkpoint import Checkpoint
from lmms_fixattn.models.family import FAMILIES, families, family_of

pytestmark = pytest.mark.system

Folder = Callable[[str], Path]
VICUNA = "llava-hf/llava-v1.6-vicuna-7b-hf"
QWEN2_5, QWEN3 = "Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen3-VL-8B-Instruct"


@pytest.fixture(autouse=True)
def error_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def without(folder: Path, to: Path, *names: str) -> Path:
    """Copy a checkpoint without the files whose names match."""
    return Path(shutil.copytree(folder, to, ignore=shutil.ignore_patterns(*names)))


def one_line(error: Any) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("model_type", ["mllama", "of_no_library"])
def test_a_family_that_is_not_known_names_those_that_are(model_type: str, miniature: Folder, tmp_path: Path) -> None:
    folder = without(miniature(QWEN3), tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": model_type}))
    with pytest.raises(ValueError, match=model_type) as error:
        Checkpoint.find(str(folder), "main")
    text = one_line(error)
    assert len(families()) == len(FAMILIES) == 5
    assert all(f"{family.name}, such as {family.checkpoint}" in text for family in families())


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_without_an_image_processor_is_refused(name: str, miniature: Folder, tmp_path: Path) -> None:
    folder = without(miniature(name), tmp_path / "part", "*processor_config.json")
    with pytest.raises(ValueError, match=r"no processor could be read from .* load image processor") as error:
        make(pretrained=str(folder), method="pai")
    assert "expected a checkpoint in the transformers layout" in one_line(error)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_without_a_chat_template_is_refused(name: str, miniature: Folder, tmp_path: Path) -> None:
    folder = without(miniature(name), tmp_path / "part", "chat_template*")
    for file in ("tokenizer_config.json", "processor_config.json"):
        if (folder / file).exists():
            content = json.loads((folder / file).read_text())
            content.pop("chat_template", None)
            (folder / file).write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r"the checkpoint has no chat template, .* add the chat_template.jinja"
    ) as error:
        make(pretrained=str(folder), method="pai")
    assert "conversation=llava_v1" not in one_line(error)


@pytest.mark.parametrize("name", [QWEN2_5, QWEN3])
def test_a_tokenizer_of_another_checkpoint_is_refused(name: str, miniature: Folder, tmp_path: Path) -> None:
    folder = without(miniature(name), tmp_path / "part", "tokenizer*", "vocab.json", "merges.txt")
    with pytest.raises(
        ValueError, match=r"tokenizer's <\|image_pad\|> is token .*, the model's is 446; expected"
    ) as error:
        make(pretrained=str(folder), method="pai")
    one_line(error)


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("form", ["llava_v1", "pai"])
def test_a_form_of_prompts_of_another_family_is_refused(form: str, name: str, miniature: Folder) -> None:
    expected = f"conversation must be default, the only form of such a checkpoint, got '{form}'"
    with pytest.raises(ValueError, match=expected):
        make(pretrained=str(miniature(name)), method="pai", conversation=form)


@pytest.mark.parametrize("name", [VICUNA, QWEN2_5])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            [{"type": "video", "url": "film.mp4"}, {"type": "text", "text": "What happens?"}],
            "reads text and images, not video",
        ),
        (
            [{"type": "text", "text": "what is it? " * 2000}],
            r"its prompt has \d+ tokens, but the model has 2048 positions",
        ),
    ],
)
def test_what_a_model_cannot_read_stops_the_run_and_names_the_document(
    content: Any, message: str, name: str, miniature: Folder
) -> None:
    lm = make(pretrained=str(miniature(name)), method="pai", batch_size=2)
    with pytest.raises(DocumentError, match=message) as error:
        lm.generate_until(requests([0], lambda doc: [{"role": "user", "content": content}]))
    assert "document 0 of shapes" in one_line(error)


@pytest.mark.parametrize("name", [QWEN2_5, QWEN3])
def test_marks_in_a_question_change_no_answer_and_are_told_once(
    name: str, miniature: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, said = make(pretrained=str(miniature(name)), method="pai", batch_size=4), []
    monkeypatch.setattr(lm, "_warn_once", said.append)
    marks = (
        "",
        "<|image_pad|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|video_pad|>",
        "<|vision_start|><|image_pad|>",
    )
    doc = {"text": "What is it?", "pictures": [picture(3)]}

    def messages(mark: str) -> Any:
        image = {"type": "image", "url": doc["pictures"][0]}
        return [{"role": "user", "content": [image, {"type": "text", "text": f"What{mark} is it?"}]}]

    asked = [requests([0], lambda _, mark=mark: messages(mark))[0] for mark in marks]
    answers = lm.generate_until(asked)
    assert {answer.text for answer in answers} == {naive_answer(lm, doc, do_sample=False)[0]}
    assert said == ["shapes: left out literal image marks of the text, which stand for no image"] * 5


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_batches_of_prompts_without_any_picture_are_answered(name: str, miniature: Folder) -> None:
    lm = make(pretrained=str(miniature(name)), method="vcd", batch_size=2)
    results = lm.generate_until(requests([1, 5]))
    assert [len(DOCS[index]["pictures"]) for index in (1, 5)] == [0, 0]
    assert [result.text for result in results] == [naive_answer(lm, DOCS[i], do_sample=False)[0] for i in (1, 5)]


@pytest.mark.parametrize("method", ["adhh", "var", "adaiat"])
def test_what_was_found_on_llava_1_5_is_not_taken_for_llava_next_of_the_same_sizes(method: str, tmp_path: Path) -> None:
    vicuna = LlavaNextConfig(
        vision_config=CLIPVisionConfig(),
        text_config=LlamaConfig(hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32),
    )
    text = family_of(vicuna).text_model
    assert dataclasses.replace(text, within="llava") == LLAVA_7B
    made = make_method(method, **(AdaIAT.example(LLAVA_7B, tmp_path) if method == "adaiat" else {}))
    made.for_model(LLAVA_7B)
    with pytest.raises(ValueError, match=r"LLaVA-1.5-7B.*, this model is another of a llava_next .* 32 heads") as error:
        made.for_model(text)
    one_line(error)
