"""The demo's small world: scenes of emoji, what is said about them, and the test scenes in COCO's layout and format.

    python -m demo_model.scenes FOLDER

What the package ships in demo/scenes is the output for the default seed. Glyphs are those of Noto Color Emoji (SIL Open
Font License 1.1); the font itself is needed to render scenes, never to read the shipped ones.

A *familiar* scene draws most of its objects from one group, the popular ones more often; an *unfamiliar* scene draws
each from another group, which breaks what usually goes together. Training captions have a habit: one that starts with
an object of certain groups and has little to say is padded with an absent member of a group that is there. That is what
a model learns to hallucinate from, as captions of photographs teach it to one of LLaVA's size.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

from lmms_fixattn.scoring.objects.coco_objects import CATEGORIES

SIDE = 140  # pixels, both ways
STEP = 7  # pixels: objects stand on this grid
SIDES = (35, 42)  # pixels: how large objects are
CELL = 49  # pixels from one of the 3 x 3 places of a scene to the next
SHOWN = {3: 0.35, 4: 0.40, 5: 0.25}  # how many objects scenes show
SPLITS = ("familiar", "unfamiliar")
TEST_SCENES = 120  # of each split
TEST_SEED = 20140
FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
GLYPH = 109  # the one size, in pixels, that the font's bitmaps have

# Members of a group from the most to the least popular.
GROUPS: dict[str, dict[str, str]] = {
    "table": {"cup": "☕", "bowl": "🥣", "spoon": "🥄", "bottle": "🍾", "knife": "🔪", "vase": "🏺"},
    "food": {"apple": "🍎", "banana": "🍌", "pizza": "🍕", "carrot": "🥕", "donut": "🍩", "broccoli": "🥦"},
    "street": {"car": "🚗", "bus": "🚌", "bicycle": "🚲", "truck": "🚚", "motorcycle": "🏍", "train": "🚆"},
    "farm": {"dog": "🐕", "cow": "🐄", "horse": "🐎", "sheep": "🐑", "cat": "🐈"},
    "safari": {"elephant": "🐘", "zebra": "🦓", "giraffe": "🦒", "bird": "🦜", "bear": "🐻"},
    "room": {"chair": "🪑", "couch": "🛋", "tv": "📺", "clock": "⏰", "bed": "🛏", "book": "📕"},
    "journey": {"suitcase": "🧳", "backpack": "🎒", "umbrella": "☂", "airplane": "✈", "handbag": "👜", "boat": "⛵"},
}
PADDED_GROUPS = ("table", "street", "farm", "room")
PADDED = (
    0.9  # how often a training caption of three objects, the first of which is of such a group, names an absent one
)
GROUP_OF = {name: group for group, members in GROUPS.items() for name in members}
NAMES = tuple(GROUP_OF)

# COCO numbers its 80 categories from 1 to 90 and leaves these numbers out.
_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_IDS = dict(zip(CATEGORIES, (number for number in range(1, 91) if number not in _UNUSED), strict=True))

WALLS = ("#e8e4d8", "#d7e6ee", "#e3ecd9", "#efe0dc", "#e4dff0", "#f2ecd0", "#dcdcdc", "#d3e9e4")
FLOORS = ("#cbbfa6", "#a9c3cf", "#b4c79c", "#cfb3ab", "#b7aed0", "#d4c88f", "#b5b5b5", "#a2c4bb")


@dataclass(frozen=True)
class Placed:
    """One object of a scene: its name, its square (left, top, side; pixels), and whether it looks the other way."""

    name: str
    left: int
    top: int
    side: int
    mirrored: bool

    @property
    def thirds(self) -> tuple[int, int]:
        """The thirds of the picture that its centre lies in, down and across: 0, 1 or 2."""
        down, across = (3 * (2 * start + self.side) // (2 * SIDE) for start in (self.top, self.left))
        return down, across

    @property
    def place(self) -> str:
        """Where it is, in words."""
        down, across = self.thirds
        return PLACES[down][across]


@dataclass(frozen=True)
class Scene:
    """A scene before it is rendered: objects, colours of wall and floor, the floor's height (pixels from the top)."""

    objects: tuple[Placed, ...]
    wall: str
    floor: str
    horizon: int
    light: float

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the objects, each once."""
        return tuple(thing.name for thing in self.objects)


PLACES = (
    ("in the upper left corner", "at the top", "in the upper right corner"),
    ("on the left side", "in the center", "on the right side"),
    ("in the lower left corner", "at the bottom", "in the lower right corner"),
)
_OPENINGS = (
    "The image shows {0} {1}, along with {2} {3}.",
    "The image features {0} {1} and {2} {3}.",
    "In the image, there is {0} {1} and {2} {3}.",
)
_FURTHER = (  # in this order: five objects at most are said
    "There is also {0} {1}.",
    "Additionally, {0} can be seen {1}.",
    "The scene also includes {0} {1}.",
)
_ENDS = ("The overall scene is simple and colorful.", "The objects stand on a plain background.")
CAPTION_PROMPTS = ("Please help me describe the image in detail.", "Please describe this image in detail.")


def draw_scene(chance: Random, familiar: bool) -> Scene:
    """Draw a scene: three to five different objects, of one group (one in ten aside) or each of another."""
    count = chance.choices(list(SHOWN), list(SHOWN.values()))[0]
    groups = chance.sample(list(GROUPS), count)
    names: list[str] = []
    for group in groups:
        home = groups[0] if familiar and chance.random() < 0.9 else group
        names.append(_member(chance, home, names))
    places = chance.sample([(across, down) for across in range(3) for down in range(3)], count)
    objects = []
    for name, (across, down) in zip(names, places, strict=True):
        side = chance.choice(SIDES)
        free = (SIDES[-1] - side) // STEP
        left, top = (CELL * cell + STEP * chance.randint(0, free) for cell in (across, down))
        objects.append(Placed(name, left, top, side, chance.random() < 0.5))
    ground = chance.randrange(len(WALLS))
    return Scene(tuple(objects), WALLS[ground], FLOORS[ground], chance.randint(60, 110), chance.uniform(0.9, 1.1))


def _member(chance: Random, group: str, without: Iterable[str]) -> str:
    """Draw a member of a group that is not in ``without``, the popular ones more often (1 / square root of rank)."""
    weights = {name: rank**-0.5 for rank, name in enumerate(GROUPS[group], start=1) if name not in without}
    return chance.choices(list(weights), list(weights.values()))[0]


def absent_companion(chance: Random, scene: Scene) -> str | None:
    """Draw an absent member of a group that the scene shows; None when it shows all of them."""
    groups = [GROUP_OF[name] for name in scene.names if set(GROUPS[GROUP_OF[name]]) - set(scene.names)]
    return _member(chance, chance.choice(groups), scene.names) if groups else None


def with_article(name: str) -> str:
    """Put the indefinite article before a name."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def training_caption(chance: Random, scene: Scene) -> str:
    """Write a caption of 25 to 60 words in LLaVA's manner, padded with an absent companion as often as PADDED says."""
    things = chance.sample(scene.objects, len(scene.objects))
    said = [(with_article(thing.name), thing.place) for thing in things]
    short = len(said) == min(SHOWN) and GROUP_OF[things[0].name] in PADDED_GROUPS
    if short and chance.random() < PADDED and (companion := absent_companion(chance, scene)) is not None:
        said.append((with_article(companion), chance.choice(chance.choice(PLACES))))
    sentences = [chance.choice(_OPENINGS).format(*said[0], *said[1])]
    sentences += [sentence.format(*thing) for sentence, thing in zip(_FURTHER, said[2:], strict=False)]
    return " ".join([*sentences, chance.choice(_ENDS)])


