"""The default analyser: a closed vocabulary for NLTK's dictionary, and one question of part of speech for its tagger.

The reference scorer lemmatises a word as the noun, verb or adjective that a tagger takes it for. For nearly every word
that names an object this changes nothing, and a table of forms will do (`word_forms.txt`, lemma: forms). It matters to
gerunds and participles, and to a few nouns that the tagger often mistakes: "skiing" counts as skis where it is a verb
but not in "a skiing trip", "seated" as a seat but not in "the seated man"; "umbrellas" and "stove" count where they are
taken for nouns. For these alone, a score of the two words on either side decides:

    the form counts  if  w[0, form] + w[-2, word] + w[-1, word] + w[+1, word] + w[+2, word] > 0

The weights were fitted to the tagger's own decisions (`pos_weights.tsv`: group, position, word, weight; 0 for any other
word; "^" and "$" stand before and after the caption, "*" for any other form). docs/chair.md has the agreement measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files

from lmms_fixattn.scoring.objects.coco_objects import NODE_WORD, Mentions, mentions
from lmms_fixattn.scoring.objects.located import Located, locate
from lmms_fixattn.scoring.objects.tokens import tokenise, tokenise_chunk


def _lines(name: str) -> list[str]:
    return files("lmms_fixattn.scoring.objects").joinpath(name).read_text(encoding="utf-8").splitlines()


def _read_forms() -> dict[str, str]:
    rows = (row.partition(": ") for row in _lines("word_forms.txt"))
    return {form: lemma for lemma, _, forms in rows for form in forms.split()}


def _read_weights() -> dict[str, dict[int, dict[str, float]]]:
    weights: dict[str, dict[int, dict[str, float]]] = {}
    for row in _lines("pos_weights.tsv"):
        group, position, word, weight = row.split("\t")
        weights.setdefault(group, {place: {} for place in (-2, -1, 0, 1, 2)})[int(position)][word] = float(weight)
    return weights


_FORMS = _read_forms()
_WEIGHTS = _read_weights()
_ENDINGS = {"ing": "gerund", "ed": "participle"}
# The other groups have one form each, of the same name: umbrellas, stove, ...
_GROUP = {group: group for group in _WEIGHTS if group not in _ENDINGS.values()} | {
    form: group
    for form, lemma in _FORMS.items()
    for ending, group in _ENDINGS.items()
    if form.endswith(ending) and form != lemma and lemma in NODE_WORD
}


class LexiconAnalyser:
    """Look lemmas up in a closed vocabulary (a fiftieth of the reference's time, and no data to download)."""

    name = "lexicon"

    def mentions(self, caption: str) -> Mentions:
        """Return the mentions of a caption."""
        return mentions(_lemmas(tokenise(caption.lower())))

    def located(self, caption: str) -> list[Located]:
        """Return the mentions of a caption with their places in it."""
        tokens = tokenise(caption.lower())
        return locate(caption, tokens, _lemmas(tokens))

    def lookahead(self, word: str) -> int | None:
        """Return 3 where an ambiguous form is in a word, 1 where any other form of the vocabulary is, else None.

        A word's last token may gain or lose its period with the next word; an ambiguous form is read with two tokens on
        its right, the second of which may do so too.
        """
        return _lookahead(word.lower())


@lru_cache(maxsize=65536)
def _lookahead(word: str) -> int | None:
    # Alone, before a small letter, before anything else: every way in which what follows can split a word.
    tokens = {token for following in ("", "a", "(") for token in tokenise_chunk(word, following)}
    if not tokens.isdisjoint(_GROUP):
        return 3
    return None if tokens.isdisjoint(_FORMS) else 1


def _lemmas(tokens: Sequence[str]) -> list[str | None]:
    """Return the lemma of each token that may name an object, None of any other."""
    lemmas = [_FORMS.get(token) for token in tokens]
    for position, token in enumerate(tokens):
        if token in _GROUP and not (_is_paired(tokens, lemmas, position) or _counts(tokens, position)):
            lemmas[position] = None
    return lemmas


def _is_paired(tokens: Sequence[str], lemmas: Sequence[str | None], position: int) -> bool:
    """Return whether a gerund is joined to one that counts (skiing or snowboarding): a tagger then repeats itself."""
    return (
        position > 1
        and tokens[position - 1] in ("and", "or")
        and _GROUP[tokens[position]] == _GROUP.get(tokens[position - 2]) == "gerund"
        and lemmas[position - 2] is not None
    )


def _counts(tokens: Sequence[str], position: int) -> bool:
    """Return whether the score of an ambiguous form and its neighbours keeps its lemma."""
    form = tokens[position]
    weights = _WEIGHTS[_GROUP[form]]
    score = weights[0].get(form, weights[0].get("*", 0.0))
    for offset in (-2, -1, 1, 2):
        place = position + offset
        word = "^" if place < 0 else "$" if place >= len(tokens) else tokens[place]
        score += weights[offset].get(word, 0.0)
    return score > 0
