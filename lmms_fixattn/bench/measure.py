"""Measure methods beside the unmodified model and the released-style loop, in one interleaved run a batch size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig

from lmms_fixattn.bench import released
from lmms_fixattn.bench.clock import Times, Turns, interleave, median, ratio, time_answer
from lmms_fixattn.bench.limit import mean_keys, step_bytes
from lmms_fixattn.bench.workload import Workload
from lmms_fixattn.engine.compiled_decode import FixedSteps, generate_growing
from lmms_fixattn.engine.intervention import intervene
from lmms_fixattn.methods import Method
from lmms_fixattn.methods.base import share_of_layers

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
    generating = plan.generating()
    blocks = {**methods, AGAIN: methods[VANILLA]}
    ways: dict[str, Callable[[], Times]] = {}
    for label, method in blocks.items():
        answer = partial(answer_greedily, generating, workload.model, inputs, 1 + plan.new_tokens)
        block = partial(intervene, workload.model, method, workload.tokenizer)
        ways[label] = _way(block, answer, workload.model.device)
    if plan.released:
        single = workload.prompts(1)
        start = share_of_layers((2, None), workload.model.config.get_text_config().num_hidden_layers)[0]
        for refines, name in released.NAMES.items():
            loop = released.ReleasedLoop(workload.model, gamma=1.1 if refines else 1, start=start)
            ways[name] = _way(loop.installed, partial(loop.answer, single, 1 + plan.new_tokens), workload.model.device)
    times = interleave(ways, plan.rounds, plan.warm_up, progress)
    keys = mean_keys(prompt, plan.new_tokens)
    rows = []
    for label, mine in times.items():
        own = blocks.get(label)  # None: a released-style loop
        size = 1 if own is None else batch
        beside = times[VANILLA] if size == batch else None
        rival = released.NAMES[_branches(own)] if own is not None and plan.released else None
        rows.append(
            {
                "method": label,
                "settings": {} if own is None else own.settings(),
                "batch": size,
                **_figures(mine, size, beside, step_bytes(workload.model, size, keys) / bandwidth),
                "rival": rival,
                "speedup": None if rival is None else size / ratio(mine, times[rival], "step"),
                "compilations": sum(taken.compilations for taken in mine),
                "seconds": {
                    "prefill": [taken.prefill for taken in mine],
                    "step": [taken.step for taken in mine],
                },
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


def _branches(method: Method) -> bool:
    return any(part.branch is not None for part in method.parts)


def _way(
    block: Callable[[], AbstractContextManager[Any]],
    answer: Callable[..., torch.Tensor],
    device: torch.device,
) -> Callable[[], Times]:
    def run() -> Times:
        with block():
            return time_answer(lambda marks: answer(stopping_criteria=[marks]), device)

    return run


def _figures(mine: list[Times], rows: int, vanilla: list[Times] | None, least: float) -> dict[str, float | None]:
    step = median(mine, "step")
    peaks = [taken.peak for taken in mine if taken.peak is not None]
    return {
        "prefill_ms": 1000 * median(mine, "prefill"),
        "step_ms": 1000 * step,
        "tokens_per_second": rows / step,
        "peak_gib": max(peaks) / 2**30 if peaks else None,
        "prefill_ratio": None if vanilla is None else ratio(mine, vanilla, "prefill"),
        "step_ratio": None if vanilla is None else ratio(mine, vanilla, "step"),
        "bandwidth_share": least / step,
    }
