"""Keep what was used recently, within a bound of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class RecentlyUsed(Generic[Value]):
    """Values by key, of which the longest unused ones go when the bound is passed.

    Args:
        most: bytes to hold at most; a value larger than that is not kept at all.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable) -> Value | None:
        """Return the value of a key, which counts as a use; None if it is not here."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Keep a value of ``size`` bytes, in place of the key's earlier one."""
        if key in self._values:
            self.held -= self._values.pop(key)[1]
        if size > self.most:
            return
        self._values[key] = value, size
        self.held += size
        while self.held > self.most:
            self.held -= self._values.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Let go of everything."""
        self._values.clear()
        self.held = 0
