from __future__ import annotations

import random

import pytest

from lmms_fixattn.scoring.objects.coco_objects import (
    CATEGORIES,
    DOUBLE_WORDS,
    MEANINGFUL,
    NODE_WORD,
    check_categories,
    mentions,
)


def naive_mentions(lemmas: list[str]) -> tuple[list[str], int]:
    """The rules again, in the words of the protocol and with no care for speed."""
    words = list(lemmas)
    position = 0
    while position < len(words):
        merged = DOUBLE_WORDS.get(tuple(words[position : position + 2]))  # type: ignore[call-overload]
        if merged is not None:
            words[position : position + 2] = [merged]
        position += 1
    counted = len(words)
    if "toilet" in words and "seat" in words:
        words = [word for word in words if word != "seat"]
    return [NODE_WORD[word] for word in words if word in NODE_WORD], counted


def test_there_are_eighty_categories_each_its_own_node_word() -> None:
    assert len(CATEGORIES) == len(set(CATEGORIES)) == 80
    assert all(NODE_WORD[category] == category for category in CATEGORIES)
    assert set(NODE_WORD.values()) == set(CATEGORIES)


def test_no_word_names_two_objects_and_none_can_never_match() -> None:
    assert all(word == word.strip().lower() for word in NODE_WORD)
    spaced = {word for word in NODE_WORD if " " in word}
    assert spaced - set(DOUBLE_WORDS.values()) == {"bow tie", "dining table"}  # reached as "tie" and "table"
    assert len(NODE_WORD) == 399


@pytest.mark.parametrize(
    ("lemmas", "objects", "words"),
    [
        ("", [], 0),
        ("a man and a woman", ["person", "person"], 5),
        ("a traffic light", ["traffic light"], 2),
        ("a street light and a light", ["traffic light"], 5),
        ("a hot dog and a dog", ["hot dog", "dog"], 5),
        ("the train track", [], 2),
        ("a motor bike", [], 2),
        ("a motor cycle", ["motorcycle"], 2),
        ("a baby elephant", ["elephant"], 2),
        ("an adult and a baby", ["person", "person"], 5),
        ("a baby animal", [], 2),
        ("a passenger train", ["train"], 2),
        ("a passenger in a train", ["person", "train"], 5),
        ("a bow tie", ["tie"], 2),
        ("a toilet seat", ["toilet"], 2),
        ("the seat of the toilet", ["toilet"], 5),
        ("a seat", ["chair"], 2),
        ("a wine glas", ["wine glass"], 2),
        ("a dining table", ["dining table"], 3),
        ("bow tie seat toilet", ["tie", "toilet"], 3),
    ],
)
def test_lemmas_give_these_objects_and_number_of_words(lemmas: str, objects: list[str], words: int) -> None:
    assert mentions(lemmas.split()) == (objects, words)


def test_agrees_with_the_naive_rules_on_random_lemmas() -> None:
    draw = random.Random(0)
    vocabulary = sorted({part for word in MEANINGFUL for part in word.split()} | {"the", "a", "of", "red"})
    pairs = [list(pair) for pair in DOUBLE_WORDS]
    for _ in range(3000):
        lemmas: list[str] = []
        for _ in range(draw.randrange(12)):
            lemmas += draw.choice(pairs) if draw.random() < 0.3 else [draw.choice(vocabulary)]
        assert mentions(lemmas) == naive_mentions(lemmas)


def test_words_without_meaning_may_be_left_unnamed() -> None:
    draw = random.Random(1)
    vocabulary = [*sorted(MEANINGFUL - {word for word in MEANINGFUL if " " in word}), "the", "on", "large"]
    for _ in range(300):
        lemmas = draw.choices(vocabulary, k=9)
        assert mentions([lemma if lemma in MEANINGFUL else None for lemma in lemmas]) == mentions(lemmas)


def test_a_category_outside_coco_is_refused_by_name() -> None:
    check_categories(CATEGORIES)
    with pytest.raises(ValueError, match="'motorbike'"):
        check_categories(["dog", "motorbike"])
