from __future__ import annotations

import random

import pytest

from lmms_fixattn.scoring import chair
from lmms_fixattn.scoring.objects.coco_objects import CATEGORIES, NODE_WORD
from lmms_fixattn.scoring.objects.nltk_analyser import NltkAnalyser

LEXICON = chair.make_analyser("lexicon")

# Object words in plural, which the reference scorer counts whatever their surroundings ("men" and "vases" it misses).
PLURALS = {
    "dogs": "dog",
    "women": "person",
    "children": "person",
    "people": "person",
    "buses": "bus",
    "benches": "bench",
    "couches": "couch",
    "puppies": "dog",
    "calves": "cow",
    "mice": "mouse",
    "policemen": "person",
    "chairs": "chair",
    "cars": "car",
    "tables": "dining table",
    "traffic lights": "traffic light",
    "wine glasses": "wine glass",
    "teddy bears": "teddy bear",
}


@pytest.mark.parametrize(
    ("caption", "objects"),
    [
        ("", []),
        ("Two men and a vase with vases.", ["vase"]),
        ("A MAN'S dog. Dogs' bowls", ["person", "dog", "dog", "bowl"]),
        ("A dog.The cat sat.", ["cat"]),
        ("He is skiing down a hill.", ["skis"]),
        ("They enjoy a skiing trip.", []),
        ("People are seated on the grass.", ["person", "chair"]),
        ("He looks at a seated woman.", ["person"]),
        ("Two umbrellas are in the sand.", ["umbrella"]),
        ("There is a stove in the kitchen.", ["oven"]),
        ("A potted plant beside a parking meter and hot dogs", ["potted plant", "parking meter", "hot dog"]),
        ("A baby elephant near the train tracks", ["elephant"]),
        ("The lighting of the room is warm.", []),
        ("A toilet with its seat up", ["toilet"]),
        ("a cell phone, a laptop computer", ["cell phone", "laptop"]),
        ("a cell\nphone", ["cell phone"]),
        ("a traffic-light", []),
    ],
)
def test_captions_mention_these_objects(caption: str, objects: list[str]) -> None:
    assert LEXICON.mentions(caption).objects == objects


@pytest.mark.parametrize("word", sorted(NODE_WORD))
def test_every_word_of_the_table_is_found_as_its_node_word(word: str) -> None:
    assert LEXICON.mentions(f"There is a {word} in the picture.").objects == [NODE_WORD[word]]


@pytest.mark.parametrize("plural", PLURALS)
def test_plurals_are_found(plural: str) -> None:
    assert LEXICON.mentions(f"There are many {plural} in the picture.").objects == [PLURALS[plural]]


def test_a_sentence_of_known_objects_gives_them_in_order() -> None:
    draw = random.Random(2)
    fillers = ["a red", "the large", "next to", "and", "in front of", "with its"]
    words = sorted(NODE_WORD.keys() - {"seat", "toilet", "bow", "baby", "adult", "stove"})
    for _ in range(500):
        chosen = draw.choices(words, k=draw.randint(1, 8))
        caption = ", ".join(f"{draw.choice(fillers)} {word}" for word in chosen) + "."
        assert LEXICON.mentions(caption).objects == [NODE_WORD[word] for word in chosen]


def test_agrees_with_the_reference_on_short_captions(nltk_analyser: NltkAnalyser) -> None:
    draw = random.Random(3)
    names = [*CATEGORIES, "man", "woman", "boy", "girl", "child", "plane", "bike", "phone", "sofa", "kid", "lady"]
    doings = ["riding", "holding", "sitting on", "standing near", "eating", "seated by", "parked by"]
    places = ["on the beach.", "in a field", "at night.", "on a snowy slope.", "next to two dogs", "in a kitchen."]
    captions = [
        f"{draw.choice(['A', 'The', 'A large', 'There is a'])} {draw.choice(names)} {draw.choice(doings)} "
        f"{draw.choice(['a', 'some', 'the young'])} {draw.choice(names)} {draw.choice(places)}"
        for _ in range(600)
    ]
    same = sum(LEXICON.mentions(caption) == nltk_analyser.mentions(caption) for caption in captions)
    assert same >= 0.98 * len(captions)
