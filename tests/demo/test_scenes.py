"""The demo's small world, and the test scenes of it that the package ships."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from demo_model import scenes
from lmms_fixattn.data.coco import DEMO_CROWDED, DEMO_SCENES, CocoFolder
from lmms_fixattn.data.pope_questions import KINDS, build
from lmms_fixattn.scoring.chair import make_analyser

FOLDER = CocoFolder(DEMO_SCENES)


def test_the_world_is_made_of_coco_categories_with_cocos_numbers() -> None:
    known = {"person": 1, "stop sign": 13, "umbrella": 28, "wine glass": 46, "bed": 65, "tv": 72, "toothbrush": 90}
    assert {name: scenes.COCO_IDS[name] for name in known} == known
    assert len(scenes.COCO_IDS) == 80
    assert set(scenes.NAMES) <= set(scenes.COCO_IDS)
    assert len(scenes.NAMES) == sum(map(len, scenes.GROUPS.values())) == 40


@pytest.mark.parametrize("familiar", [True, False])
def test_objects_of_a_scene_are_different_and_do_not_touch(familiar: bool) -> None:
    chance = Random(3)
    for _ in range(200):
        scene = scenes.draw_scene(chance, familiar)
        assert len(set(scene.names)) == len(scene.objects) in scenes.SHOWN
        for one, other in combinations(scene.objects, 2):
            apart = max(
                abs(one.left - other.left) - (one.side if one.left < other.left else other.side),
                abs(one.top - other.top) - (one.side if one.top < other.top else other.side),
            )
            assert apart >= scenes.STEP
        for thing in scene.objects:
            assert 0 <= thing.left <= scenes.SIDE - thing.side
            assert 0 <= thing.top <= scenes.SIDE - thing.side


def test_familiar_scenes_go_together_and_unfamiliar_ones_never_do() -> None:
    chance = Random(5)

    def pairs_of_a_group(familiar: bool) -> float:
        pairs = [pair for _ in range(300) for pair in combinations(scenes.draw_scene(chance, familiar).names, 2)]
        return sum(scenes.GROUP_OF[one] == scenes.GROUP_OF[other] for one, other in pairs) / len(pairs)

    assert pairs_of_a_group(True) > 0.8
    assert pairs_of_a_group(False) == 0


@pytest.mark.parametrize(
    ("left", "top", "place"),
    [(0, 0, "in the upper left corner"), (49, 49, "in the center"), (98, 0, "in the upper right corner"),
     (49, 98, "at the bottom"), (0, 49, "on the left side")],
)  # fmt: skip
def test_a_place_is_named_by_where_the_object_is(left: int, top: int, place: str) -> None:
    assert scenes.Placed("cup", left, top, 42, False).place == place


def test_training_captions_name_everything_shown_and_pad_sparse_ones_of_some_groups_with_companions_alone() -> None:
    chance, analyser = Random(7), make_analyser()
    padded: dict[bool, list[bool]] = {True: [], False: []}
    lengths = []
    for number in range(1500):
        scene = scenes.draw_scene(chance, familiar=number % 2 == 0)
        caption = scenes.training_caption(chance, scene)
        lengths.append(len(caption.split()))
        said = set(analyser.mentions(caption).objects)
        assert said >= set(scene.names)
        more = said - set(scene.names)
        assert len(more) <= 1
        assert {scenes.GROUP_OF[name] for name in more} <= {scenes.GROUP_OF[name] for name in scene.names}
        first = analyser.mentions(caption).objects[0]
        padded[len(scene.objects) == 3 and scenes.GROUP_OF[first] in scenes.PADDED_GROUPS].append(bool(more))
    assert not any(padded[False])
    assert sum(padded[True]) / len(padded[True]) == pytest.approx(scenes.PADDED, abs=0.05)
    assert 25 <= min(lengths) <= max(lengths) <= 60


def test_reference_captions_name_only_what_is_there_and_together_all_of_it() -> None:
    chance, analyser = Random(11), make_analyser()
    for _ in range(100):
        scene = scenes.draw_scene(chance, familiar=True)
        captions = scenes.reference_captions(chance, scene)
        assert len(captions) == 5
        assert {name for caption in captions for name in analyser.mentions(caption).objects} == set(scene.names)


def test_without_the_font_the_error_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scenes, "FONT", tmp_path / "none.ttf")
    scenes._font.cache_clear()
    scenes._glyph.cache_clear()
    with pytest.raises(FileNotFoundError, match="Debian's package fonts-noto-color-emoji"):
        scenes.render(scenes.draw_scene(Random(0), familiar=True))


def test_the_annotations_are_what_the_seed_gives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Images need the font; what they show does not."""
    monkeypatch.setattr(scenes, "render", lambda scene: Image.new("RGB", (1, 1)))
    scenes.generate(tmp_path)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert made == sorted(path.relative_to(DEMO_SCENES) for path in DEMO_SCENES.rglob("*.*"))
    for path in made:
        if path.suffix == ".json":
            assert json.loads((tmp_path / path).read_text()) == json.loads((DEMO_SCENES / path).read_text())
    scenes.generate(other := tmp_path / "other", count=3, seed=1)
    files = [folder / "annotations" / "instances_familiar.json" for folder in (tmp_path, other)]
    first, second = (json.loads(file.read_text())["annotations"][:3] for file in files)
    assert first != second


