"""A small comparison: three runs that see, forget and invent objects on pictures of one colour."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from PIL import Image

from lmms_fixattn.report.compare import Comparison, compare
from lmms_fixattn.report.runs import CaptionEntry, Run
from lmms_fixattn.scoring import chair
from lmms_fixattn.scoring.objects.coco_objects import CATEGORIES

IMAGES = range(101, 141)
SHOWN = {image: frozenset(random.Random(image).sample(CATEGORIES[:10], 4)) for image in IMAGES}


def caption(image: int, seen: int, invented: int, seed: int) -> str:
    """Name so many of the image's objects, then invent up to so many."""
    draw = random.Random(1000 * seed + image)
    names = draw.sample(sorted(SHOWN[image]), seen)
    names += draw.sample(sorted(set(CATEGORIES[:10]) - SHOWN[image]), draw.randint(0, invented))
    return "There is " + ", and next to it ".join(f"a {name}" for name in names) + "."


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Runs "base" (the baseline), "short" and "<b>wild & free</b>", whose every picture was logged."""
    folder = tmp_path_factory.mktemp("pictures")
    entries: dict[str, list[CaptionEntry]] = {"base": [], "short": [], "<b>wild & free</b>": []}
    for image in IMAGES:
        path = folder / f"{image}.png"
        Image.new("RGB", (400, 300), (image, 90, 200)).save(path)
        for name, (seen, invented) in zip(entries, ((3, 2), (1, 1), (4, 4)), strict=True):
            entries[name].append(CaptionEntry(image, caption(image, seen, invented, len(name)), True, image=path))
    entries["base"][0] = CaptionEntry(101, "</script><script>alert(1)</script> A dog & a “cat”.", True)
    record = {"lmms_fixattn": {"dtype": "float16"}, "tasks": {"chair": {"prompt": "Describe <it>.", "version": "1"}}}
    runs = [Run(name, Path(name), {"chair": tuple(rows)}, record=record) for name, rows in entries.items()]
    return compare(runs, "base", SHOWN, chair.make_analyser(), draws=200, seed=1)


@pytest.fixture(scope="session")
def answers_alone() -> Comparison:
    """Two runs of yes/no answers, without a caption."""
    from lmms_fixattn.report.runs import AnswerEntry

    def run(name: str, said: str) -> Run:
        asked = tuple(
            AnswerEntry(image, f"Is there a {word}?", "yes" if word in SHOWN[image] else "no", said)
            for image in IMAGES
            for word in CATEGORIES[:3]
        )
        return Run(name, Path(name), answers={"random": asked})

    return compare([run("a", "Yes"), run("b", "No")], "a", None, chair.make_analyser(), draws=50)
