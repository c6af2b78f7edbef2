"""Captions that say nothing of any object: CHAIR finds no fault in them, so they are counted aloud."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MOST = 0.1
"""Share of the captions from which on CHAIR is about their silence more than about what they say."""

_FIRST = 5


def silent(rows: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[int]]:
    """Return the images of the empty captions, and of those that hold text but name none of the 80 objects.

    rows: of scoring.chair.score_caption.
    """
    empty = [row["image_id"] for row in rows if not row["caption"].strip()]
    nameless = [row["image_id"] for row in rows if row["caption"].strip() and not row["objects"]]
    return empty, nameless


def too_silent(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether more than MOST of the captions name no object, empty ones included: too many for a verdict."""
    return sum(map(len, silent(rows))) > MOST * len(rows)


def said_of_silence(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Return what a reader has to know of captions that are empty or name no object; None where there are none."""
    parts = [
        f"{len(ids)} of {len(rows)} captions {what} (image{'s' * (len(ids) > 1)} {_listed(ids)})"
        for ids, what in zip(silent(rows), ("are empty", "name none of the 80 objects"), strict=True)
        if ids
    ]
    if not parts:
        return None
    much = ", so many that no figure of CHAIR says anything of this run" if too_silent(rows) else ""
    return f"careful: {' and '.join(parts)}; CHAIR takes such captions for free of hallucination{much}"


def _listed(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids[:_FIRST])) + (" ..." if len(ids) > _FIRST else "")
