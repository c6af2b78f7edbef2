"""Products of parameters of which the unit tests run a part, and the system tests all."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from typing import Any

import pytest


def in_the_system_run(rows: Iterable[Any], *, but: Iterable[Any]) -> list[Any]:
    """Return parametrize's rows, all but some of them marked system."""
    rows, few = list(rows), list(but)
    assert all(row in rows for row in few), "the few must be among all"
    return [row if row in few else pytest.param(*_columns(row), marks=pytest.mark.system) for row in rows]


def covering(*columns: Collection[Any]) -> list[Any]:
    """Return the product of columns, of which the unit tests run a diagonal: every value of each column, with another
    of the next in turn.
    """
    diagonal = (
        tuple(list(column)[place % len(column)] for column in columns) for place in range(max(map(len, columns)))
    )
    return in_the_system_run(itertools.product(*columns), but=diagonal)


def _columns(row: Any) -> tuple[Any, ...]:
    return row if isinstance(row, tuple) else (row,)
