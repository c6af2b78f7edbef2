"""The packaged scenes of the demo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from lmms_fixattn.data.coco import CocoFolder
from lmms_fixattn.data.pope_questions import KINDS, build
from lmms_fixattn.demo import scenes
from lmms_fixattn.task_glue.documents import DEMO_SCENES


def test_the_packaged_scenes_are_what_the_seed_gives(tmp_path: Path) -> None:
    scenes.generate(tmp_path)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert made == sorted(path.relative_to(DEMO_SCENES) for path in DEMO_SCENES.rglob("*.*"))
    for path in made:
        if path.suffix == ".json":
            assert json.loads((tmp_path / path).read_text()) == json.loads((DEMO_SCENES / path).read_text())
        else:
            with Image.open(tmp_path / path) as new, Image.open(DEMO_SCENES / path) as packaged:
                difference = ImageChops.difference(new, packaged).convert("L")
            changed = sum(count for value, count in enumerate(difference.histogram()) if value)
            assert changed <= 0.02 * scenes.SIZE**2  # edges may be drawn otherwise by another version of Pillow


def test_another_seed_gives_other_scenes(tmp_path: Path) -> None:
    scenes.generate(tmp_path, scenes=3, seed=1)
    assert (tmp_path / "val2014" / "scene_001.png").read_bytes() != (
        DEMO_SCENES / "val2014" / "scene_001.png"
    ).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_pope_can_be_built_on_every_scene(kind: str) -> None:
    folder = CocoFolder(DEMO_SCENES)
    images = folder.images(folder.image_ids("val2014"))
    assert len(images) == scenes.SCENES
    questions = build({image.image_id: image.objects for image in images}, kind)
    assert len(questions) == 6 * scenes.SCENES


def test_every_scene_has_five_captions_that_name_only_what_it_shows() -> None:
    folder = CocoFolder(DEMO_SCENES)
    captions: dict[int, list[str]] = {}
    for image_id, caption in folder.captions():
        captions.setdefault(image_id, []).append(caption.lower())
    for image in folder.images(folder.image_ids("val2014")):
        assert len(captions[image.image_id]) == 5
        shown = {name for name in scenes.CATEGORIES if any(f" {name}" in text for text in captions[image.image_id])}
        assert shown == set(image.objects)


def test_the_scenes_are_small() -> None:
    assert sum(path.stat().st_size for path in DEMO_SCENES.rglob("*.*")) < 300_000
