"""Generate the demo's images: small drawn scenes in COCO's layout and format.

    python -m lmms_fixattn.demo.scenes FOLDER

What the package ships in demo/scenes is the output for the default seed. Every scene shows three to five objects, so
that both CHAIR and POPE run on it.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw as Pencil

SIZE = 96  # pixels, both ways
CELL = 32  # objects stand in a 3 x 3 grid of cells
SCENES = 24
SEED = 0
SPLIT = "val2014"

Box = tuple[float, float, float, float]  # left, top, right, bottom


def _disc(colour: str, hole: str | None = None) -> Callable[[Pencil, Box], None]:
    def draw(pencil: Pencil, box: Box) -> None:
        pencil.ellipse(box, fill=colour, outline="black")
        if hole is not None:
            left, top, right, bottom = box
            inset = (right - left) / 3
            pencil.ellipse((left + inset, top + inset, right - inset, bottom - inset), fill=hole, outline="black")

    return draw


def _polygon(colour: str, *corners: tuple[float, float]) -> Callable[[Pencil, Box], None]:
    """Draw a polygon whose corners are given in the box's units, 0 to 1."""

    def draw(pencil: Pencil, box: Box) -> None:
        left, top, right, bottom = box
        points = [(left + x * (right - left), top + y * (bottom - top)) for x, y in corners]
        pencil.polygon(points, fill=colour, outline="black")

    return draw


def _parts(*parts: tuple[Callable[[Pencil, Box], None], Box]) -> Callable[[Pencil, Box], None]:
    """Draw several shapes, each in its own part of the box (units of the box)."""

    def draw(pencil: Pencil, box: Box) -> None:
        left, top, right, bottom = box
        wide, high = right - left, bottom - top
        for part, (x0, y0, x1, y1) in parts:
            part(pencil, (left + x0 * wide, top + y0 * high, left + x1 * wide, top + y1 * high))

    return draw


_SQUARE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
_TRIANGLE = ((0.5, 0.0), (1.0, 1.0), (0.0, 1.0))

# COCO's own category ids and names
CATEGORIES: dict[str, tuple[int, Callable[[Pencil, Box], None]]] = {
    "person": (
        1,
        _parts((_disc("peachpuff"), (0.3, 0.0, 0.7, 0.4)), (_polygon("royalblue", *_TRIANGLE), (0.1, 0.4, 0.9, 1.0))),
    ),
    "car": (
        3,
        _parts(
            (_polygon("red", (0.2, 0.0), (0.8, 0.0), (1.0, 1.0), (0.0, 1.0)), (0.0, 0.2, 1.0, 0.7)),
            (_disc("black"), (0.1, 0.6, 0.4, 0.9)),
            (_disc("black"), (0.6, 0.6, 0.9, 0.9)),
        ),
    ),
    "bus": (
        6,
        _parts(
            (_polygon("gold", *_SQUARE), (0.0, 0.1, 1.0, 0.8)),
            (_polygon("lightcyan", *_SQUARE), (0.1, 0.2, 0.9, 0.45)),
            (_disc("black"), (0.1, 0.7, 0.35, 0.95)),
            (_disc("black"), (0.65, 0.7, 0.9, 0.95)),
        ),
    ),
    "boat": (
        9,
        _parts(
            (_polygon("white", *_TRIANGLE), (0.3, 0.0, 0.8, 0.6)),
            (_polygon("saddlebrown", (0.0, 0.0), (1.0, 0.0), (0.8, 1.0), (0.2, 1.0)), (0.0, 0.6, 1.0, 1.0)),
        ),
    ),
    "stop sign": (
        13,
        _polygon(
            "crimson", (0.3, 0.0), (0.7, 0.0), (1.0, 0.3), (1.0, 0.7), (0.7, 1.0), (0.3, 1.0), (0.0, 0.7), (0.0, 0.3)
        ),
    ),
    "umbrella": (
        28,
        _parts(
            (_polygon("purple", (0.5, 0.0), (1.0, 1.0), (0.0, 1.0)), (0.0, 0.0, 1.0, 0.5)),
            (_polygon("black", *_SQUARE), (0.45, 0.5, 0.55, 1.0)),
        ),
    ),
    "kite": (38, _polygon("magenta", (0.5, 0.0), (1.0, 0.4), (0.5, 1.0), (0.0, 0.4))),
    "bottle": (
        44,
        _parts(
            (_polygon("green", *_SQUARE), (0.4, 0.0, 0.6, 0.4)), (_polygon("green", *_SQUARE), (0.25, 0.3, 0.75, 1.0))
        ),
    ),
    "cup": (47, _polygon("teal", (0.1, 0.2), (0.9, 0.2), (0.75, 1.0), (0.25, 1.0))),
    "banana": (52, _polygon("yellow", (0.0, 0.2), (0.3, 0.7), (1.0, 0.8), (0.6, 1.0), (0.1, 0.8))),
    "apple": (
        53,
        _parts((_disc("firebrick"), (0.1, 0.2, 0.9, 1.0)), (_polygon("green", *_TRIANGLE), (0.4, 0.0, 0.6, 0.25))),
    ),
    "orange": (55, _disc("darkorange")),
    "donut": (60, _disc("hotpink", hole="white")),
    "chair": (
        62,
        _parts(
            (_polygon("sienna", *_SQUARE), (0.1, 0.0, 0.3, 1.0)),
            (_polygon("sienna", *_SQUARE), (0.1, 0.5, 0.9, 0.65)),
            (_polygon("sienna", *_SQUARE), (0.75, 0.6, 0.9, 1.0)),
        ),
    ),
    "tv": (
        72,
        _parts(
            (_polygon("black", *_SQUARE), (0.0, 0.1, 1.0, 0.8)), (_polygon("skyblue", *_SQUARE), (0.1, 0.2, 0.9, 0.7))
        ),
    ),
    "clock": (
        85,
        _parts((_disc("ivory"), (0.0, 0.0, 1.0, 1.0)), (_polygon("black", *_SQUARE), (0.45, 0.15, 0.55, 0.5))),
    ),
}
_GROUNDS = ("lightgrey", "lightblue", "palegreen", "wheat", "lavender")


