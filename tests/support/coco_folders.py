"""Write small COCO-format folders for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image


def write_coco(
    root: Path,
    objects: Mapping[int, Sequence[str]],
    captions: Mapping[int, Sequence[str]] | None = None,
    split: str = "val2014",
    images: str | None = None,
    file_name: str = "COCO_{split}_{image_id:012d}.png",
    colour: int = 0,
    pictures: bool = True,
) -> Path:
    """Write images of one colour, their instances in the order given, and captions unless they are None.

    pictures: whether the images are written, or only their annotations.
    """
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    folder = root / (split if images is None else images)
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {name: number for number, name in enumerate(sorted({n for names in objects.values() for n in names}), 1)}
    rows = [{"id": i, "file_name": file_name.format(split=split, image_id=i), "width": 7, "height": 5} for i in objects]
    for row in rows if pictures else []:
        Image.new("RGB", (7, 5), (colour, int(row["id"]) % 256, 99)).save(folder / str(row["file_name"]))
    boxes = [(image_id, numbers[name]) for image_id, names in objects.items() for name in names]
    instances = {
        "images": rows,
        "annotations": [{"id": n, "image_id": i, "category_id": c} for n, (i, c) in enumerate(boxes, 1)],
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
    }
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(instances))
    if captions is not None:
        said = [(image_id, caption) for image_id, texts in captions.items() for caption in texts]
        content = {
            "images": rows,
            "annotations": [{"id": n, "image_id": i, "caption": c} for n, (i, c) in enumerate(said, 1)],
        }
        (root / "annotations" / f"captions_{split}.json").write_text(json.dumps(content))
    return root
