from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmms_fixattn.scoring.repetition import looks_terminated, rep_n


@given(st.lists(st.sampled_from(["a", "B", "b", "dog."]), max_size=40), st.integers(1, 5))
def test_repetition_is_the_share_of_ngrams_seen_before(words: list[str], n: int) -> None:
    lowered = [word.lower() for word in words]
    seen = Counter(tuple(lowered[start : start + n]) for start in range(len(lowered) - n + 1))
    expected = sum(count - 1 for count in seen.values()) / sum(seen.values()) if seen else 0.0
    assert rep_n(" \n".join(words), n) == pytest.approx(expected)


def test_repetition_by_hand() -> None:
    assert rep_n("one two three") == 0
    assert rep_n("a dog. a dog. a dog.") == pytest.approx(1 - 2 / 3)
    assert rep_n("The cat sat down the CAT sat down") == pytest.approx(1 - 4 / 5)


@pytest.mark.parametrize("text", ["A dog.", "A dog!\n", "Is it? "])
def test_a_text_ends_with_a_closing_mark(text: str) -> None:
    assert looks_terminated(text)


@pytest.mark.parametrize("text", ["", " ", "A dog", "A dog,", "A dog. The", "1. A dog:"])
def test_a_text_without_one_was_cut(text: str) -> None:
    assert not looks_terminated(text)
