from __future__ import annotations

import random
import re

import pytest
from nltk.tokenize import NLTKWordTokenizer

from lmms_fixattn.scoring.objects.nltk_analyser import NltkAnalyser
from lmms_fixattn.scoring.objects.tokens import tokenise

# Chunks between blanks, of all kinds that captions hold.
CHUNKS = re.findall(
    r"\S+",
    """
the a dogs dog's dogs' can't cannot don't they're i'd we'll you've isn't t-shirt teddy-bear 5 3.5 10:30 1,000 50% $5 #1
people: table, dog; stop! what? "stop" 'stop' ‘go’ “ok” it’s (a dog) [x] {y} <b> ... – — -- & @you and/or *bold* café
gonna wanna gotta lemme gimme d'ye more'n children's o'clock 'em rock'n'roll 'tis www.x.com/a?b=1 chair.the dog:cat
dog,cat 3,4 `code` ``q'' e.g i.e x-ray 犬 naïve "a "b" c' 's '' ' " ) ( 1/2 6:45pm no.5
""",
)


def same_quotes(tokens: list[str]) -> list[str]:
    """NLTK rewrites double quotes as `` and ''; their number and places are what matters here."""
    return ['"' if token in ("``", "''") else token for token in tokens]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        (" \n\t ", []),
        ("a dog.", ["a", "dog", "."]),
        ("a dog. the cat.", ["a", "dog", ".", "the", "cat", "."]),
        ("a dog.\n\nthe cat", ["a", "dog", ".", "the", "cat"]),
        ("at 10:17. the clock", ["at", "10:17.", "the", "clock"]),
        ("it costs $2.00. the menu", ["it", "costs", "$", "2.00", ".", "the", "menu"]),
        ("at 5 p.m. the clock", ["at", "5", "p.m.", "the", "clock"]),
        ("at 5 p.m.", ["at", "5", "p.m", "."]),
        ("on main st. a car", ["on", "main", "st.", "a", "car"]),
        ("1. a dog. 2. a cat.", ["1.", "a", "dog", ".", "2.", "a", "cat", "."]),
        ("dog.cat", ["dog.cat"]),
        ("dogs, cats, etc., and", ["dogs", ",", "cats", ",", "etc.", ",", "and"]),
        ("(a dog.) the cat", ["(", "a", "dog", ".", ")", "the", "cat"]),
        ('says "stop." the', ["says", '"', "stop", ".", '"', "the"]),
        ("a dog... the cat", ["a", "dog", "...", "the", "cat"]),
        ("don't. the", ["do", "n't", ".", "the"]),
        ("a dog!! the", ["a", "dog", "!", "!", "the"]),
        ("the man's dogs' bowls", ["the", "man", "'s", "dogs", "'", "bowls"]),
        ("the man’s dog", ["the", "man", "’", "s", "dog"]),
        ("a teddy-bear", ["a", "teddy-bear"]),
    ],
)
def test_texts_are_split_into_these_tokens(text: str, tokens: list[str]) -> None:
    assert tokenise(text) == tokens


def test_one_sentence_is_split_as_by_the_treebank_rules() -> None:
    draw = random.Random(0)
    treebank = NLTKWordTokenizer()
    for _ in range(4000):
        text = " ".join(draw.choices(CHUNKS, k=draw.randint(1, 9))) + draw.choice(["", ".", "?", "!", '."', ".)"])
        assert same_quotes(tokenise(text)) == same_quotes(treebank.tokenize(text)), text


def test_sentences_are_found_as_by_punkt(nltk_analyser: NltkAnalyser) -> None:
    import nltk

    draw = random.Random(1)
    enders = ["a", "dog", "men", "5", "10:30", "$2.00", "p.m", "st", "u.s", "b", "don't", "(dog", "etc", "50%", "tv"]
    for _ in range(2000):
        words: list[str] = []
        for _ in range(draw.randint(1, 6)):
            words += draw.choices(["the", "dog", "people", "and", "it's", "a"], k=draw.randint(1, 3))
            words.append(draw.choice(enders) + draw.choice([".", ".", ".)", '."', "!", "?"]))
        text = draw.choice([" ", " ", "\n\n"]).join([*words, "the", "end."])
        assert same_quotes(tokenise(text)) == same_quotes(nltk.word_tokenize(text)), text
