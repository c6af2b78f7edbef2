"""Where in a caption its objects are mentioned: what colours a caption, and tells early mentions from late ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lmms_fixattn.scoring.objects.coco_objects import named


class Located(NamedTuple):
    """A mention and the place of its words: caption[start:end], of the caption as it was given."""

    object: str
    start: int
    end: int


def locate(caption: str, tokens: Sequence[str], lemmas: Sequence[str | None]) -> list[Located]:
    """Return the mentions of a caption with their places, in order; both words of a double word are covered.

    tokens: of caption.lower(), which they spell out but for blanks (NLTK's `` and '' stand for one "); lemmas: one a
    token. The objects are those of coco_objects.mentions(lemmas). Raises ValueError if the tokens are another text's.
    """
    places = list(_places(caption, tokens))
    return [Located(word, places[first][0], places[last][1]) for word, first, last in named(lemmas)[0]]


def _places(caption: str, tokens: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield each token's start and end in the caption before it was lower-cased."""
    lowered = caption.lower()
    origin: Sequence[int] = range(len(caption))
    if len(lowered) != len(caption):
        # A few letters become two in lower case: İ.
        origin = [index for index, letter in enumerate(caption) for _ in letter.lower()]
    start = 0
    for token in tokens:
        while start < len(lowered) and lowered[start].isspace():
            start += 1
        # NLTK writes every double quote, whether one sign or two, as either of these.
        quote = token in ("``", "''") and lowered.startswith(('"', "``", "''"), start)
        end = start + (1 if quote and lowered[start] == '"' else len(token))
        if not quote and not lowered.startswith(token, start):
            raise ValueError(f"expected the caption's own tokens, found {token!r} where it has {lowered[start:end]!r}")
        yield origin[start], origin[end - 1] + 1
        start = end
