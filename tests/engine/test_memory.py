"""Batches that memory allows: halves of what was too much, in order, each prompt answered once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from memory_errors import TOO_MUCH
from tiny_llava import build_llava

from lmms_fixattn.engine import memory
from lmms_fixattn.engine.memory import Room, estimate, ran_out_of_memory


@pytest.fixture(autouse=True, scope="module")
def freed() -> Iterator[list[bool]]:
    """A list that grows with every time memory is freed, which would collect all garbage each time."""
    times: list[bool] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "clear_device_cache", lambda garbage_collection: times.append(garbage_collection))
        yield times


class Device:
    """Answers batches of up to so many positions in all; notes what it was given."""

    def __init__(self, positions: int, longest: int, error: Exception = TOO_MUCH[0]) -> None:
        self.positions, self.longest, self.error = positions, longest, error
        self.tried: list[int] = []

    def __call__(self, batch: Sequence[int]) -> list[str]:
        self.tried.append(len(batch))
        if len(batch) * self.longest > self.positions:
            raise self.error
        return [f"answer {item}" for item in batch]


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 1500))
def test_every_prompt_is_answered_in_order_or_one_alone_is_too_large(rows: int, longest: int, positions: int) -> None:
    device, batch = Device(positions, longest), list(range(rows))
    if longest > positions:
        with pytest.raises(torch.OutOfMemoryError):
            Room(rows).answer(batch, longest, device)
        assert device.tried[-1] == 1
        return
    room = Room(rows)
    assert room.answer(batch, longest, device) == [f"answer {item}" for item in batch]
    assert room.largest * longest <= positions
    assert sum(size for size in device.tried if size * longest <= positions) == rows


@pytest.mark.parametrize("error", TOO_MUCH)
def test_what_was_too_much_once_is_not_tried_again_for_prompts_as_long(error: Exception, freed: list[bool]) -> None:
    room, device = Room(16), Device(100, 10, error)
    freed.clear()
    room.answer(range(16), 10, device)
    assert device.tried == [16, 8, 8]
    assert freed == [True]
    device.tried.clear()
    room.answer(range(16), 10, device)
    assert device.tried == [8, 8]
    shorter = Device(100, 5)
    room.answer(range(16), 5, shorter)
    assert shorter.tried == [16]


def test_a_further_room_with_the_same_state_splits_as_the_first_did() -> None:
    first, device = Room(16), Device(70, 10)
    first.answer(range(16), 10, device)
    state = first.state()
    again = Room(int(state["rows"]), state["positions"])
    again.fitting = state["fitting"]
    tried = []
    for room in (first, again):
        device.tried.clear()
        room.answer(range(13), 10, device)
        tried.append(list(device.tried))
    assert tried[0] == tried[1] == [7, 6] or tried[0] == tried[1] == [4, 3, 3, 3]


@pytest.mark.parametrize("error", [ValueError("out of memory."), RuntimeError("shapes differ"), KeyError("x")])
def test_other_errors_are_not_tried_again(error: Exception) -> None:
    assert not ran_out_of_memory(error)
    device = Device(0, 1, error)
    with pytest.raises(type(error)):
        Room(8).answer(range(8), 1, device)
    assert device.tried == [8]


def test_a_plan_is_bounded_by_rows_and_by_positions() -> None:
    assert Room(3).takes(3, 10**9)
    assert not Room(3).takes(4, 1)
    assert Room(99, 70).takes(7, 10)
    assert not Room(99, 70).takes(7, 11)


def test_an_automatic_batch_on_a_cpu_is_a_bounded_default() -> None:
    model = build_llava()
    assert (estimate(model, None).rows, estimate(model, None).positions) == (memory.ROWS_ON_CPU, math.inf)
    assert estimate(model, 5).rows == 5


def test_an_automatic_batch_on_a_gpu_is_what_a_hand_count_says(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_llava(key_heads=3)

    class OnGpu:
        config, get_input_embeddings = model.config, model.get_input_embeddings

        @staticmethod
        def parameters() -> Any:
            return [torch.nn.Parameter(torch.empty(1, device="meta")), _Parameter()]

    class _Parameter:
        device = torch.device("cuda:0")

    monkeypatch.setattr(memory, "_free", lambda device: 1_000_000)
    cached = 2 * 5 * 3 * 14 * 4  # keys and values, layers, key heads, head size, bytes
    passing = 2 * (3 * 31 + 8 * 42) * 4
    assert estimate(OnGpu, None).positions == math.floor(800_000 / (cached + passing))
    assert estimate(OnGpu, 7, branches=2).positions == math.floor(800_000 / (2 * (cached + passing)))
    assert (estimate(OnGpu, None).rows, estimate(OnGpu, 7).rows) == (memory.MOST_ROWS, 7)
