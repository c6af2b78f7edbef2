"""The 80 COCO objects, the words that name them, and how lemmas become node words.

The table `synonyms.txt` has a row an object; a row's first word, the node word, is the COCO category's name. Rows and
rules are those of the CHAIR scorer (arXiv:1809.02156; LisaAnne/Hallucination, Maxlinn/CHAIR-metric-standalone), so that
counts agree with published ones. Three of its entries can never match a lower-cased lemma there (" motor bike" and
" cheesecake" with a stray blank, "iPhone" with a capital) and one spans three words where only pairs are merged
("stove top oven"); they are left out of the table, which changes no count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files
from itertools import zip_longest
from typing import NamedTuple

_ROWS = tuple(
    tuple(row.split(", "))
    for row in files("lmms_fixattn.scoring.objects").joinpath("synonyms.txt").read_text(encoding="utf-8").splitlines()
)

CATEGORIES: tuple[str, ...] = tuple(row[0] for row in _ROWS)
"""The 80 node words, in COCO's order."""

NODE_WORD: dict[str, str] = {word: row[0] for row in _ROWS for word in row}
"""Every word of the table -> the node word of its row."""

_KEPT_PAIRS = (
    "motor bike, motor cycle, air plane, traffic light, street light, traffic signal, stop light, fire hydrant, "
    "stop sign, parking meter, suit case, sports ball, baseball bat, baseball glove, tennis racket, wine glass, "
    "hot dog, cell phone, mobile phone, teddy bear, hair drier, potted plant, laptop computer, home plate, train track"
)
_ANIMALS = "bird cat dog horse sheep cow elephant bear zebra giraffe animal cub"

DOUBLE_WORDS: dict[tuple[str, str], str] = {
    **{(first, second): f"{first} {second}" for first, second in map(str.split, _KEPT_PAIRS.split(", "))},
    **{(age, animal): animal for age in ("baby", "adult") for animal in _ANIMALS.split()},
    ("passenger", "jet"): "jet",
    ("passenger", "train"): "train",
    ("bow", "tie"): "tie",
    ("toilet", "seat"): "toilet",
    ("wine", "glas"): "wine glass",
}
"""Two lemmas in a row -> the one word that replaces them. A merged word outside the table ("train track", "home plate",
"motor bike", "baby animal") names no object: neither does what it is made of."""

_FIRST_WORDS = frozenset(first for first, _ in DOUBLE_WORDS)

MEANINGFUL: frozenset[str] = frozenset(NODE_WORD) | {word for pair in DOUBLE_WORDS for word in pair}
"""The lemmas that can change the result; any other may be replaced by None."""


class Mentions(NamedTuple):
    """The objects that a caption mentions."""

    objects: list[str]
    """Node words in the caption's order, with repeats."""
    words: int
    """Tokens of the caption, a double word counted once."""


def mentions(lemmas: Sequence[str | None]) -> Mentions:
    """Return the mentions of a caption given as the lemmas of its tokens, in order.

    Double words are merged from left to right; then, if both "toilet" and "seat" are left, every "seat" is dropped;
    then words of the table become node words. An empty sequence mentions nothing.
    """
    merged: list[str | None] = []
    skip = False
    for lemma, following in zip_longest(lemmas, lemmas[1:]):
        if skip:
            skip = False
        elif lemma in _FIRST_WORDS and (pair := DOUBLE_WORDS.get((lemma or "", following or ""))) is not None:
            merged.append(pair)
            skip = True
        else:
            merged.append(lemma)
    named = [word for word in merged if word in NODE_WORD]
    if "seat" in named and "toilet" in named:
        named = [word for word in named if word != "seat"]
    return Mentions([NODE_WORD[word] for word in named if word is not None], len(merged))


def check_categories(names: Iterable[str]) -> None:
    """Raise ValueError for a category name that is none of the 80."""
    if unknown := sorted(set(names) - set(CATEGORIES)):
        raise ValueError(f"CHAIR knows the 80 COCO categories, not {unknown[0]!r}; rename or leave out that category")
