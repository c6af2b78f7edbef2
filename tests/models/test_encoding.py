"""Prompts as token ids and pixels: like transformers' processor, and like the released codes where those differ."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from image_server import ImageServer
from PIL import Image, ImageFile
from transformers import AutoConfig, AutoProcessor

from lmms_fixattn.models.checkpoint import DEMO
from lmms_fixattn.models.encoding import PromptEncoder, open_picture
from lmms_fixattn.models.prompts import SYSTEM


@pytest.fixture(scope="module")
def processor() -> Any:
    loaded = AutoProcessor.from_pretrained(DEMO)
    loaded.tokenizer.padding_side = "left"
    return loaded


@pytest.fixture(scope="module")
def config() -> Any:
    return AutoConfig.from_pretrained(DEMO)


def ask(text: str, *pictures: Any) -> list[dict[str, Any]]:
    images = [{"type": "image", "url": picture} for picture in pictures]
    return [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]


RED, BLUE = Image.new("RGB", (50, 31), "red"), Image.new("L", (23, 37), 99)


@pytest.mark.parametrize("pictures", [(), (RED,), (RED, BLUE)])
def test_default_form_is_what_transformers_processor_gives(processor: Any, config: Any, pictures: Any) -> None:
    encoder = PromptEncoder(processor, config, "default")
    encoded = encoder.encode(ask("A dog, or a cat?", *pictures))
    content = [*[{"type": "image"}] * len(pictures), {"type": "text", "text": "A dog, or a cat?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    rgb = [picture.convert("RGB") for picture in pictures]
    expected = processor(text=text, images=rgb or None, return_tensors="pt")
    assert encoded.ids == expected["input_ids"][0].tolist()
    if pictures:
        together = encoder.family.together(encoded.images)
        torch.testing.assert_close(together["pixel_values"], expected["pixel_values"])
    else:
        assert encoded.images == ()


def test_template_that_writes_the_first_token_itself_does_not_get_it_twice(
    processor: Any, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "chat_template", "{{ '<s>' }}" + processor.chat_template)
    ids = PromptEncoder(processor, config, "default").encode(ask("Hi")).ids
    assert ids == processor.tokenizer("<s>USER: Hi ASSISTANT:", add_special_tokens=False)["input_ids"]
    assert ids.count(processor.tokenizer.bos_token_id) == 1


@pytest.mark.parametrize(
    ("form", "before", "after"),
    [("llava_v1", f"{SYSTEM} USER: ", "\nA dog? ASSISTANT:"), ("pai", f"{SYSTEM}USER: ", " A dog? ASSISTANT:")],
)
def test_other_forms_tokenise_the_text_around_an_image_separately(
    processor: Any, config: Any, form: str, before: str, after: str
) -> None:
    encoded = PromptEncoder(processor, config, form).encode(ask("A dog?", RED))
    alone = [processor.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (before, after)]
    image = [config.image_token_id] * config.image_seq_length
    assert encoded.ids == [processor.tokenizer.bos_token_id, *alone[0], *image, *alone[1]]


def test_a_tower_that_keeps_its_class_token_takes_one_place_more(processor: Any) -> None:
    config = AutoConfig.from_pretrained(DEMO, vision_feature_select_strategy="full")
    encoded = PromptEncoder(processor, config, "pai").encode(ask("A dog?", RED))
    assert encoded.ids.count(config.image_token_id) == config.image_seq_length + 1


def test_batch_is_padded_on_the_left_and_keeps_pictures_in_order(processor: Any, config: Any) -> None:
    encoder = PromptEncoder(processor, config, "default")
    prompts = [encoder.encode(m) for m in (ask("Hi"), ask("Which one is it?", RED, BLUE), ask("And?", BLUE))]
    batch = encoder.batch(prompts)
    for row, mask, prompt in zip(batch["input_ids"], batch["attention_mask"], prompts, strict=True):
        padding = len(row) - len(prompt.ids)
        assert row[padding:].tolist() == prompt.ids
        assert mask.tolist() == [0] * padding + [1] * len(prompt.ids)
    torch.testing.assert_close(
        batch["pixel_values"], torch.cat([image["pixel_values"] for prompt in prompts for image in prompt.images])
    )
    assert set(encoder.batch(prompts[:1])) == {"input_ids", "attention_mask"}


def test_tokenizer_of_another_model_raises(processor: Any) -> None:
    config = AutoConfig.from_pretrained(DEMO, image_token_index=5)
    with pytest.raises(ValueError, match="the model's is 5"):
        PromptEncoder(processor, config, "default")


def test_pictures_come_from_files_bytes_and_urls(tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    RED.save(path)
    data = path.read_bytes()
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    for source in (path, str(path), f"file://{path}", data, url, {"bytes": data, "path": None}, {"path": str(path)}):
        picture = open_picture(source)
        assert (picture.mode, picture.tobytes()) == ("RGB", RED.tobytes())
    assert open_picture(BLUE).mode == "RGB"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"bytes": None}, "expected a picture .*, got NoneType"),
        (b"none", r"picture of 4 bytes cannot be read \(cannot identify"),
        ("no.png", "picture no.png is missing"),
        (Image.new("F", (5, 3)), "picture of 5 by 3 pixels has floating-point values"),
    ],
)
def test_what_is_no_picture_raises(source: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        open_picture(source)


def test_a_url_is_fetched_and_one_that_fails_is_named() -> None:
    with ImageServer() as server:
        assert open_picture(f"{server.address}/val2014/COCO_val2014_000000000005.jpg").size == (67, 41)
        with pytest.raises(ValueError, match=r"picture http.*/none.jpg cannot be read \(404"):
            open_picture(f"{server.address}/none.jpg")


def test_an_orientation_in_exif_is_left_alone() -> None:
    exif = Image.Exif()
    exif[274] = 6
    data = io.BytesIO()
    Image.new("RGB", (7, 5)).save(data, "JPEG", exif=exif)
    url = "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
    assert open_picture(data.getvalue()).size == open_picture(url).size == (7, 5)


@pytest.mark.parametrize("fills", [True, False])
def test_truncated_picture_raises_instead_of_turning_grey(fills: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", fills)  # lmms-eval sets it to True for the whole process
    whole = io.BytesIO()
    Image.effect_noise((40, 40), 90).save(whole, "JPEG")
    with pytest.raises(ValueError, match="truncated"):
        open_picture(whole.getvalue()[:-200])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is fills
