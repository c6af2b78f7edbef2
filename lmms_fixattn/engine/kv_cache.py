"""The caches that answers are generated on: a growing one that copies nothing in a step, and one of fixed length."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache, StaticCache

from lmms_fixattn.models.transformers_api import DynamicLayer, length_of

_ROOM = 128
"""Positions that a growing layer grows by, whose earlier ones are copied once for so many steps; the length of a cache
of fixed length is a multiple of it, so that it serves answers of about the same length."""


class ReservedLayer(DynamicLayer):  # type: ignore[misc]
    """transformers' growing layer with the same keys and values, as views of buffers that have room behind them."""

    keys: torch.Tensor
    values: torch.Tensor
    _buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Append new keys and values, [rows, key heads, new, head size]; return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        length = before + key_states.shape[-2]
        if not self._fits(length):
            self._buffers = tuple(
                _with_room(kept, new, before, length)
                for kept, new in ((self.keys, key_states), (self.values, value_states))
            )  # type: ignore[assignment]
        keys, values = self._buffers  # type: ignore[misc]
        keys[:, :, before:length] = key_states
        values[:, :, before:length] = value_states
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]
        return self.keys, self.values

    def _fits(self, length: int) -> bool:
        """Say whether the buffers have room, and still hold the layer's keys: beams and others put new ones there."""
        if self._buffers is None or not self.get_seq_length():
            return False
        same = all(
            buffer.data_ptr() == kept.data_ptr() and len(buffer) == len(kept)
            for buffer, kept in zip(self._buffers, (self.keys, self.values), strict=True)
        )
        return same and length <= self._buffers[0].shape[-2]


def reserved_cache(config: Any) -> DynamicCache:
    """Return an empty cache for this text model; layers of another kind (sliding windows) are transformers' own."""
    cache = DynamicCache(config=config)
    cache.layers = [ReservedLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class FixedCache(StaticCache):  # type: ignore[misc]
    """transformers' cache of fixed length, for one answer after another.

    Attributes:
        needed: the positions that the running answer may take; the cache may have more.
        beside: the cache of the answers' contrastive branch.
        position: in such a branch's cache, where the positions of its newest tokens are kept, int64 [rows, 1].
    """

    beside: FixedCache | None = None
    position: torch.Tensor | None = None

    def __init__(self, config: Any, needed: int) -> None:
        super().__init__(config=config, max_cache_len=-(-needed // _ROOM) * _ROOM)
        self.needed = needed


def fixed_cache(config: Any, rows: int, needed: int, earlier: Any = None) -> FixedCache:
    """Return an empty cache of fixed length for this text model.

    Args:
        rows, needed: what it has to hold.
        earlier: a cache that is no longer needed. If it is large enough it is emptied and returned, since a step was
            compiled for its shape and recorded for the addresses of its buffers.
    """
    if isinstance(earlier, FixedCache):
        layer = earlier.layers[0]
        if layer.is_initialized and len(layer.keys) == rows and needed <= (length_of(earlier) or 0):
            earlier.reset()
            earlier.needed = needed
            return earlier
    return FixedCache(config, needed)


def _with_room(kept: torch.Tensor, new: torch.Tensor, before: int, length: int) -> torch.Tensor:
    rows, heads, _, size = new.shape
    buffer = new.new_empty(rows, heads, length + _ROOM, size)
    if before:
        buffer[:, :, :before] = kept
    return buffer
