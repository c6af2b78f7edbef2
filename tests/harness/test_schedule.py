"""Batches: nothing lost, nothing mixed, longest first, one picture's questions together; and reading ahead."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lmms_fixattn.engine.memory import MemoryBudget
from lmms_fixattn.harness.schedule import RequestShape, pictures_of, plan, prefetch, with_encoded_images

OUTLINES = st.lists(
    st.builds(
        RequestShape,
        st.sampled_from(["greedy", "warm"]),
        st.integers(1, 30),
        st.lists(st.sampled_from(["a", "b", "c", None]), max_size=2).map(tuple),
    ),
    max_size=30,
)


@given(OUTLINES, st.integers(1, 7), st.integers(30, 200))
def test_every_request_is_in_one_batch_of_its_settings_that_the_room_takes(
    outlines: list[RequestShape], rows: int, positions: int
) -> None:
    batches = plan(outlines, MemoryBudget(rows, positions))
    assert sorted(index for batch in batches for index in batch) == list(range(len(outlines)))
    for batch in batches:
        assert len({outlines[index].settings for index in batch}) == 1
        assert 1 <= len(batch) <= rows
        assert len(batch) * max(outlines[index].positions for index in batch) <= positions


@given(OUTLINES)
def test_requests_about_the_same_pictures_are_neighbours_and_their_longest_come_first(
    outlines: list[RequestShape],
) -> None:
    for batch in plan(outlines, MemoryBudget(99)):
        seen: list[object] = []
        for index in batch:
            pictures = outlines[index].pictures
            about = pictures if pictures and None not in pictures else index
            if about not in seen:
                seen.append(about)
            assert about == seen[-1], "a picture came up again after another"
        longest = [
            max(outlines[index].positions for index in batch if about in (outlines[index].pictures, index))
            for about in seen
        ]
        assert longest == sorted(longest, reverse=True)


def test_texts_alone_go_longest_first() -> None:
    outlines = [RequestShape("greedy", positions, ()) for positions in (3, 11, 7, 11, 5)]
    assert plan(outlines, MemoryBudget(2)) == [[1, 3], [2, 4], [0]]


def test_reading_ahead_keeps_the_order_and_never_reads_more_than_its_bound() -> None:
    begun: list[int] = []
    caller = threading.get_ident()

    def read(item: int) -> tuple[int, bool]:
        begun.append(item)
        return 10 * item, threading.get_ident() == caller

    for place, (value, here) in enumerate(prefetch(read, range(9), most=2)):
        time.sleep(0.01)  # in which too much could be read; that nothing was cannot depend on it
        assert (value, here) == (10 * place, False)
        assert len(begun) <= place + 1 + 2
    assert begun == list(range(9))


def test_an_error_in_reading_ahead_is_raised_at_its_items_turn() -> None:
    def read(item: int) -> int:
        if item == 2:
            raise OSError("broken")
        return item

    stream = prefetch(read, range(5))
    assert (next(stream), next(stream)) == (0, 1)
    with pytest.raises(OSError, match="broken"):
        next(stream)


def test_reading_ahead_that_is_ended_early_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    stream = prefetch(lambda item: item, range(100))
    assert next(stream) == 0
    stream.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) <= before


def test_pictures_are_told_apart_by_files_and_bytes_and_not_opened(tmp_path: Path) -> None:
    data = b"never decoded"
    digest = pictures_of(data)
    assert len(digest) == 1
    assert pictures_of({"image": "a/b.JPG", "question": "Is there a dog?", "n": 3}) == ("a/b.JPG",)
    assert pictures_of({"image": {"bytes": data, "path": None}}) == digest
    assert pictures_of({"image": {"bytes": None, "path": "x.png"}}) == ("x.png",)
    assert pictures_of({"images": ["1.png", "2.png"], "text": "3.txt"}) == ("1.png", "2.png")
    assert pictures_of({"pictures": [Image.new("RGB", (3, 2))]}) == (None,)
    assert pictures_of({"text": "Hi", "label": None}) == ()


def test_a_dataset_hands_over_its_pictures_undecoded() -> None:
    stored = io.BytesIO()
    Image.new("RGB", (5, 3), "red").save(stored, "PNG")
    rows = {"picture": [{"bytes": stored.getvalue(), "path": None}] * 2, "text": ["a", "b"]}
    features = datasets.Features({"picture": datasets.Image(), "text": datasets.Value("string")})
    documents = datasets.Dataset.from_dict(rows, features=features)
    assert isinstance(documents[0]["picture"], Image.Image)
    assert pictures_of(with_encoded_images(documents)[1]) == pictures_of(stored.getvalue())
    assert isinstance(documents[0]["picture"], Image.Image)
    assert with_encoded_images([1, 2]) == [1, 2]
