"""The analyser of the reference CHAIR scorer: NLTK's tokeniser, part-of-speech tagger and WordNet lemmatiser."""

from __future__ import annotations

import re
from functools import lru_cache

from lmms_fixattn.scoring.objects.coco_objects import MEANINGFUL, Mentions, mentions
from lmms_fixattn.scoring.objects.located import Located, locate

_WORDNET_POS = {"J": "a", "V": "v", "N": "n", "R": "r"}
_HOW_TO = "docs/chair.md says how to get it; analyser 'lexicon' needs none of this"


class NltkAnalyser:
    """Lemmatise every token with its part of speech, as the reference scorer does (Maxlinn/CHAIR-metric-standalone).

    Needs the nltk package and, on NLTK's data path, the English models punkt_tab and averaged_perceptron_tagger_eng and
    the corpus wordnet. Nothing is downloaded: construction raises ModuleNotFoundError or LookupError instead.
    """

    name = "nltk"

    def __init__(self) -> None:
        try:
            import nltk
            from nltk.corpus import wordnet
            from nltk.stem import WordNetLemmatizer
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"CHAIR analyser 'nltk' needs the package nltk (pip install nltk); {_HOW_TO}"
            ) from error
        try:
            # NLTK reads its models on first use; using them here makes a missing one an error now, and their lazy
            # loaders, which are not safe in threads, run once.
            wordnet.ensure_loaded()
            nltk.pos_tag(nltk.word_tokenize("a caption."))
        except (LookupError, OSError) as error:  # OSError: a WordNet folder that lacks a file
            raise LookupError(
                "CHAIR analyser 'nltk' needs NLTK's data punkt_tab, averaged_perceptron_tagger_eng and wordnet "
                f"in a folder that NLTK_DATA names; {_HOW_TO}"
            ) from error
        self._tokenise = nltk.word_tokenize
        self._tag = nltk.pos_tag
        self._lemmatise = WordNetLemmatizer().lemmatize
        self._lookahead = lru_cache(maxsize=65536)(self._lookahead_of)

    def mentions(self, caption: str) -> Mentions:
        """Return the mentions of a caption (about 3 to 9 ms for 100 words)."""
        return mentions(self._lemmas(self._tokenise(caption.lower())))

    def located(self, caption: str) -> list[Located]:
        """Return the mentions of a caption with their places in it."""
        tokens = self._tokenise(caption.lower())
        return locate(caption, tokens, self._lemmas(tokens))

    def _lemmas(self, tokens: list[str]) -> list[str]:
        return [self._lemmatise(token, _WORDNET_POS.get(tag[0], "n")) for token, tag in self._tag(tokens)]

    def lookahead(self, word: str) -> int | None:
        """Return 3 where the part of speech decides whether a word names an object, 1 where it does not, else None.

        The tagger reads a token with what it made of those before it and with the two after it, of which the second may
        gain or lose its period with the word that follows; so may the word's own last token.
        """
        return self._lookahead(word.lower())

    def _lookahead_of(self, word: str) -> int | None:
        # Whatever the surroundings make of a word, its tokens are among these.
        tokens = {word, *re.split(r"\W+", word), *self._tokenise(word)}
        lemmas = {token: {self._lemmatise(token, part) for part in _WORDNET_POS.values()} for token in tokens}
        named = [found for found in lemmas.values() if found & MEANINGFUL]
        if any(len(found) > 1 for found in named):
            return 3
        return 1 if named else None
