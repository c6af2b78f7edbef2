"""Measure methods beside the unmodified model and the released-style loop, in one interleaved run a batch size."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
from transformers import GenerationConfig, StoppingCriteria

from lmms_fixattn.bench import released
from lmms_fixattn.bench.limit import step_bytes, synchronize
from lmms_fixattn.bench.workload import Workload
from lmms_fixattn.engine.compiled_decode import FixedSteps, generate_growing
from lmms_fixattn.engine.intervention import intervene
from lmms_fixattn.methods import Method
from lmms_fixattn.methods.base import share_of_layers

Turn = tuple[int, str]
Turns = Callable[[Sequence[Turn]], Iterable[Turn]]
"""Yields the turns, (number of the round, which way), behind a progress bar for instance."""
Part = Literal["prefill", "step"]
VANILLA, AGAIN = "vanilla", "vanilla again"
"""The unmodified model, and the same measured once more: the noise."""
Generating = Callable[..., Any]
"""Generates, given a model, its inputs and settings, and further arguments of ``generate``."""


@dataclass(frozen=True)
class Timing:
    """How to measure: the same for every method.

    Args:
        new_tokens: decode steps of an answer, whose median is a step's time.
        rounds: how often everything is measured, after a round that warms up.
        static: use a cache of fixed size.
        compiled: compile the decode step, which needs ``static``.
        released: measure the released-style loops as well.

    Raises:
        ValueError: compiled without static.
    """

    new_tokens: int = 32
    rounds: int = 5
    static: bool = False
    compiled: bool = False
    released: bool = True

    def __post_init__(self) -> None:
        if self.compiled and not self.static:
            raise ValueError("a compiled decode step needs the static cache: use both, or none")

    def __str__(self) -> str:
        cache = "static cache, compiled" if self.compiled else "static cache" if self.static else "growing cache"
        return f"{cache}, {self.rounds} rounds of {self.new_tokens} decode steps"

    @property
    def warm_up(self) -> int:
        """Rounds before those that count; compilation specialises on what changes, and needs some to see it."""
        return 3 if self.compiled else 1

    def generating(self) -> Generating:
        """Return what generates in this way, given a model, inputs and settings, as the lmms-eval model does."""
        return FixedSteps(self.compiled).generate if self.static else generate_growing


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
    marks, counted = TokenTimer(device), torch._dynamo.utils.counters["stats"]
    graphs = counted["unique_graphs"]
    synchronize(device)
    start = time.perf_counter()
    answer(marks)
    if len(marks.times) < 2:
        raise ValueError("expected tokens after the first, got none: there is no decode step to time")
    steps = [later - earlier for earlier, later in pairwise(marks.times)]
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return Times(marks.times[0] - start, statistics.median(steps), peak, counted["unique_graphs"] - graphs)


def interleave(
    ways: Mapping[str, Callable[[], Times]], rounds: int, warm_up: int = 1, progress: Turns = iter
) -> dict[str, list[Times]]:
    """Run every way once a round, in random order, so that a noisy neighbour hits all alike.

    Returns:
        Of every way, its times in each of ``rounds`` rounds, which follow ``warm_up`` rounds that do not count.
    """
    times: dict[str, list[Times]] = {name: [] for name in ways}
    turns = [
        (number, name)
        for number in range(warm_up + rounds)
        for name in random.Random(number).sample(list(ways), len(ways))
    ]
    for number, name in progress(turns):
        taken = ways[name]()
        if number >= warm_up:
            times[name].append(taken)
    return times


def ratio(mine: Sequence[Times], other: Sequence[Times], part: Part) -> float:
    """Return the median over rounds of my time divided by the other's in the same round."""
    return float(statistics.median(getattr(m, part) / getattr(o, part) for m, o in zip(mine, other, strict=True)))


def median(times: Sequence[Times], part: Part) -> float:
    """Return the median over rounds of a part's seconds."""
    return float(statistics.median(getattr(taken, part) for taken in times))