def generate(folder: str | Path, scenes: int = SCENES, seed: int = SEED) -> None:
    """Write scenes to FOLDER/val2014 and annotations to FOLDER/annotations/{instances,captions}_val2014.json."""
    root = Path(folder)
    (root / SPLIT).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    chance = random.Random(seed)
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    for image_id in range(1, scenes + 1):
        names = chance.sample(sorted(CATEGORIES), chance.choice((3, 3, 4, 4, 5)))
        picture = Image.new("RGB", (SIZE, SIZE), chance.choice(_GROUNDS))
        pencil = ImageDraw.Draw(picture)
        cells = chance.sample(range((SIZE // CELL) ** 2), len(names))
        for name, cell in zip(names, cells, strict=True):
            number, draw = CATEGORIES[name]
            side = chance.randint(CELL - 10, CELL - 3)
            left = CELL * (cell % 3) + chance.randint(1, CELL - side - 1)
            top = CELL * (cell // 3) + chance.randint(1, CELL - side - 1)
            draw(pencil, (left, top, left + side, top + side))
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": image_id,
                    "category_id": number,
                    "bbox": [left, top, side, side],
                    "area": side * side,
                    "iscrowd": 0,
                }
            )
        file_name = f"scene_{image_id:03d}.png"
        picture.save(root / SPLIT / file_name, optimize=True)
        images.append({"id": image_id, "file_name": file_name, "width": SIZE, "height": SIZE})
        captions.extend(
            {"id": len(captions) + number, "image_id": image_id, "caption": caption}
            for number, caption in enumerate(_captions(names, chance), start=1)
        )
    categories = [{"id": number, "name": name} for name, (number, _) in CATEGORIES.items()]
    _write(root, "instances", {"images": images, "annotations": boxes, "categories": categories})
    _write(root, "captions", {"images": images, "annotations": captions})


def _captions(names: list[str], chance: random.Random) -> list[str]:
    """Write five references, of which each names two or all of a scene's objects, as people leave some out."""
    things = [f"{'an' if name[0] in 'aeiou' else 'a'} {name}" for name in names]
    everything = f"{', '.join(things[:-1])} and {things[-1]}"
    pairs = [chance.sample(things, 2) for _ in range(3)]
    return [
        f"A drawing of {everything}.",
        f"There is {pairs[0][0]} next to {pairs[0][1]}.",
        f"{pairs[1][0].capitalize()} and {pairs[1][1]} on a plain ground.",
        f"A picture that shows {everything}.",
        f"{pairs[2][0].capitalize()} is drawn together with {pairs[2][1]}.",
    ]


def _write(root: Path, kind: str, content: dict[str, Any]) -> None:
    path = root / "annotations" / f"{kind}_{SPLIT}.json"
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Generate the demo scenes in COCO's layout.")
    parser.add_argument("folder", type=Path)
    generate(parser.parse_args().folder)
