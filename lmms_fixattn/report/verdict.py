"""Say in words what the intervals of a run say."""

from __future__ import annotations

from collections.abc import Mapping

from lmms_fixattn.metrics.bootstrap import Interval
from lmms_fixattn.metrics.truncation import Truncation


def verdict(
    columns: Mapping[str, Interval],
    differences: Mapping[str, Interval],
    beyond: Truncation | None,
    is_baseline: bool,
) -> str:
    """Return what the intervals say."""
    return "the baseline" if is_baseline else ""