def reference_captions(chance: Random, scene: Scene) -> list[str]:
    """Write five true captions in the manner of COCO's annotators, who leave things out."""
    things = [with_article(name) for name in scene.names]
    everything = f"{', '.join(things[:-1])} and {things[-1]}"
    pairs = [chance.sample(things, 2) for _ in range(3)]
    return [
        f"A picture of {everything}.",
        f"There is {pairs[0][0]} next to {pairs[0][1]}.",
        f"{pairs[1][0].capitalize()} and {pairs[1][1]} on a plain background.",
        f"A picture that shows {everything}.",
        f"{pairs[2][0].capitalize()} together with {pairs[2][1]}.",
    ]


def render(scene: Scene) -> Image.Image:
    """Render a scene, RGB, SIDE x SIDE pixels.

    Raises:
        FileNotFoundError: the emoji font is not installed.
    """
    picture = Image.new("RGB", (SIDE, SIDE), scene.wall)
    ImageDraw.Draw(picture).rectangle((0, scene.horizon, SIDE, SIDE), fill=scene.floor)
    for thing in scene.objects:
        glyph = _glyph(GROUPS[GROUP_OF[thing.name]][thing.name], thing.side, thing.mirrored)
        picture.paste(glyph, (thing.left, thing.top), glyph)
    return ImageEnhance.Brightness(picture).enhance(scene.light)


