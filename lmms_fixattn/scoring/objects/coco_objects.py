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


def named(lemmas: Sequence[str | None]) -> tuple[list[tuple[str, int, int]], int]:
    """Return the objects of a caption given as the lemmas of its tokens, and how many words these are.

    Double words are merged from left to right; then, if both "toilet" and "seat" are left, every "seat" is dropped;
    then words of the table become node words. An empty sequence names nothing.

    Returns:
        (node word, first token, last token) of each mention, in order; the number of words, a double word counted once.
    """
    words: list[tuple[str, int, int]] = []
    position = count = 0
    while position < len(lemmas):
        word, last = lemmas[position], position
        if word in _FIRST_WORDS and position + 1 < len(lemmas):
            pair = DOUBLE_WORDS.get((word or "", lemmas[position + 1] or ""))
            word, last = (word, position) if pair is None else (pair, position + 1)
        if word in NODE_WORD:
            words.append((word or "", position, last))
        position, count = last + 1, count + 1
    if {"seat", "toilet"} <= {word for word, _, _ in words}:
        words = [word for word in words if word[0] != "seat"]
    return [(NODE_WORD[word], first, last) for word, first, last in words], count


def mentions(lemmas: Sequence[str | None]) -> Mentions:
    """Return the mentions of a caption given as the lemmas of its tokens, in order (:func:`named`)."""
    found, count = named(lemmas)
    return Mentions([word for word, _, _ in found], count)


def check_categories(names: Iterable[str]) -> None:
    """Raise ValueError for a category name that is none of the 80."""
    if unknown := sorted(set(names) - set(CATEGORIES)):
        raise ValueError(f"CHAIR knows the 80 COCO categories, not {unknown[0]!r}; rename or leave out that category")
