"""Frozen image lists."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from lmms_fixattn.data import DataError, image_lists


@pytest.mark.parametrize("name", image_lists.names())
def test_a_shipped_list_holds_500_ids_and_its_digest_is_that_of_its_file(name: str) -> None:
    images = image_lists.load(name)
    path = Path(image_lists.__file__).parent / "lists" / f"{name}.txt"
    assert images.name == name
    assert len(set(images.ids)) == len(images.ids) == 500
    assert list(images.ids) == sorted(images.ids)
    assert images.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_paper_and_pope_are_among_the_shipped_lists() -> None:
    assert {"paper_2501_12206", "pope_coco", "opera"} <= set(image_lists.names())


def test_every_shipped_list_equals_the_reference(reference: Path) -> None:
    paths = sorted((reference / "image_lists").glob("*.txt"))
    assert [path.stem for path in paths] == list(image_lists.names())
    for path in paths:
        assert image_lists.load(path.stem).ids == tuple(int(line) for line in path.read_text().split())


def test_order_blank_lines_and_leading_zeros_do_not_change_a_list(tmp_path: Path) -> None:
    ids = random.Random(5).sample(range(1, 600000), 37)
    (tmp_path / "mine.txt").write_text("".join(f"{image_id}\n" for image_id in ids))
    (tmp_path / "same.txt").write_text("\n\n".join(f" {image_id:012d} " for image_id in sorted(ids)))
    mine, same = image_lists.load(tmp_path / "mine.txt"), image_lists.load(str(tmp_path / "same.txt"))
    assert mine.ids == same.ids == tuple(sorted(ids))
    assert mine.sha256 == same.sha256
    assert (mine.name, same.name) == ("mine", "same")


def test_another_id_gives_another_digest() -> None:
    digests = {image_lists.ImageList("a", ids).sha256 for ids in [(1, 2), (1, 3), (12,), (1, 2, 3)]}
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("5\n7\n5\n", "line 3: image id 5 is already on line 1"),
        ("5\n\n7\n07\n", "line 4: image id 7 is already on line 3"),
        ("5\nCOCO_7.jpg\n", "line 2: expected an image id .*'COCO_7.jpg'"),
        ("5 7\n", "line 1: expected an image id"),
        ("-5\n", "line 1: expected an image id"),
        ("²\n", "line 1: expected an image id"),
        ("\n\n", "found none"),
    ],
)
def test_a_bad_file_is_refused_with_the_line(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "bad.txt").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=complaint):
        image_lists.load(tmp_path / "bad.txt")


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="no text file"):
        image_lists.load(tmp_path / "bad.txt")


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(DataError, match=r"'paper_2501_1220' is neither .*did you mean 'paper_2501_12206'"):
        image_lists.load("paper_2501_1220")
    with pytest.raises(DataError, match=r"neither a file nor one of .*, all, sample, hub \(did you mean 'sample'\?\)"):
        image_lists.load("sampel")


def test_a_sample_depends_on_the_ids_and_the_seed_alone() -> None:
    ids = random.Random(3).sample(range(1, 9000), 1000)
    drawn = image_lists.sample("mine", ids)
    assert len(set(drawn.ids) & set(ids)) == 500
    assert list(drawn.ids) == sorted(drawn.ids)
    assert image_lists.sample("other", sorted(ids)).sha256 == drawn.sha256
    assert image_lists.sample("mine", ids, seed=1).sha256 != drawn.sha256
    assert image_lists.sample("few", [7, 5], count=3).ids == (5, 7)


def test_a_list_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_bytes(b"\xef\xbb\xbf7\r\n3\r\n")
    assert image_lists.load(path).ids == (3, 7)


@pytest.mark.parametrize("word", ["9" * 19, "9" * 5000, "1.0", "-1", "nan"])
def test_a_line_that_no_data_set_can_hold_is_named(tmp_path: Path, word: str) -> None:
    path = tmp_path / "ids.txt"
    path.write_text(f"7\n{word}\n")
    with pytest.raises(DataError, match=r"line 2: expected an image id such as 310196") as caught:
        image_lists.load(path)
    assert len(str(caught.value)) < len(str(path)) + 200
