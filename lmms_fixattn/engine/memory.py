"""How many prompts fit into memory at once: an estimate to begin with, halved where it was too much."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from loguru import logger

Item = TypeVar("Item")
Answer = TypeVar("Answer")

MOST_ROWS = 64
"""The largest automatic batch on an accelerator: a step that has read the model's weights for so many rows is bound by
arithmetic, and a larger one gains little."""
ROWS_ON_CPU = 16
"""The automatic batch on a CPU, which is bound by arithmetic sooner, and whose memory others use too."""
_SHARE = 0.8
"""Of the free memory, what an estimate spends: the rest is for what batches leave to each other, and for the
allocator's fragments."""
_KEPT = 0.1
"""Of the free memory, what batches may leave to each other."""
_KEPT_ON_CPU = 1 << 30


class MemoryBudget:
    """The size of batches.

    Args:
        rows: prompts in a batch at most.
        positions: prompts times positions of the longest one, answer included, at most.

    Attributes:
        fitting: the same product at most from now on, because more of it ran out of memory.
        largest: the largest batch that was answered.
    """

    def __init__(self, rows: int, positions: float = math.inf) -> None:
        self.rows = rows
        self.positions = positions
        self.fitting = math.inf
        self.largest = 0

    def state(self) -> dict[str, float]:
        """Return what further batches depend on, for a journal."""
        return {"rows": self.rows, "positions": self.positions, "fitting": self.fitting, "largest": self.largest}

    def fits(self, rows: int, longest: int) -> bool:
        """Say whether so many prompts of up to so many positions may be planned as one batch."""
        return rows <= self.rows and rows * longest <= self.positions

    def answer(
        self, batch: Sequence[Item], longest: int, answer: Callable[[Sequence[Item]], list[Answer]]
    ) -> list[Answer]:
        """Answer a batch; on an out-of-memory error it is split in two and retried, and so are its halves.

        A batch that is as large as half of what ran out of memory before is halved without trying.

        Args:
            longest: positions of its longest prompt, answer included.

        Raises:
            Exception: whatever ``answer`` raises; running out of memory only for a batch of one.
        """
        if len(batch) == 1 or len(batch) * longest <= self.fitting:
            try:
                answers = answer(batch)
                self.largest = max(self.largest, len(batch))
                return answers
            except Exception as error:
                if len(batch) == 1 or not ran_out_of_memory(error):
                    raise
            # Only here is the error gone, and with it what the failed call held.
            clear_device_cache(garbage_collection=True)
            half = (len(batch) + 1) // 2
            self.fitting = min(self.fitting, half * longest)
            logger.warning(
                f"llava_fixattn: out of memory at {len(batch)} prompts of up to {longest} positions; the batch is "
                f"answered {half} at a time, and so are others as long"
            )
        half = (len(batch) + 1) // 2
        return [*self.answer(batch[:half], longest, answer), *self.answer(batch[half:], longest, answer)]


def ran_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that a smaller batch may work, on any device."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, Exception) and should_reduce_batch_size(error)
    )


def estimate(model: Any, most: int | None, branches: int = 1) -> MemoryBudget:
    """Estimate the largest batch that fits, from the free memory of the model's devices; nothing is run.

    A position takes its keys and values in every layer, the states and the widest activations of one layer at prefill,
    twice, and as much again for every further branch of a contrast.

    Args:
        model: a model with its weights loaded.
        most: prompts in a batch at most; None for MOST_ROWS, or ROWS_ON_CPU on a CPU.
        branches: rows that a prompt takes in a step: 2 for a method with a contrastive branch, times the beams.
    """
    devices = accelerators(model)
    if not devices:
        return MemoryBudget(most or ROWS_ON_CPU)
    text = model.config.get_text_config()
    size = model.get_input_embeddings().weight.element_size()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    cached = 2 * text.num_hidden_layers * text.num_key_value_heads * head * size / len(devices)
    passing = 2 * (3 * text.intermediate_size + 8 * text.hidden_size) * size
    free = min(_free(device) for device in devices)
    return MemoryBudget(most or MOST_ROWS, math.floor(_SHARE * free / ((cached + passing) * branches)))


def prefix_cache_budget(model: Any) -> int:
    """Return how many bytes batches may leave to each other, on all of the model's devices together."""
    devices = accelerators(model)
    return math.floor(_KEPT * sum(map(_free, devices))) if devices else _KEPT_ON_CPU


def accelerators(model: Any) -> set[torch.device]:
    """Return the CUDA devices that hold weights of a model; none on a CPU."""
    return {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}


def _free(device: torch.device) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
