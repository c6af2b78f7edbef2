"""Sink tokens: positions that draw attention and carry nothing, told by a few massive dimensions of their state.

The dimensions are a model's own and the same for all its sinks, of which the beginning-of-sequence token is one
(Massive Activations, arXiv:2402.17762; for images, VAR, arXiv:2503.03321). ``inspection/sinks.py`` finds them.
"""

from __future__ import annotations

import torch


def relative_size(hidden: torch.Tensor) -> torch.Tensor:
    """Return |x| / sqrt(mean of x^2 + 1e-6) over the last dimension, float32."""
    x = hidden.float()
    return (x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-6)).abs()
