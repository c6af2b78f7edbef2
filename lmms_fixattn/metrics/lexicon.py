"""The default analyser: a closed vocabulary instead of a tagger and a dictionary."""

from __future__ import annotations

from importlib.resources import files

from lmms_fixattn.metrics.coco_objects import Mentions, mentions
from lmms_fixattn.metrics.tokens import tokenise

_FORMS: dict[str, str] = {
    form: lemma
    for lemma, _, forms in (
        row.partition(": ")
        for row in files("lmms_fixattn.metrics").joinpath("word_forms.txt").read_text(encoding="utf-8").splitlines()
    )
    for form in forms.split()
}


class LexiconAnalyser:
    """Look every token's lemma up in a table of all word forms that WordNet leads to a word of CHAIR's."""

    name = "lexicon"

    def mentions(self, caption: str) -> Mentions:
        """Return the mentions of a caption."""
        return mentions([_FORMS.get(token) for token in tokenise(caption.lower())])
