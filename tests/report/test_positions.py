from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from lmms_fixattn.report.positions import FEWEST, positions
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


def naive(captions: list[dict[str, Any]], weight: list[float], tenth: int) -> tuple[float, float, int]:
    """Mentions, hallucinated mentions and captions with a mention of one tenth, word by word and caption by caption."""
    mentions = wrong = 0.0
    having = set()
    for image, (row, times) in enumerate(zip(captions, weight, strict=True)):
        words = row["caption"].split()
        for number, word in enumerate(words):
            if word in NAMES and 10 * number // len(words) == tenth:
                mentions += times
                wrong += times * (word not in row["truth"])
                having.add(image)
    return mentions, wrong, len(having)


def test_rates_and_intervals_are_those_of_counting_word_by_word_in_every_draw() -> None:
    captions = rows(0, 23)
    rates = positions(captions, LEXICON, 30, 5)
    draws = draw_weights(23, 30, 5)
    assert len(rates) == 10
    assert sum(rate.value is not None for rate in rates) >= 3
    for tenth, rate in enumerate(rates):
        mentions, wrong, having = naive(captions, [1.0] * 23, tenth)
        assert (rate.value is None) == (having < FEWEST)
        if rate.value is None:
            continue
        drawn = [naive(captions, list(weight), tenth) for weight in draws]
        low, high = np.percentile([100 * part / whole for whole, part, _ in drawn if whole], [2.5, 97.5])
        assert rate.value == pytest.approx(100 * wrong / mentions)
        assert (rate.low, rate.high) == pytest.approx((low, high))


def test_a_place_of_few_captions_has_no_rate_however_often_they_repeat_themselves() -> None:
    looped = [chair.score_caption(image, "cat " * 90, set(), LEXICON) for image in range(FEWEST - 1)]
    assert {rate.value for rate in positions(looped, LEXICON, 5, 0)} == {None}
    looped.append(chair.score_caption(99, "cat " * 90, set(), LEXICON))
    assert {rate.value for rate in positions(looped, LEXICON, 5, 0)} == {100.0}


def test_captions_without_mentions_have_no_rate() -> None:
    found = positions([chair.score_caption(1, "", {"cat"}, LEXICON)], LEXICON, 5, 0)
    assert [rate.value for rate in found] == [None] * 10
