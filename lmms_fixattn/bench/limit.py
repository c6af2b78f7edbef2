"""The memory-bandwidth limit: what a decode step must read, and how fast this machine reads.

A decode step at small batch waits for memory: it reads every weight of the text model once, whatever the batch, and
every prompt's keys and values. ``bytes / bandwidth`` bounds its time from below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.benchmark import Timer

from lmms_fixattn.models.family import text_model

_REPEATS = 5


def synchronize(device: torch.device) -> None:
    """Wait for what was asked of an accelerator; a CPU has done it."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def step_bytes(model: Any, rows: int, keys: float) -> float:
    """Return the bytes that a decode step of the unmodified model reads.

    ``weights + rows * bytes a number * (hidden size + 2 * keys * layers * key heads * head size)``: the weights of the
    decoder layers, the last norm and the output layer, one embedding a prompt, and the keys and values of ``keys``
    positions, the new one included.
    """
    text = text_model(model)
    read = [*text.layers.parameters(), *text.norm.parameters(), *model.lm_head.parameters()]
    weights = sum(parameter.nbytes for parameter in read)
    config, size = model.config.get_text_config(), text.embed_tokens.weight.element_size()
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cached = 2 * keys * config.num_hidden_layers * config.num_key_value_heads * head
    return float(weights + rows * size * (config.hidden_size + cached))


def measure_bandwidth(device: torch.device, size: int | None = None) -> dict[str, float]:
    """Measure how many bytes a second the device moves: the best of a few large copies, and of a few large sums.

    Args:
        size: bytes of the tensor, far more than any cache holds (default: 256 MiB on a CPU, 2 GiB elsewhere).

    Returns:
        ``copy`` (counted twice, read and written), ``read``, and ``limit``, the larger of the two.
    """
    size = size or (256 << 20 if device.type == "cpu" else 2 << 30)
    source = torch.ones(size // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    copy = 2 * size / _best(lambda: target.copy_(source))
    read = size / _best(source.sum)
    return {"copy": copy, "read": read, "limit": max(copy, read)}


def _best(run: Callable[[], Any]) -> float:
    timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
    return min(timer.timeit(1).mean for _ in range(_REPEATS))  # each runs it twice beforehand, and waits for it
