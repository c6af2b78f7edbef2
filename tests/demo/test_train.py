"""How the demo's model is made: what a lesson is, and that every stage runs and leaves what the next one needs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from transformers import AutoProcessor, LlavaForConditionalGeneration

from demo_model import scenes, train
from demo_model.architecture import build_model, build_processor, build_tokenizer
from demo_model.scenes import NAMES, Placed, Scene

pytestmark = pytest.mark.system

THINGS = (Placed("cup", 0, 0, 35, False), Placed("bus", 98, 49, 42, False), Placed("zebra", 0, 98, 42, True))
SCENE = Scene(THINGS, "#ffffff", "#000000", 90, 1.0)


def plain(scene: Scene) -> Image.Image:
    """Stand in for the renderer, which needs a font: a square of a colour for each object."""
    picture = Image.new("RGB", (scenes.SIDE, scenes.SIDE), scene.wall)
    for thing in scene.objects:
        shade = 6 * NAMES.index(thing.name)
        box = (thing.left, thing.top, thing.left + thing.side, thing.top + thing.side)
        ImageDraw.Draw(picture).rectangle(box, fill=(shade, 255 - shade, 128))
    return picture


def words(lessons: train.Lessons, ids: list[int]) -> list[str]:
    return [lessons.tokenizer.decode([token]).strip() for token in ids]


@pytest.fixture(scope="module")
def parts() -> tuple[Any, train.Lessons]:
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, seed=3).eval()
    return model, train.Lessons(build_processor(tokenizer), model.config)


def test_pixels_are_those_of_the_processor(parts: tuple[Any, train.Lessons], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "render", plain)
    processor = parts[1].processor
    expected = processor.image_processor(images=[plain(SCENE)], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(train.render_batch([SCENE], processor), expected, atol=1e-5, rtol=0)


def test_a_patch_belongs_to_the_object_that_covers_half_of_it() -> None:
    labels = train.patch_labels(SCENE).reshape(10, 10)
    blank = len(NAMES)
    expected = torch.full((10, 10), blank)
    expected[:3, :3] = NAMES.index("cup")
    expected[2, 2] = blank  # 35 pixels cover a quarter of the third patch across and down
    expected[3:7, 7:] = NAMES.index("bus")  # pixels 49 to 91 downwards: half of the fourth patch and of the seventh
    expected[7:, :3] = NAMES.index("zebra")
    assert labels.tolist() == expected.tolist()


def test_parts_of_a_lesson_are_read_as_if_each_were_alone(parts: tuple[Any, train.Lessons]) -> None:
    """Hidden states of the packed sequence against those of every part by itself, behind the same image tokens."""
    model, lessons = parts
    text = model.model.language_model
    batch = lessons.batch(Random(1), [SCENE, SCENE], image=True)
    embedded = model.get_input_embeddings()(batch["input_ids"])
    chosen = {"attention_mask": batch["mask"], "position_ids": batch["position_ids"]}
    with torch.no_grad():
        packed = text(inputs_embeds=embedded, **chosen).last_hidden_state
        for row in range(2):
            positions = batch["position_ids"][row].tolist()
            ids = batch["input_ids"][row]
            image_end = int((ids == model.config.image_token_id).nonzero()[-1]) + 1
            starts = [place for place in range(image_end, len(ids)) if positions[place] == image_end]
            assert len(starts) == train.CAPTIONS + len(train.QUESTIONS)
            for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
                alone = torch.cat([ids[:image_end], ids[start:stop]])
                real = int((alone != lessons.tokenizer.pad_token_id).sum())
                by_itself = text(inputs_embeds=model.get_input_embeddings()(alone[None, :real])).last_hidden_state
                torch.testing.assert_close(
                    packed[row, start : start + real - image_end], by_itself[0, image_end:], atol=1e-4, rtol=1e-3
                )


def test_a_lesson_asks_on_the_road_of_the_wrapper_and_labels_the_answers(parts: tuple[Any, train.Lessons]) -> None:
    _, lessons = parts
    ids, labels, there, places = lessons.questions(Random(2), SCENE, "default", 6)
    text = lessons.tokenizer.decode(ids)
    assert text.count("Is there a") == text.count("ASSISTANT:") == 6
    for place, (token, label, shown) in enumerate(zip(ids, labels, there, strict=True)):
        if label in lessons.answers.values():
            assert ids[place + 1] == label
            assert labels[place + 1] == lessons.end
        if shown != train.IGNORED:
            name = lessons.tokenizer.decode([token]).strip()
            assert shown == (name in SCENE.names)
    assert places == [{"cup": 0, "bus": 5, "zebra": 6}.get(word, train.IGNORED) for word in words(lessons, ids)]


def test_a_caption_lesson_is_the_caption_and_says_where_its_objects_are(parts: tuple[Any, train.Lessons]) -> None:
    _, lessons = parts
    ids, labels, _, places = lessons.caption(Random(4), SCENE, "default", True)
    said = [label for label in labels if label != train.IGNORED]
    assert said[-1] == lessons.end
    assert ids[-len(said) + 1 :] == said[:-1]
    assert places == [{"cup": 0, "bus": 5, "zebra": 6}.get(word, train.IGNORED) for word in words(lessons, ids)]
    assert sorted(place for place in places if place != train.IGNORED) == [0, 5, 6]


def test_a_name_counts_as_said_in_its_own_caption_alone() -> None:
    chance, names = Random(6), [5, 7, 9]
    labels = [[chance.choice([train.IGNORED, *names]) for _ in range(40)] for _ in range(3)]
    part = [sorted(chance.choices([-1, 0, 1, 2, 3], k=40)) for _ in range(3)]
    expected = [
        [
            [
                any(
                    labels[row][before] == name and part[row][before] == part[row][place] > 0 for before in range(place)
                )
                for name in names
            ]
            for place in range(40)
        ]
        for row in range(3)
    ]
    found = train.said_before(torch.tensor(labels), torch.tensor(names), torch.tensor(part))
    assert found.tolist() == torch.tensor(expected).float().tolist()


def test_every_stage_learns_and_is_not_learnt_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "render", plain)
    few = {"see": 2, "speak": 2, "align": 2, "tell": 2}
    batches = {f"scenes_to_{stage}": 2 for stage in few}
    train.train(tmp_path, train.Recipe(seed=1, **few, **batches))
    shipped = tmp_path / "model"
    model = LlavaForConditionalGeneration.from_pretrained(shipped)
    assert AutoProcessor.from_pretrained(shipped).tokenizer.eos_token_id == model.config.text_config.eos_token_id
    states = [load_file(tmp_path / f"{stage}.safetensors") for stage in few]
    moved = [
        {name.split(".")[1] for name in after if not torch.equal(before[name], after[name])}
        for before, after in pairwise(states)
    ]
    heads = {"weight"}  # lm_head.weight
    assert moved == [{"language_model"} | heads, {"multi_modal_projector"},
                     {"language_model", "multi_modal_projector"} | heads]  # fmt: skip
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    train.train(tmp_path, train.Recipe(seed=1, **few, **batches))
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")} == times
