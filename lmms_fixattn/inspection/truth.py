"""What a picture truly shows: said by the user, or read from the COCO folder that the picture lies in."""

from __future__ import annotations

from pathlib import Path

from lmms_fixattn.data.coco import CocoFolder
from lmms_fixattn.errors import UserError, did_you_mean
from lmms_fixattn.scoring.chair import Analyser, ground_truth
from lmms_fixattn.scoring.objects.coco_objects import CATEGORIES, NODE_WORD


def read_truth(words: str) -> frozenset[str]:
    """Return the node words of a list such as "cup, bowl"; synonyms of the CHAIR table count as their node word.

    Raises:
        ValueError: a word that names none of the 80 COCO objects.
    """
    found = set()
    for word in filter(None, map(str.strip, words.lower().split(","))):
        if word not in NODE_WORD:
            raise ValueError(f"{word!r} is none of the 80 COCO objects{did_you_mean(word, CATEGORIES)}")
        found.add(NODE_WORD[word])
    return frozenset(found)


def truth_beside(image: Path, analyser: Analyser) -> frozenset[str]:
    """Return a picture's true objects as CHAIR defines them, from the annotations of the COCO folder around it.

    Raises:
        ValueError: the picture lies in no folder with annotations/instances_*.json, or is not annotated there.
    """
    path = image.resolve()
    root = next((place for place in path.parents if any(place.glob("annotations/instances_*.json"))), None)
    advice = 'say what it shows, such as --truth "cup,bowl"'
    if root is None:
        raise ValueError(
            f"what {image} shows is not known: no annotations/instances_*.json in the folders around it; {advice}"
        )
    try:
        folder = CocoFolder(root)
        image_id = folder.image_id(str(path.relative_to(root)))
        if image_id is None:
            raise ValueError(f"what {image} shows is not known: {root}/annotations do not list it; {advice}")
        found = ground_truth(folder.instances([image_id]), folder.captions([image_id]), analyser)
    except UserError as error:
        raise ValueError(f"{error}; or {advice}") from error
    return found.get(image_id, frozenset())