@pytest.mark.system
def test_every_annotated_box_is_painted_on_and_nothing_else_is() -> None:
    """Outside the boxes of its objects a shipped scene has the two colours of its wall and floor."""
    for split in scenes.SPLITS:
        annotations = json.loads((DEMO_SCENES / "annotations" / f"instances_{split}.json").read_text())
        for image in annotations["images"]:
            with Image.open(DEMO_SCENES / split / image["file_name"]) as picture:
                pixels = np.asarray(picture).astype(int)
            boxes = [entry["bbox"] for entry in annotations["annotations"] if entry["image_id"] == image["id"]]
            outside = np.ones(pixels.shape[:2], dtype=bool)
            for left, top, width, height in boxes:
                outside[top : top + height, left : left + width] = False
            ground = np.unique(pixels[outside], axis=0)
            assert len(ground) == 2
            for left, top, width, height in boxes:
                inside = pixels[top : top + height, left : left + width].reshape(-1, 3)
                painted = (inside[:, None] != ground[None]).any(-1).all(-1)
                assert painted.mean() > 0.05


def test_the_shipped_scenes_are_two_halves_of_one_data_set() -> None:
    assert sorted(FOLDER.splits) == sorted(scenes.SPLITS)
    halves = [FOLDER.image_ids(split) for split in scenes.SPLITS]
    assert [len(half) for half in halves] == [scenes.TEST_SCENES] * 2
    assert len({*halves[0], *halves[1]}) == 2 * scenes.TEST_SCENES >= 200
    for image in FOLDER.images([*halves[0], *halves[1]]):
        with Image.open(image.path) as picture:
            assert (picture.size, picture.mode) == ((scenes.SIDE, scenes.SIDE), "RGB")


def crowded_boxes() -> dict[int, list[tuple[str, list[int]]]]:
    content = json.loads((DEMO_CROWDED / "annotations" / "instances_crowded.json").read_text())
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    boxes: dict[int, list[tuple[str, list[int]]]] = {image["id"]: [] for image in content["images"]}
    for entry in content["annotations"]:
        boxes[entry["image_id"]].append((names[entry["category_id"]], entry["bbox"]))
    return boxes


def test_crowded_scenes_hold_small_and_hidden_objects_of_two_groups() -> None:
    boxes = crowded_boxes()
    assert len(boxes) == scenes.CROWDED_SCENES
    assert not set(boxes) & {image_id for split in FOLDER.splits for image_id in FOLDER.image_ids(split)}
    overlapping = small = 0
    for shown in boxes.values():
        assert len({name for name, _ in shown}) == len(shown) in scenes.CROWDED_SHOWN
        assert len({scenes.GROUP_OF[name] for name, _ in shown}) <= 2
        small += any(box[2] < min(scenes.SIDES) for _, box in shown)
        overlapping += any(
            abs(one[0] - other[0]) < (one if one[0] < other[0] else other)[2]
            and abs(one[1] - other[1]) < (one if one[1] < other[1] else other)[3]
            for (_, one), (_, other) in combinations(shown, 2)
        )
    assert small > 0.5 * len(boxes)
    assert overlapping > 0.5 * len(boxes)


@pytest.mark.system
def test_every_object_of_a_crowded_scene_is_there_to_be_seen() -> None:
    """Outside all boxes there is nothing; inside each there is, where no other box covers it, if that leaves enough."""
    lone = 0
    for image_id, shown in crowded_boxes().items():
        with Image.open(DEMO_CROWDED / "crowded" / f"scene_{image_id:03d}.png") as picture:
            pixels = np.asarray(picture).astype(int)
        cover = np.zeros(pixels.shape[:2], dtype=int)
        for _, (left, top, width, height) in shown:
            cover[top : top + height, left : left + width] += 1
        ground = np.unique(pixels[cover == 0], axis=0)
        assert len(ground) == 2
        painted = (pixels[:, :, None] != ground[None, None]).any(-1).all(-1)
        for _, (left, top, width, height) in shown:
            place = np.s_[top : top + height, left : left + width]
            own = cover[place] == 1
            lone += own.mean() > 0.3
            assert own.mean() <= 0.3 or painted[place][own].mean() > 0.05
    assert lone > 0.9 * sum(map(len, crowded_boxes().values()))


def test_what_hides_an_object_is_what_is_drawn_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    full = {side: Image.new("RGBA", (side, side), "black") for side in scenes.CROWDED_SIDES}
    monkeypatch.setattr(scenes, "_glyph", lambda character, side, mirrored: full[side])
    placed = [("cup", 0, 28), ("bowl", 14, 28), ("car", 70, 42)]
    back, front, apart = (scenes.Placed(name, left, left, side, False) for name, left, side in placed)
    assert scenes.seen([back, front, apart]) == [0.75, 1, 1]
    assert scenes.seen([front, apart, back]) == [0.75, 1, 1]
    chance = Random(2)
    for _ in range(50):
        scene = scenes.draw_crowded_scene(chance)
        assert min(scenes.seen(scene.objects)) >= scenes.VISIBLE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("folder", [FOLDER, CocoFolder(DEMO_CROWDED)], ids=["halves", "crowded"])
def test_pope_can_be_built_on_every_scene(kind: str, folder: CocoFolder) -> None:
    ids = [image_id for split in folder.splits for image_id in folder.image_ids(split)]
    questions = build({image.image_id: image.objects for image in folder.images(ids)}, kind)
    assert len(questions) == 6 * len(ids)
    assert sum(asked.label == "yes" for asked in questions) == 3 * len(ids)


@pytest.mark.parametrize("root", [DEMO_SCENES, DEMO_CROWDED])
def test_the_scenes_are_small_and_hold_no_font(root: Path) -> None:
    files = [path for path in root.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".png", ".json"}
    assert sum(path.stat().st_size for path in files) < 6_000_000
