"""Draw conversations side by side, with supported and unsupported objects coloured."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lmms_fixattn.inspection.answers import Conversation, Turn
from lmms_fixattn.inspection.canvas import BLUE, VERMILION
from lmms_fixattn.report.coloured import Segment

# Text is set in points, in a font whose characters are equally wide: where a stretch starts is known without drawing.
_SIZE, _LINE, _ADVANCE = 9.0, 13.0, 0.602 * 9.0
_COLUMN, _GUTTER, _MARGIN, _SIDE = 46, 22.0, 16.0, 190.0
_ACROSS = 3
_BACKGROUND = {BLUE: "#DCEBF7", VERMILION: "#FBE1D2"}


def draw_answers(conversations: Sequence[Conversation], picture: np.ndarray, truth: Set[str]) -> Figure:
    """Draw the picture and what it shows, and beside it a column a method: question by question, answers with marks.

    What the picture bears out is blue, what it does not is red and bold. More than _ACROSS methods stand in several
    rows of columns, each with the questions.
    """
    down = -(-len(conversations) // _ACROSS)
    across = -(-len(conversations) // down)
    blocks = [conversations[start : start + across] for start in range(0, len(conversations), across)]
    wide = int(across * _COLUMN + (across - 1) * _GUTTER / _ADVANCE)
    width = _MARGIN * 2 + _SIDE + across * (_COLUMN * _ADVANCE + _GUTTER)
    shows = "shows: " + (", ".join(sorted(truth)) or "none of COCO's 80 objects")
    side = _wrap(shows, int(_SIDE / _ADVANCE))
    body = sum(_lines(block, wide) for block in blocks)
    height = 2 * _MARGIN + max((2 + body) * _LINE, _SIDE + (4 + len(side)) * _LINE)
    page = _Page(width, height)

    left, top = _MARGIN, _MARGIN + 2 * _LINE
    page.write(_MARGIN, _MARGIN, "What the picture bears out, and what it does not", weight="bold")
    axes = page.figure.add_axes((left / width, 1 - (top + _SIDE) / height, _SIDE / width, _SIDE / height))
    axes.imshow(picture)
    axes.set_axis_off()
    page.paragraph(left, top + _SIDE + _LINE / 2, [Segment(shows)], int(_SIDE / _ADVANCE))
    key = top + _SIDE + (len(side) + 1) * _LINE
    page.stretch(left, key, "supported", BLUE)
    page.stretch(left + 10 * _ADVANCE, key, "not supported", VERMILION)

    start, y = left + _SIDE + _GUTTER, top
    for block in blocks:
        columns = [start + index * (_COLUMN * _ADVANCE + _GUTTER) for index in range(len(block))]
        labels = [[Segment(conversation.label)] for conversation in block]
        y = max(page.paragraph(x, y, label, _COLUMN, weight="bold") for x, label in zip(columns, labels, strict=True))
        y += _LINE / 2
        for turn in _turns(block):
            y = page.paragraph(start, y, [Segment(turn[0].question)], wide, style="italic")
            y = (
                max(page.paragraph(x, y, _said(answer), _COLUMN) for x, answer in zip(columns, turn, strict=True))
                + _LINE
            )
        y += _LINE / 2
    return page.figure


def _turns(block: Sequence[Conversation]) -> list[tuple[Turn, ...]]:
    return list(zip(*(conversation.turns for conversation in block), strict=True))


def _lines(block: Sequence[Conversation], wide: int) -> int:
    """Return how many lines a row of columns takes, with the room around it."""
    turns = sum(
        len(_wrap(turn[0].question, wide)) + max(len(_wrap(_text(_said(answer)), _COLUMN)) for answer in turn) + 1
        for turn in _turns(block)
    )
    return 1 + max(len(_wrap(conversation.label, _COLUMN)) for conversation in block) + turns


def _said(turn: Turn) -> list[Segment]:
    end = [] if turn.terminated else [Segment(" [cut at the token cap]")]
    return [*(turn.answer if turn.text else [Segment("(nothing)")]), *end]


def _text(segments: Sequence[Segment]) -> str:
    return "".join(segment.text for segment in segments)


class _Page:
    """A figure that is written on in points from its top left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / 72, height / 72))

    def write(self, x: float, y: float, text: str, **style: Any) -> None:
        place = x / self.width, 1 - y / self.height
        self.figure.text(*place, text, family="DejaVu Sans Mono", fontsize=_SIZE, va="top", parse_math=False, **style)

    def stretch(self, x: float, y: float, text: str, colour: str) -> None:
        weight = "bold" if colour == VERMILION else "normal"
        self.figure.text(
            x / self.width, 1 - y / self.height, text, family="DejaVu Sans Mono", fontsize=_SIZE, va="top",
            parse_math=False, color=colour, weight=weight,
            bbox={"facecolor": _BACKGROUND[colour], "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip

    def paragraph(self, x: float, y: float, segments: Sequence[Segment], width: int, **style: Any) -> float:
        """Write segments as one wrapped text; return where the next paragraph may start."""
        for start, end in _wrap(_text(segments), width):
            at = 0
            for segment in segments:
                first, last = max(at, start), min(at + len(segment.text), end)
                text = segment.text[first - at : max(last, first) - at]
                place = x + (first - start) * _ADVANCE
                if text and segment.supported is None:
                    self.write(place, y, text, **style)
                elif text:
                    self.stretch(place, y, text, BLUE if segment.supported else VERMILION)
                at += len(segment.text)
            y += _LINE
        return y


def _wrap(text: str, width: int) -> list[tuple[int, int]]:
    """Return the lines of a text as (start, end) offsets: broken at blanks, at line breaks, and in longer words."""
    lines: list[tuple[int, int]] = []
    for word in re.finditer(rf"\S{{1,{width}}}", text):
        start, end = word.span()
        fresh = not lines or "\n" in text[lines[-1][1] : start] or end - lines[-1][0] > width
        if fresh:
            lines.append((start, end))
        else:
            lines[-1] = lines[-1][0], end
    return lines
