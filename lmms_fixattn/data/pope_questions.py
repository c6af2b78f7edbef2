"""POPE's yes/no questions: read from the published files, or built by its sampling rules.

POPE: arXiv:2305.10355, repository RUCAIBox/POPE. Six questions an image ask for three objects that it shows and three
that it does not; the three kinds of questions differ in how the absent objects are drawn.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmms_fixattn.data import DataError, image_lists
from lmms_fixattn.errors import UserError
from lmms_fixattn.scoring.files.questions import read_questions

KINDS = ("random", "popular", "adversarial")
PRESENT = 3  # objects asked for that an image shows, and as many that it does not


@dataclass(frozen=True)
class PopeQuestion:
    """Hold one question and its answer, "yes" or "no"; ValueError for another."""

    question_id: int
    image_id: int
    question: str
    label: str

    def __post_init__(self) -> None:
        if self.label not in ("yes", "no"):
            raise ValueError(f"label {self.label!r} of POPE question {self.question_id} is neither yes nor no")


def question(name: str) -> str:
    """Ask for an object in POPE's words, with "an" before a vowel letter."""
    return f"Is there {'an' if name[0].lower() in 'aeiou' else 'a'} {name} in the image?"


def read(folder: str | Path, kind: str, image_id_of: Callable[[str], int | None]) -> list[PopeQuestion]:
    """Read the questions of a published file: FOLDER/coco_pope_KIND.json, else the only *pope*_KIND.json there.

    The form is any that scoring.files.questions reads: JSON lines as POPE's own files, a list as those that were drawn
    by SEEM on A-OKVQA and GQA. Keys: question_id, image (a file name or path), text, label. An image's id is what
    `image_id_of` its name gives; no other image stands in where that is None.

    Raises:
        UserError: the file is not there, or several may be meant; an entry is malformed or its image's name may mean
            several images (with its place); a question is there twice; counts questions about images that there are
            not; two names mean one image.
    """
    path = _published(Path(folder).expanduser(), kind)
    asked = read_questions([path])
    questions, unknown = [], []
    names: dict[int, str] = {}
    for one in asked:
        if one.number is None or one.label is None or one.image is None:
            lacking = "question_id" if one.number is None else "image"
            raise DataError(f"{one.place}: no key {lacking!r}; expected question_id, image, text and label")
        name = str(one.origin.get("image", one.image))
        try:
            known = image_id_of(name)
        except UserError as error:
            raise DataError(f"{one.place}: {error}") from None
        if known is None:
            unknown.append((one.place, name))
            continue
        if (other := names.setdefault(known, name)) != name:
            raise DataError(f"{one.place}: image {known} is {name!r} and, before it, {other!r}; name it alike")
        questions.append(PopeQuestion(one.number, known, one.text, one.label))
    if unknown:
        place, name = unknown[0]
        raise DataError(
            f"{path}: {len(unknown)} of {len(asked)} questions are about images that are not in the data set, the "
            f"first is {name!r} in {place}; complete the COCO folder, or name the images as its annotations do"
        )
    return questions


def _published(folder: Path, kind: str) -> Path:
    """Return the file of a folder that holds the questions of a kind."""
    path = folder / f"coco_pope_{kind}.json"
    if path.is_file():
        return path
    found = sorted(folder.glob(f"*pope*_{kind}.json"))
    if len(found) > 1:
        either = " and ".join(one.name for one in found[:2])
        raise DataError(f"{folder}: {either} may each hold POPE's {kind} questions; keep those of one data set there")
    if not found:
        raise DataError(
            f"missing POPE file {path}, and no other *pope*_{kind}.json is beside it; the published files are in "
            "output/coco of RUCAIBox/POPE"
        )
    return found[0]


def build(objects: Mapping[int, Sequence[str]], kind: str, seed: int = 0) -> list[PopeQuestion]:
    """Build the questions of one kind by POPE's rules, for these images (id -> the objects that it shows, each once).

    For each of an image's first three objects: ask for it (yes), then for an absent one (no), drawn as
        random        any object of the data set, uniformly;
        popular       the object in most images of the data set;
        adversarial   the object that most often shares an image with the one just asked for, else a random one;
    always one that the image does not show and that it was not asked for before. The data set is `objects` itself, as
    in the published questions, whose frequencies are those of their 500 images. Ties go to the object met first.

    Raises:
        DataError: counts images with fewer than three objects; an image for which no absent object is left.
        ValueError: an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of POPE questions {kind!r}: expected one of {', '.join(KINDS)}")
    few = [image_id for image_id, names in objects.items() if len(names) < PRESENT]
    if few:
        raise DataError(
            f"{len(few)} of {len(objects)} images show less than the {PRESENT} kinds of objects that POPE asks for, "
            f"the first is {few[0]}"
        )
    frequency = Counter(name for names in objects.values() for name in names)
    together: dict[str, Counter[str]] = defaultdict(Counter)
    for names in objects.values():
        for name in names:
            together[name].update(other for other in names if other != name)
    popular = [name for name, _ in frequency.most_common()]
    adversarial = {name: [other for other, _ in counts.most_common()] for name, counts in together.items()}

    draw = random.Random(seed)
    questions: list[PopeQuestion] = []

    def ask(image_id: int, name: str, label: str) -> None:
        questions.append(PopeQuestion(len(questions) + 1, image_id, question(name), label))

    for image_id, names in objects.items():
        used = set(names)
        for present in names[:PRESENT]:
            absent = [name for name in frequency if name not in used]
            if not absent:
                shown = f"it shows {len(names)} of {len(frequency)} kinds"
                raise DataError(f"image {image_id}: {shown}, and POPE asks for {PRESENT} that it does not show")
            ranked = {"random": [], "popular": popular, "adversarial": adversarial[present]}[kind]
            chosen = next((name for name in ranked if name not in used), None) or draw.choice(absent)
            used.add(chosen)
            ask(image_id, present, "yes")
            ask(image_id, chosen, "no")
    return questions


def choose_images(objects: Mapping[int, Sequence[str]], count: int = 500, seed: int = 0) -> tuple[int, ...]:
    """Choose `count` images with at least three objects by a seed (all of them when there are fewer), ids ascending.

    Raises:
        DataError: no image has three objects.
    """
    able = sorted(image_id for image_id, names in objects.items() if len(names) >= PRESENT)
    if not able:
        raise DataError(f"none of {len(objects)} images shows {PRESENT} kinds of objects, which POPE needs")
    return image_lists.sample("", able, count, seed).ids
