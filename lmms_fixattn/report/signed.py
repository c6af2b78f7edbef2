"""Figures as a reader sees them: a true minus, and no minus before a nought."""

from __future__ import annotations

from lmms_fixattn.scoring.bootstrap import Interval


def figure(number: float) -> str:
    """Return a number with one decimal: 0.0 for -0.04, "−" for a minus."""
    return f"{round(number, 1) + 0.0:.1f}".replace("-", "−")


def signed(number: float) -> str:
    """Return a difference with one decimal and its sign; none for what rounds to 0.0."""
    rounded = round(number, 1) + 0.0
    return (f"{rounded:+.1f}" if rounded else "0.0").replace("-", "−")


def bounds(interval: Interval, sign: bool = False) -> str:
    """Return "[low, high]", or "" where there is no interval."""
    if interval.low is None or interval.high is None:
        return ""
    write = signed if sign else figure
    return f"[{write(interval.low)}, {write(interval.high)}]"
