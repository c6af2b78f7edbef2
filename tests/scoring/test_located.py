from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmms_fixattn.scoring import chair
from lmms_fixattn.scoring.files.reading import read_captions
from lmms_fixattn.scoring.objects.coco_objects import DOUBLE_WORDS, NODE_WORD, mentions
from lmms_fixattn.scoring.objects.located import locate
from lmms_fixattn.scoring.objects.nltk_analyser import NltkAnalyser

LEXICON = chair.make_analyser("lexicon")

WORDS = sorted(NODE_WORD) + [" ".join(pair) for pair in DOUBLE_WORDS]
FILLERS = re.findall(
    r"\S+",
    """
the a and, near -- don't “a” "the" İstanbul ŞİİR Straße 犬 ñu café … ... (with) [of] it’s 'tis cannot gonna d'ye 5.5
u.s. etc. 10:30, red/blue `code` ''x'' \N{FAMILY} e\u0301 ﬁne ΣΑΣ ' " '' `` ? ! ;
""",
)

captions = st.lists(
    st.one_of(
        st.sampled_from(WORDS), st.sampled_from([word.title() for word in WORDS]), st.sampled_from(FILLERS), st.text()
    ),
    max_size=14,
).flatmap(
    lambda parts: st.lists(st.sampled_from([" ", "  ", "\n", ". ", ", ", "'s ", "-", '" ', "\u00a0"])).map(
        lambda joins: "".join(part + joins[i % len(joins)] if joins else f"{part} " for i, part in enumerate(parts))
    )
)


@pytest.mark.parametrize(
    ("caption", "places"),
    [
        ("", []),
        ("Nothing here", []),
        ("A dog.", [("dog", "dog")]),
        ("TWO DOGS' bowls", [("dog", "DOGS"), ("bowl", "bowls")]),
        ("a man's traffic  light", [("person", "man"), ("traffic light", "traffic  light")]),
        ("A Baby elephant, a baby", [("elephant", "Baby elephant"), ("person", "baby")]),
        ("the toilet seat near a toilet", [("toilet", "toilet seat"), ("toilet", "toilet")]),
        ("the seat of the toilet", [("toilet", "toilet")]),
        ("the seat of a urinal", [("chair", "seat"), ("toilet", "urinal")]),
        ("a train track", []),
        ("a bow\ntie", [("tie", "bow\ntie")]),
        ("the \"dog\" and ``cat''", [("dog", "dog"), ("cat", "cat")]),
        ("İ İİ dog İ cat", [("dog", "dog"), ("cat", "cat")]),
        ("犬 “Dog”—cats!", [("dog", "Dog"), ("cat", "cats")]),
        ("a dog.The cat cannot", [("cat", "cat")]),
    ],
)
def test_objects_are_located_at_these_words_of_the_caption(caption: str, places: list[tuple[str, str]]) -> None:
    assert [(word, caption[start:end]) for word, start, end in LEXICON.located(caption)] == places


@given(captions)
def test_the_objects_are_those_of_mentions_and_their_places_follow_one_another(caption: str) -> None:
    found = LEXICON.located(caption)
    assert [mention.object for mention in found] == LEXICON.mentions(caption).objects
    ends = [0, *(mention.end for mention in found)]
    for before, (_, start, end) in zip(ends, found, strict=False):
        assert before <= start < end <= len(caption)
        assert not caption[start].isspace()
        assert not caption[end - 1].isspace()


def test_the_words_at_a_place_name_its_object_by_themselves() -> None:
    draw = random.Random(0)
    words = sorted(NODE_WORD.keys() - {"seat", "toilet", "bow", "baby", "adult", "stove"})
    for _ in range(500):
        caption = ". ".join(f"The {draw.choice(words)}{draw.choice(['', ',', ' is', chr(34)])}" for _ in range(6))
        for word, start, end in LEXICON.located(caption):
            assert NODE_WORD[caption[start:end]] == word
            assert LEXICON.mentions(f"There is a {caption[start:end]} in the picture.").objects == [word]


def test_random_lemmas_are_merged_as_mentions_merges_them() -> None:
    draw = random.Random(1)
    pieces = sorted({piece for word in WORDS for piece in word.split()})
    for _ in range(3000):
        lemmas: list[str | None] = [*draw.choices(pieces, k=draw.randrange(10))]
        for _ in range(draw.randrange(4)):
            place = draw.randrange(len(lemmas) + 1)
            lemmas[place:place] = draw.choice([*DOUBLE_WORDS, (None,), ("toilet",), ("seat",)])
        tokens = [lemma or "x" for lemma in lemmas]
        caption = " ".join(tokens)
        assert [mention.object for mention in locate(caption, tokens, lemmas)] == mentions(lemmas).objects


def test_the_tokens_of_another_caption_are_refused() -> None:
    with pytest.raises(ValueError, match=r"found 'cat' where it has 'dog'"):
        locate("a dog", ["a", "cat"], ["a", "cat"])


@given(captions)
def test_nltks_tokens_are_found_too(nltk_analyser: NltkAnalyser, caption: str) -> None:
    assert [mention.object for mention in nltk_analyser.located(caption)] == nltk_analyser.mentions(caption).objects


def test_released_captions_locate_the_objects_that_they_mention(reference: Path) -> None:
    count = 0
    for path in sorted((reference / "chair").glob("*.jsonl.gz")):
        for _, caption, *_ in read_captions(path):
            found = LEXICON.located(caption)
            assert [mention.object for mention in found] == LEXICON.mentions(caption).objects
            assert all(caption[start:end].strip() == caption[start:end] for _, start, end in found)
            count += 1
    assert count == 5000
