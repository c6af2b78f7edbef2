"""Captions without objects."""

from __future__ import annotations

from typing import Any

import pytest

from lmms_fixattn.scoring import chair
from lmms_fixattn.scoring.silence import said_of_silence, silent, too_silent

LEXICON = chair.make_analyser()


def rows(*captions: str) -> list[dict[str, Any]]:
    return [chair.score_caption(number, caption, {"dog"}, LEXICON) for number, caption in enumerate(captions, start=11)]


def test_captions_that_all_name_an_object_need_no_word() -> None:
    assert said_of_silence(rows("A dog.", "A cat.")) is None
    assert not too_silent(rows("A dog.", "A cat."))


def test_empty_and_nameless_captions_are_counted_with_their_first_images() -> None:
    captions = rows("A dog.", "", " \n", "Ein Hund.", *["Nothing here."] * 6, *["A cat."] * 11)
    assert silent(captions) == ([12, 13], [14, 15, 16, 17, 18, 19, 20])
    said = said_of_silence(captions)
    assert said is not None
    assert "2 of 21 captions are empty (images 12, 13)" in said
    assert "7 of 21 captions name none of the 80 objects (images 14, 15, 16, 17, 18 ...)" in said
    assert said.endswith("no figure of CHAIR says anything of this run")


@pytest.mark.parametrize(("without", "expected"), [(1, False), (2, False), (3, True), (20, True)])
def test_more_than_a_tenth_is_too_silent(without: int, expected: bool) -> None:
    captions = rows(*[""] * without, *["A dog."] * (20 - without))
    assert too_silent(captions) is expected
    assert ("no figure" in (said_of_silence(captions) or "")) is expected
