from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from lmms_fixattn.report.positions import FEWEST, Rate, positions
from lmms_fixattn.scoring import chair
from lmms_fixattn.scoring.bootstrap import draw_weights
from lmms_fixattn.scoring.objects.coco_objects import CATEGORIES

LEXICON = chair.make_analyser()
NAMES = [name for name in CATEGORIES[:12] if " " not in name]


def rows(seed: int, count: int, most: int = 70) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    found = []
    for image in range(count):
        words = [draw.choice(["red", "there", *NAMES[:7]]) for _ in range(draw.randint(0, most))]
        found.append(chair.score_caption(image, " ".join(words), set(draw.sample(NAMES, 3)), LEXICON))
    return found


def naive(captions: list[dict[str, Any]], weight: list[float], tenths: bool, place: int) -> tuple[float, float]:
    """Mentions and hallucinated mentions of one place, word by word and caption by caption."""
    mentions = wrong = 0.0
    for row, times in zip(captions, weight, strict=True):
        words = row["caption"].split()
        for number, word in enumerate(words):
            if word in NAMES and (10 * number // len(words) if tenths else number // 20) == place:
                mentions += times
                wrong += times * (word not in row["truth"])
    return mentions, wrong


@pytest.mark.parametrize("unit", ["tenths", "words"])
def test_rates_and_intervals_are_those_of_counting_word_by_word_in_every_draw(unit: str) -> None:
    captions = rows(0, 23)
    rates: tuple[Rate, ...] = getattr(positions(captions, LEXICON, 30, 5), unit)
    draws = draw_weights(23, 30, 5)
    seen = 0
    for place, rate in enumerate(rates):
        mentions, wrong = naive(captions, [1.0] * 23, unit == "tenths", place)
        assert rate.mentions == mentions
        if rate.rate.value is None:
            continue
        seen += 1
        drawn = [naive(captions, list(weight), unit == "tenths", place) for weight in draws]
        low, high = np.percentile([100 * part / whole for whole, part in drawn if whole], [2.5, 97.5])
        assert rate.rate.value == pytest.approx(100 * wrong / mentions)
        assert (rate.rate.low, rate.rate.high) == pytest.approx((low, high))
    assert seen >= 3


def test_places_adjoin_and_hold_every_mention() -> None:
    captions = rows(1, 40)
    found = positions(captions, LEXICON, 5, 0)
    total = sum(len(row["objects"]) for row in captions)
    for rates, width in ((found.tenths, 10), (found.words, 20)):
        assert [(rate.start, rate.end) for rate in rates] == [(width * i, width * i + width) for i in range(len(rates))]
        assert sum(rate.mentions for rate in rates) == total
    assert len(found.tenths) == 10


def test_a_place_of_few_captions_has_no_rate_however_often_they_repeat_themselves() -> None:
    looped = [chair.score_caption(image, "cat " * 90, set(), LEXICON) for image in range(FEWEST - 1)]
    assert {rate.rate.value for rate in positions(looped, LEXICON, 5, 0).tenths} == {None}
    looped.append(chair.score_caption(99, "cat " * 90, set(), LEXICON))
    assert {rate.rate.value for rate in positions(looped, LEXICON, 5, 0).tenths} == {100.0}


def test_captions_without_mentions_have_no_place_in_words() -> None:
    found = positions([chair.score_caption(1, "", {"cat"}, LEXICON)], LEXICON, 5, 0)
    assert found.words == ()
    assert [rate.mentions for rate in found.tenths] == [0] * 10