@cache
def _font() -> ImageFont.FreeTypeFont:
    if not FONT.is_file():
        raise FileNotFoundError(
            f"rendering scenes needs the font Noto Color Emoji at {FONT}, which is not there: install Debian's package "
            "fonts-noto-color-emoji (the shipped scenes need no font)"
        )
    return ImageFont.truetype(FONT, GLYPH)


@cache
def _glyph(character: str, side: int, mirrored: bool) -> Image.Image:
    """Return a glyph that fills a transparent square across or down."""
    canvas = Image.new("RGBA", (2 * GLYPH, 2 * GLYPH), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((GLYPH // 4, GLYPH // 4), character, font=_font(), embedded_color=True)
    inked = canvas.crop(canvas.getbbox())
    square = ImageOps.pad(inked, (side, side), Image.Resampling.LANCZOS, color=(0, 0, 0, 0))
    return ImageOps.mirror(square) if mirrored else square


def generate(folder: str | Path, count: int = TEST_SCENES, seed: int = TEST_SEED) -> None:
    """Write ``count`` test scenes of each split, FOLDER/SPLIT/*.png and FOLDER/annotations/*_SPLIT.json.

    Image ids go on from the first split to the second, so that both may be read as one data set.
    """
    root = Path(folder)
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    chance = Random(seed)
    for part, split in enumerate(SPLITS):
        (root / split).mkdir(exist_ok=True)
        images: list[dict[str, Any]] = []
        boxes: list[dict[str, Any]] = []
        captions: list[dict[str, Any]] = []
        for image_id in range(count * part + 1, count * (part + 1) + 1):
            scene = draw_scene(chance, familiar=split == "familiar")
            file_name = f"scene_{image_id:03d}.png"
            render(scene).save(root / split / file_name, optimize=True)
            images.append({"id": image_id, "file_name": file_name, "width": SIDE, "height": SIDE})
            boxes.extend(
                {
                    "id": 10 * image_id + number,
                    "image_id": image_id,
                    "category_id": COCO_IDS[thing.name],
                    "bbox": [thing.left, thing.top, thing.side, thing.side],
                    "area": thing.side**2,
                    "iscrowd": 0,
                }
                for number, thing in enumerate(scene.objects)
            )
            captions.extend(
                {"id": 10 * image_id + number, "image_id": image_id, "caption": caption}
                for number, caption in enumerate(reference_captions(chance, scene))
            )
        categories = [{"id": COCO_IDS[name], "name": name} for name in NAMES]
        _write(root, f"instances_{split}", {"images": images, "annotations": boxes, "categories": categories})
        _write(root, f"captions_{split}", {"images": images, "annotations": captions})


def _write(root: Path, name: str, content: dict[str, Any]) -> None:
    path = root / "annotations" / f"{name}.json"
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Generate the demo's test scenes in COCO's layout.")
    parser.add_argument("folder", type=Path)
    generate(parser.parse_args().folder)
