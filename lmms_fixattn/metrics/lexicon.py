"""The default analyser: a closed vocabulary in place of NLTK's dictionary, and a question of mood in place of its tagger.

The reference scorer lemmatises a word as the noun, verb or adjective that a tagger takes it for. For nearly all words
that name objects this changes nothing, so a table of their forms will do (`word_forms.txt`: lemma: forms). It matters
to two kinds and to a few plain nouns that the tagger often mistakes. "Skiing" counts as a pair of skis where it is a
verb but not in "a skiing trip", and "seated" as a seat but not in "the seated man"; "umbrellas" and "stove" count unless
they are mistaken for something else. For these alone a score of the two words on either side decides:

    count  if  w0[form] + w-2[word] + w-1[word] + w+1[word] + w+2[word] > 0

with weights fitted to the tagger's own decisions (`word_moods.tsv`: group, position, word, weight; 0 for other words).
docs/chair.md has the measured agreement.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from lmms_fixattn.metrics.coco_objects import NODE_WORD, Mentions, mentions
from lmms_fixattn.metrics.tokens import tokenise


def _lines(name: str) -> list[str]:
    return files("lmms_fixattn.metrics").joinpath(name).read_text(encoding="utf-8").splitlines()


def _read_forms() -> dict[str, str]:
    rows = (row.partition(": ") for row in _lines("word_forms.txt"))
    return {form: lemma for lemma, _, forms in rows for form in forms.split()}


def _read_moods() -> dict[str, dict[int, dict[str, float]]]:
    moods: dict[str, dict[int, dict[str, float]]] = {}
    for row in _lines("word_moods.tsv"):
        group, position, word, weight = row.split("\t")
        moods.setdefault(group, {place: {} for place in (-2, -1, 0, 1, 2)})[int(position)][word] = float(weight)
    return moods


def _group_of(form: str, lemma: str) -> str | None:
    if lemma not in NODE_WORD or form == lemma:
        # Of the plain nouns, those that are their group's only members.
        return form if form in _MOODS else None
    return next((group for group, ending in _ENDINGS.items() if form.endswith(ending)), _OWN_GROUP.get(form))


_FORMS = _read_forms()
_MOODS = _read_moods()
_ENDINGS = {"gerund": "ing", "participle": "ed"}
_OWN_GROUP = {form: group for group, weights in _MOODS.items() if group not in _ENDINGS for form in weights[0]}
_GROUP = {form: group for form, lemma in _FORMS.items() if (group := _group_of(form, lemma))}


class LexiconAnalyser:
    """Look lemmas up in a closed vocabulary (a fiftieth of the reference's time, and no data to download)."""

    name = "lexicon"

    def mentions(self, caption: str) -> Mentions:
        """Return the mentions of a caption."""
        tokens = tokenise(caption.lower())
        lemmas = [_FORMS.get(token) for token in tokens]
        for position, token in enumerate(tokens):
            if token in _GROUP and not _counts(tokens, position):
                lemmas[position] = None
        return mentions(lemmas)


def _counts(tokens: Sequence[str], position: int) -> bool:
    """Return whether the swinging form at a position keeps its lemma."""
    form = tokens[position]
    weights = _MOODS[_GROUP[form]]
    score = weights[0].get(form, weights[0].get("*", 0.0))
    for offset in (-2, -1, 1, 2):
        place = position + offset
        word = "^" if place < 0 else "$" if place >= len(tokens) else tokens[place]
        score += weights[offset].get(word, 0.0)
    return score > 0
