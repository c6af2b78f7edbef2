"""Time answers, several ways of answering in turns, and compare the times round by round."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from transformers import StoppingCriteria

from lmms_fixattn.bench.limit import synchronize

Rounds = Callable[[Sequence[int]], Iterable[int]]
"""Yields the numbers of the rounds, behind a progress bar for instance."""
Part = Literal["prefill", "step"]


@dataclass(frozen=True)
class Times:
    """What one way of answering took in one round."""

    prefill: float
    """Seconds to the first token: the vision tower, the prompt, the choice."""
    step: float
    """Seconds of a later token: the median over an answer."""
    peak: int | None
    """Bytes of accelerator memory at the worst moment, weights included; None on a CPU, where a process's size also
    holds what the allocator keeps of earlier rounds."""
    compilations: int
    """Graphs that were compiled meanwhile, whose seconds are in the times."""

    def seconds(self, part: Part) -> float:
        """Return the seconds of a part."""
        return self.prefill if part == "prefill" else self.step


class TokenTimer(StoppingCriteria):  # type: ignore[misc]
    """A stopping criterion that stops nothing, and notes when each token was there."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: object, **kwargs: object) -> torch.Tensor:
        synchronize(self.device)
        self.times.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def time_answer(answer: Callable[[TokenTimer], object], device: torch.device) -> Times:
    """Time the first token of a call, and each later one.

    Args:
        answer: generates, with these marks among the stopping criteria.

    Raises:
        ValueError: the answers end with their first token.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    marks, graphs = TokenTimer(device), compiled_graphs()
    synchronize(device)
    start = time.perf_counter()
    answer(marks)
    if len(marks.times) < 2:
        raise ValueError("expected tokens after the first, got none: there is no decode step to time")
    steps = [later - earlier for earlier, later in pairwise(marks.times)]
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return Times(marks.times[0] - start, statistics.median(steps), peak, compiled_graphs() - graphs)


def interleave(
    ways: Mapping[str, Callable[[], Times]], rounds: int, warm_up: int = 1, progress: Rounds = iter
) -> dict[str, list[Times]]:
    """Run every way once a round, in random order, so that a noisy neighbour hits all alike.

    Returns:
        Of every way, its times in each of ``rounds`` rounds, which follow ``warm_up`` rounds that do not count.
    """
    times: dict[str, list[Times]] = {name: [] for name in ways}
    for number in progress(range(warm_up + rounds)):
        for name in random.Random(number).sample(list(ways), len(ways)):
            taken = ways[name]()
            if number >= warm_up:
                times[name].append(taken)
    return times


def ratio(mine: Sequence[Times], other: Sequence[Times], part: Part) -> float:
    """Return the median over rounds of my time divided by the other's in the same round."""
    return statistics.median(m.seconds(part) / o.seconds(part) for m, o in zip(mine, other, strict=True))


def median(times: Sequence[Times], part: Part) -> float:
    """Return the median over rounds of a part's seconds."""
    return statistics.median(taken.seconds(part) for taken in times)


def compiled_graphs() -> int:
    """Return how many graphs torch has compiled so far."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])
