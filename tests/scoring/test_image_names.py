"""Which image a name means."""

from __future__ import annotations

import pytest

from lmms_fixattn.errors import UserError
from lmms_fixattn.scoring.files.image_names import ImageNames, coco_id, has_coco_name

NAMES = ImageNames(
    [
        (1, "cam1/0001.png"),
        (2, "cam2/0001.png"),
        (7, "cam1_0007.png"),
        (139, "COCO_val2014_000000000139.jpg"),
        (285, "000000000285.jpg"),
        (11, "summer/beach.png"),
    ]
)


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("cam1/0001.png", 1),
        ("./cam2/0001.png", 2),
        ("/data/cam2/0001.png", 2),
        (r"C:\data\cam2\0001.png", 2),
        ("beach.png", 11),
        ("val2014/COCO_val2014_000000000139.jpg", 139),
        ("000000000139.jpg", 139),
        ("139.png", 139),
        ("COCO_val2014_000000000139", 139),
        ("COCO_val2017_000000000285.jpg", 285),
    ],
)
def test_a_name_means_the_image_whose_path_or_coco_number_it_gives(name: str, image_id: int) -> None:
    assert NAMES.find(name) == image_id


@pytest.mark.parametrize(
    "name",
    [
        "cam3/0001.png",  # another folder's
        "cam2_0007.png",  # ends in the number of cam1_0007.png
        "7.png",
        "winter/beach.png",
        "COCO_train2014_000000000139.jpg",  # another split's
        "my_000000000139.jpg",
        "COCO_val2014_139.jpg",
        "12.jpg",
        "",
    ],
)
def test_nothing_stands_in_for_an_image_that_is_not_there(name: str) -> None:
    assert NAMES.find(name) is None


def test_a_last_part_that_several_images_have_is_refused() -> None:
    with pytest.raises(UserError, match=r"'0001.png' may be any of 2 images, such as 1 and 2"):
        NAMES.find("0001.png")


def test_only_names_of_cocos_form_state_an_id() -> None:
    for name in ("COCO_val2014_000000310196.jpg", "COCO_val2014_000000310196", "a/000000310196.png", "310196"):
        assert coco_id(name) == 310196
        assert has_coco_name(name) == (name != "310196")
    for name in ("mine.jpg", "cam2_0007.png", "x310196.jpg", "3101960000000.jpg"):
        assert coco_id(name) is None
