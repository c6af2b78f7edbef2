"""What the images of the known lists show, in the package: truth for CHAIR without COCO's 240 MB of annotations.

`known_images.tsv` has a line an image: its COCO id, its width x height in pixels ("-" where the file was made without
annotations), and its node words (scoring.chair.ground_truth), in alphabetical order. COCO's annotations, from which the
words are, are CC BY 4.0 (NOTICE); `benchmarks/make_known_images.py` makes the file anew from a COCO folder.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from lmms_fixattn.data import DataError
from lmms_fixattn.data.image_lists import ImageList

PATH = Path(__file__).with_name("known_images.tsv")
SHA256 = "7b4f5386ca9142896c19e2b603810521d8ca40222c5e61c8d5a69a59cedc4220"
ANALYSER = "nltk"
"""Who read the reference captions: the reference scorer's way."""


class Known(NamedTuple):
    """What is known of an image: its node words, and its size in pixels."""

    objects: tuple[str, ...]
    size: tuple[int, int] | None


def of(images: ImageList) -> dict[int, Known]:
    """Return what is known of the images of a list, in its order.

    Raises:
        DataError: counts the ids that are in none of the package's lists; the package's file was changed.
    """
    known = _load(PATH)
    if unknown := [image_id for image_id in images.ids if image_id not in known]:
        raise DataError(
            f"{len(unknown)} of {len(images.ids)} images of list {images.name} are in none of the package's lists, "
            f"the first is {unknown[0]}: what they show is not known here; set LMMS_FIXATTN_COCO to a COCO folder"
        )
    return {image_id: known[image_id] for image_id in images.ids}


def loads(content: bytes) -> dict[int, Known]:
    """Return the images of a file's content."""
    images = {}
    for line in content.decode().splitlines():
        image_id, pixels, words = line.split("\t")
        width, _, height = pixels.partition("x")
        size = (int(width), int(height)) if height else None
        images[int(image_id)] = Known(tuple(words.split(", ")) if words else (), size)
    return images


@lru_cache(maxsize=1)
def _load(path: Path) -> dict[int, Known]:
    content = path.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != SHA256:
        raise DataError(f"{path} was changed: its sha256 is {found[:12]}...; install lmms-fixattn again")
    return loads(content)
