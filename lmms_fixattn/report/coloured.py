"""A caption cut into plain text and mentions of objects, each supported by the image's truth or not."""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

from lmms_fixattn.scoring.chair import Analyser


class Segment(NamedTuple):
    """A stretch of a caption; object and supported are None where it mentions nothing."""

    text: str
    object: str | None = None
    supported: bool | None = None


def segments(caption: str, truth: Set[str], analyser: Analyser) -> list[Segment]:
    """Return the segments of a caption in order; their texts joined are the caption, and none is empty.

    The mentions are those that CHAIR counts, and unsupported are those that it counts as hallucinated.
    """
    found: list[Segment] = []
    at = 0
    for name, start, end in analyser.located(caption):
        if at < start:
            found.append(Segment(caption[at:start]))
        found.append(Segment(caption[start:end], name, name in truth))
        at = end
    if at < len(caption):
        found.append(Segment(caption[at:]))
    return found