def measure(
    workload: Workload,
    methods: Mapping[str, Method],
    batch: int,
    plan: Timing,
    bandwidth: float,
    progress: Turns = iter,
) -> list[dict[str, Any]]:
    """Measure every method at one batch size, through ``generate``.

    Args:
        methods: by label; "vanilla" must be among them.
        bandwidth: bytes a second, see :func:`lmms_fixattn.bench.limit.measure_bandwidth`.

    Returns:
        A row a method, a second one of the unmodified model, and one a released-style loop, whose batch is 1. Ratios
        are medians over rounds of ratios in a round:

        - ``prefill_ms``, ``step_ms``, ``tokens_per_second`` (of decode, all prompts together), ``peak_gib``;
        - ``prefill_ratio``, ``step_ratio``: times the unmodified model's; None for a loop beside a larger batch;
        - ``speedup``: tokens a second over those of the released-style loop named in ``rival``, which has as many
          forward passes a token;
        - ``bandwidth_share``: the least time that the unmodified model's reads take, over the step's time;
        - ``compilations``: graphs compiled in the rounds that count; if there are any, the times hold them;
        - ``seconds``: the times themselves, a number a round.

    Raises:
        ValueError: prompt and answer are longer than the model's positions, or what a method refuses.
    """
    inputs = workload.prompts(batch)
    prompt = inputs["input_ids"].shape[1]
    positions = workload.model.config.get_text_config().max_position_embeddings
    if prompt + plan.new_tokens + 1 > positions:
        raise ValueError(
            f"a prompt of {prompt} tokens leaves room for {positions - prompt - 1} decode steps, not {plan.new_tokens}"
        )
    model, tokens = workload.model, 1 + plan.new_tokens
    answer = partial(answer_greedily, plan.generating(), model, inputs, tokens)
    blocks = {**methods, AGAIN: methods[VANILLA]}
    ways = {
        label: _way(partial(intervene, model, method, workload.tokenizer), answer, model.device)
        for label, method in blocks.items()
    }
    if plan.released:
        single = workload.prompts(1)
        start = share_of_layers((2, None), model.config.get_text_config().num_hidden_layers)[0]
        for refines, name in released.NAMES.items():
            loop = released.ReleasedLoop(model, gamma=1.1 if refines else 1, start=start)
            ways[name] = _way(loop.installed, partial(loop.answer, single, tokens), model.device)
    times = interleave(ways, plan.rounds, plan.warm_up, progress)
    keys = prompt + (plan.new_tokens + 1) / 2  # that a step attends to, its own included, on average
    rows = []
    for label, mine in times.items():
        own = blocks.get(label)  # None: a released-style loop
        size = 1 if own is None else batch
        step, peaks = median(mine, "step"), [taken.peak for taken in mine if taken.peak is not None]
        beside = times[VANILLA] if size == batch else None
        refines = own is not None and any(part.branch is not None for part in own.parts)
        rival = released.NAMES[refines] if own is not None and plan.released else None
        rows.append(
            {
                "method": label,
                "settings": {} if own is None else own.settings(),
                "batch": size,
                "prefill_ms": 1000 * median(mine, "prefill"),
                "step_ms": 1000 * step,
                "tokens_per_second": size / step,
                "peak_gib": max(peaks) / 2**30 if peaks else None,
                "prefill_ratio": None if beside is None else ratio(mine, beside, "prefill"),
                "step_ratio": None if beside is None else ratio(mine, beside, "step"),
                "bandwidth_share": step_bytes(model, size, keys) / bandwidth / step,
                "rival": rival,
                "speedup": None if rival is None else size / ratio(mine, times[rival], "step"),
                "compilations": sum(taken.compilations for taken in mine),
                "seconds": {part: [getattr(taken, part) for taken in mine] for part in ("prefill", "step")},
            }
        )
    return rows


def answer_greedily(
    generating: Generating, model: Any, inputs: Mapping[str, torch.Tensor], tokens: int, **others: Any
) -> torch.Tensor:
    """Answer with exactly so many tokens, unless the method ends answers or chooses tokens otherwise."""
    special = {key: getattr(model.generation_config, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = GenerationConfig(do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens, **special)
    with torch.inference_mode():
        sequences: torch.Tensor = generating(model, inputs, config, **others)
    return sequences


def _way(
    block: Callable[[], AbstractContextManager[Any]], answer: Callable[..., torch.Tensor], device: torch.device
) -> Callable[[], Times]:
    def run() -> Times:
        with block():
            return time_answer(lambda marks: answer(stopping_criteria=[marks]), device)

    return run
