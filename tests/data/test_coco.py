"""COCO-format folders."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from coco_folders import write_coco

from lmms_fixattn.data import DataError
from lmms_fixattn.data.coco import CocoFolder
from lmms_fixattn.errors import UserError
from lmms_fixattn.scoring import chair


@pytest.mark.parametrize("below", ["val2014", "images/val2014", "images", "."])
def test_images_are_found_in_the_usual_places(tmp_path: Path, below: str) -> None:
    write_coco(tmp_path, {11: ["cat"], 7: ["dog", "cat", "dog"]}, images=below)
    images = CocoFolder(tmp_path).images([7, 11])
    assert [image.image_id for image in images] == [7, 11]
    assert [image.objects for image in images] == [("dog", "cat"), ("cat",)]
    assert images[0].path.resolve() == (tmp_path / below / "COCO_val2014_000000000007.png").resolve()


def test_any_file_names_and_splits_will_do(tmp_path: Path) -> None:
    write_coco(tmp_path, {3: ["cat"]}, split="summer", file_name="picture {image_id}.png")
    folder = CocoFolder(tmp_path)
    assert folder.splits == ("summer",)
    assert folder.images([3])[0].path == tmp_path / "summer" / "picture 3.png"
    assert folder.image_ids("summer") == (3,)
    assert (folder.image_id("picture 3.png"), folder.image_id("picture 4.png")) == (3, None)


def test_instances_and_captions_are_those_of_the_files(tmp_path: Path) -> None:
    chance = random.Random(3)
    objects = {i: chance.choices(["cat", "dog", "cup", "bus"], k=chance.randint(0, 5)) for i in (2, 3, 5, 7, 11)}
    captions = {i: [f"Caption {n} of {i}." for n in range(chance.randint(0, 3))] for i in objects}
    folder = CocoFolder(write_coco(tmp_path, objects, captions))
    assert folder.image_ids("val2014") == (2, 3, 5, 7, 11)
    assert folder.holds_any([1, 7])
    assert not folder.holds_any([1, 4])
    for ids in (None, [7, 2], [5]):
        chosen = list(objects) if ids is None else ids
        assert sorted(folder.instances(ids)) == sorted((i, name) for i in chosen for name in objects[i])
        assert sorted(folder.captions(ids)) == sorted((i, text) for i in chosen for text in captions[i])


def test_train_serves_the_ids_that_val_lacks_and_is_not_read_before(tmp_path: Path) -> None:
    write_coco(tmp_path, {1: ["cat"]}, {1: ["A cat."]})
    write_coco(tmp_path, {2: ["dog"]}, {2: ["A dog."]}, split="train2014")
    folder = CocoFolder(tmp_path)
    assert folder.splits == ("val2014", "train2014")
    assert [(image.image_id, image.path.parent.name) for image in folder.images([2, 1])] == [
        (2, "train2014"),
        (1, "val2014"),
    ]
    assert sorted(folder.captions([1, 2])) == [(1, "A cat."), (2, "A dog.")]
    (tmp_path / "annotations" / "instances_train2014.json").write_text("broken")
    assert [image.objects for image in folder.images([1])] == [("cat",)]
    assert folder.holds_any([1, 2])
    assert folder.image_id("COCO_val2014_000000000001.png") == 1
    with pytest.raises(UserError, match=r"instances_train2014.json, line 1, column 1: malformed JSON"):
        folder.images([2])


def test_a_name_that_two_splits_have_needs_its_folder(tmp_path: Path) -> None:
    write_coco(tmp_path, {1: ["cat"], 3: ["cat"]}, split="val", file_name="{image_id}.png")
    write_coco(tmp_path, {2: ["dog"]}, split="train", file_name="1.png")
    folder = CocoFolder(tmp_path)
    assert (folder.image_id("val/1.png"), folder.image_id("x/train/1.png"), folder.image_id("3.png")) == (1, 2, 3)
    with pytest.raises(UserError, match=r"'1.png' may be an image of 2 splits"):
        folder.image_id("1.png")


def test_a_replaced_annotation_file_is_read_anew(tmp_path: Path) -> None:
    folder = CocoFolder(write_coco(tmp_path, {1: ["cat"]}, {1: ["A cat."]}))
    assert folder.images([1])[0].objects == ("cat",)
    write_coco(tmp_path, {1: ["dog", "cup"]}, {1: ["A dog, a cup."]})
    assert folder.images([1])[0].objects == ("dog", "cup")
    assert list(folder.captions()) == [(1, "A dog, a cup.")]


def test_lacking_ids_are_counted_and_never_dropped(tmp_path: Path) -> None:
    folder = CocoFolder(write_coco(tmp_path, {1: ["cat"], 2: ["dog"]}, {}))
    for use in (folder.images, lambda ids: list(folder.instances(ids)), lambda ids: list(folder.captions(ids))):
        with pytest.raises(DataError, match=r"2 of 4 image ids are not in .*instances_val2014.json.* first is 8;"):
            use([1, 8, 2, 9])


def test_missing_image_files_are_counted(tmp_path: Path) -> None:
    folder = CocoFolder(write_coco(tmp_path, {1: ["cat"], 2: ["dog"], 3: ["cup"]}))
    for image_id in (2, 3):
        folder.images([image_id])[0].path.unlink()
    with pytest.raises(DataError, match=r"2 of 3 image files are missing .*000000000002.png.*val2014.zip"):
        folder.images([1, 2, 3])


def test_missing_annotation_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist.*val2014.zip"):
        CocoFolder(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"missing annotation file .*instances_val2014.json"):
        CocoFolder(tmp_path)
    folder = CocoFolder(write_coco(tmp_path, {1: ["cat"]}))
    with pytest.raises(DataError, match=r"missing annotation file .*captions_val2014.json"):
        list(folder.captions([1]))


@pytest.mark.parametrize("kept", ["val2014", "annotations/captions_val2014.json"])
def test_a_split_without_instances_is_named_though_another_has_them(tmp_path: Path, kept: str) -> None:
    write_coco(tmp_path, {1: ["cat"]}, {1: []}, split="train2014")
    (tmp_path / kept).touch() if kept.endswith("json") else (tmp_path / kept).mkdir()
    with pytest.raises(DataError, match=r"missing annotation file .*instances_val2014.json"):
        CocoFolder(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        json.dumps({"images": [{"id": 1}], "annotations": [], "categories": []}),
        json.dumps({"images": [], "annotations": [{"id": 1, "image_id": 1, "category_id": 5}], "categories": []}),
        json.dumps({"images": [], "annotations": [{"id": 1}], "categories": []}),
    ],
)
def test_a_malformed_annotation_file_is_named(tmp_path: Path, content: str) -> None:
    write_coco(tmp_path, {1: ["cat"]})
    (tmp_path / "annotations" / "instances_val2014.json").write_text(content)
    with pytest.raises(UserError, match=r"instances_val2014.json[,:] "):
        CocoFolder(tmp_path).images([1])


def test_reading_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = CocoFolder(write_coco(tmp_path, {1: ["cat"]}, {1: ["A cat."]}))
    assert folder.images([1])
    assert list(folder.captions([1]))
    assert capsys.readouterr() == ("", "")


def edited(root: Path, kind: str, change: Callable[[Any], None]) -> CocoFolder:
    """Write a folder of two images whose instances or captions file was changed."""
    write_coco(root, {139: ["person", "dog"], 285: ["bear"]}, {139: ["A man and a dog."], 285: ["An animal."]})
    path = root / "annotations" / f"{kind}_val2014.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return CocoFolder(root)


def as_text(lists: Sequence[str], keys: Sequence[str]) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for name in lists:
            for entry in content[name]:
                entry.update({key: str(entry[key]) for key in keys if key in entry})

    return change


@pytest.mark.parametrize("kind", ["instances", "captions"])
@pytest.mark.parametrize(
    ("lists", "keys"),
    [
        (["annotations"], ["image_id"]),
        (["images"], ["id", "width", "height"]),
        (["images", "annotations"], ["id", "image_id", "category_id"]),
    ],
)
def test_numbers_written_as_text_are_the_same_numbers(
    tmp_path: Path, kind: str, lists: Sequence[str], keys: Sequence[str]
) -> None:
    folder = edited(tmp_path, kind, as_text(lists, keys))
    truth = {139: {"person", "dog"}, 285: {"bear"}}
    assert folder.truth([139, 285], chair.make_analyser()) == truth
    assert sorted(folder.captions()) == [(139, "A man and a dog."), (285, "An animal.")]
    assert folder.sizes([285]) == {285: (7, 5)}


def test_categories_numbered_in_text_are_found(tmp_path: Path) -> None:
    folder = edited(tmp_path, "instances", as_text(["categories"], ["id"]))
    assert sorted(folder.instances([285])) == [(285, "bear")]


def put(where: str, key: str, value: Any) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        content[where][1][key] = value

    return change


@pytest.mark.parametrize("value", [None, 139.0, float("nan"), True, [139], "x", "", -1, 2**63, 7])
@pytest.mark.parametrize("kind", ["instances", "captions"])
def test_an_annotation_of_no_image_is_named(tmp_path: Path, kind: str, value: Any) -> None:
    folder = edited(tmp_path, kind, put("annotations", "image_id", value))
    with pytest.raises(UserError, match=rf"{kind}_val2014.json, annotations, entry 2: 'image_id' "):
        folder.truth([139], chair.make_analyser())


@pytest.mark.parametrize(
    ("kind", "where", "key", "value"),
    [
        ("instances", "images", "id", None),
        ("instances", "images", "file_name", 7),
        ("instances", "images", "width", "wide"),
        ("instances", "annotations", "category_id", None),
        ("instances", "annotations", "category_id", 99),
        ("instances", "categories", "id", 1.5),
        ("instances", "categories", "name", None),
        ("captions", "images", "id", "x"),
        ("captions", "annotations", "caption", None),
        ("captions", "annotations", "caption", ["A dog."]),
    ],
)
def test_a_value_of_another_type_is_named(tmp_path: Path, kind: str, where: str, key: str, value: Any) -> None:
    folder = edited(tmp_path, kind, put(where, key, value))
    with pytest.raises(UserError, match=rf"{kind}_val2014.json, {where}, entry 2: '{key}' "):
        folder.truth([139], chair.make_analyser())


@pytest.mark.parametrize(
    ("kind", "where"), [("instances", "images"), ("instances", "categories"), ("captions", "images")]
)
def test_what_is_there_twice_is_named(tmp_path: Path, kind: str, where: str) -> None:
    folder = edited(tmp_path, kind, lambda content: content[where].append(content[where][0]))
    with pytest.raises(UserError, match=rf"{kind}_val2014.json, {where}, entry \d: 'id' \d+ a second time"):
        folder.truth([139], chair.make_analyser())


def test_captions_of_no_image_are_counted_where_their_file_lists_none(tmp_path: Path) -> None:
    def change(content: Any) -> None:
        del content["images"]
        content["annotations"][0]["image_id"] = 140

    folder = edited(tmp_path, "captions", change)
    with pytest.raises(
        DataError, match=r"1 of 2 captioned images are none of instances_val2014.json, the first is 140"
    ):
        folder.truth([139], chair.make_analyser())


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    folder = CocoFolder(write_coco(tmp_path, {1: ["cat"]}, {1: ["A cat."]}))
    for path in (tmp_path / "annotations").iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert folder.truth([1], chair.make_analyser()) == {1: {"cat"}}
