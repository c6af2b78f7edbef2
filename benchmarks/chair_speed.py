"""How fast CHAIR is: milliseconds a caption, and seconds for the truth of a data set of the size of COCO val2014.

    python benchmarks/chair_speed.py [--images 40504] [--captions 300]

Writes COCO-format files of that size (five captions and about seven boxes with polygons an image, random but of real
shape) to a temporary folder, reads them and makes the truth of every image. Then scores long
captions with the lexicon and, where NLTK's data is at hand, in turns with the nltk analyser. One core, one process.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from lmms_fixattn.data.coco import CocoFolder
from lmms_fixattn.scoring import chair
from lmms_fixattn.scoring.objects.coco_objects import CATEGORIES

_PLACES = ["a kitchen", "a park", "the street", "a snowy slope", "the beach", "a living room", "a field", "an airport"]
_VERBS = ["standing next to", "sitting on", "looking at", "placed near", "walking past", "riding", "parked behind"]


def sentence(draw: random.Random) -> str:
    """Return a sentence of the kind that people write below pictures."""
    first, second = draw.choices(CATEGORIES, k=2)
    return f"A {first} is {draw.choice(_VERBS)} two {second}s in {draw.choice(_PLACES)}."


def long_caption(draw: random.Random, words: int = 100) -> str:
    """Return a caption of about so many words."""
    text = "The image features a busy scene."
    while len(text.split()) < words:
        text += f" {sentence(draw)}"
    return text


def write_coco(root: Path, images: int, draw: random.Random) -> int:
    """Write instances_val2014.json and captions_val2014.json; return the number of boxes."""
    annotations = root / "annotations"
    annotations.mkdir()
    categories = [{"id": number, "name": name} for number, name in enumerate(CATEGORIES, start=1)]
    files = [{"id": number, "file_name": f"COCO_val2014_{number:012}.jpg"} for number in range(1, images + 1)]
    boxes = [
        {
            "id": 8 * image + box,
            "image_id": image,
            "category_id": draw.randint(1, 80),
            "iscrowd": 0,
            "area": round(draw.uniform(50, 90000), 4),
            "bbox": [round(draw.uniform(0, 480), 2) for _ in range(4)],
            "segmentation": [[round(draw.uniform(0, 640), 2) for _ in range(50)]],
        }
        for image in range(1, images + 1)
        for box in range(7 + image % 6 // 5)
    ]
    captions = [
        {"id": 5 * image + number, "image_id": image, "caption": sentence(draw)}
        for image in range(1, images + 1)
        for number in range(5)
    ]
    instances = {"images": files, "annotations": boxes, "categories": categories}
    for kind, content in (("instances", instances), ("captions", {"images": files, "annotations": captions})):
        (annotations / f"{kind}_val2014.json").write_text(json.dumps(content), encoding="utf-8")
    return len(boxes)


def milliseconds(analyser: chair.Analyser, captions: Sequence[str]) -> float:
    """Return the mean time of one caption."""
    start = time.perf_counter()
    for caption in captions:
        analyser.mentions(caption)
    return (time.perf_counter() - start) / len(captions) * 1000


def main() -> None:
    """Run both measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--images", type=int, default=40504, help="images of the data set (default: those of val2014)")
    parser.add_argument("--captions", type=int, default=300, help="long captions to score (default: 300)")
    arguments = parser.parse_args()
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        boxes = write_coco(root, arguments.images, draw)
        size = sum(path.stat().st_size for path in root.rglob("*.json")) / 1e6
        start = time.perf_counter()
        coco = CocoFolder(root)
        truth = chair.ground_truth(coco.instances(), coco.captions(), chair.make_analyser())
        seconds = time.perf_counter() - start
    print(f"truth of {len(truth)} images, {boxes} boxes, {5 * len(truth)} captions ({size:.0f} MB): {seconds:.1f} s")

    captions = [long_caption(draw) for _ in range(arguments.captions)]
    lexicon = chair.make_analyser("lexicon")
    milliseconds(lexicon, captions[:10])
    try:
        reference = chair.make_analyser("nltk")
    except LookupError as error:
        print(f"lexicon: {milliseconds(lexicon, captions):.3f} ms a caption of 100 words; no comparison: {error}")
        return
    chunks = [captions[start : start + 20] for start in range(0, len(captions), 20)]
    pairs = [(milliseconds(lexicon, chunk), milliseconds(reference, chunk)) for chunk in chunks]
    fast, slow = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(theirs / ours for ours, theirs in pairs)
    print(f"lexicon {fast:.3f} ms, nltk {slow:.2f} ms a caption of 100 words: {ratio:.0f} times as fast")


if __name__ == "__main__":
    main()
