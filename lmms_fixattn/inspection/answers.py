"""A conversation on a picture under several methods, with what each answer says that the picture does not show."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, OffsetBox, OffsetImage, TextArea, VPacker

from lmms_fixattn.data.pope_questions import question as pope_question
from lmms_fixattn.inspection import canvas
from lmms_fixattn.inspection.canvas import BLUE, VERMILION, in_rows
from lmms_fixattn.inspection.session import Session
from lmms_fixattn.methods import Method
from lmms_fixattn.report.coloured import Segment, segments
from lmms_fixattn.scoring.chair import Analyser
from lmms_fixattn.scoring.objects.coco_objects import NODE_WORD
from lmms_fixattn.scoring.pope import is_unparsed, parse_answer

_YES_NO = re.compile(r"is there an? (.+?) in the (?:image|picture|photo)\?", re.IGNORECASE)
_FREQUENT = ("person", "chair", "car", "dining table", "cup", "bottle", "bowl", "handbag", "truck", "bench")
"""The objects that most COCO images show, most frequent first."""
_ACROSS, _COLUMN, _ASIDE = 3, 46, 34  # columns beside each other; characters in one, and beside the picture
_SIZE, _LINE = 9.0, 3.5  # points: of the font, whose characters are equally wide, and between two lines
_STYLES: dict[bool | None, dict[str, Any]] = {
    None: {},
    True: {"color": BLUE, "bbox": {"facecolor": "#DCEBF7", "edgecolor": "none", "pad": 0.8}},
    False: {"color": VERMILION, "weight": "bold", "bbox": {"facecolor": "#FBE1D2", "edgecolor": "none", "pad": 0.8}},
}
"""How a stretch is written by whether the picture supports it; None says nothing of an object."""


@dataclass(frozen=True)
class Turn:
    """One method's answer to one question.

    Attributes:
        answer: cut into stretches that say something of an object, and others.
        terminated: False at the token cap.
    """

    question: str
    answer: tuple[Segment, ...]
    terminated: bool

    @property
    def text(self) -> str:
        """The answer as one text."""
        return "".join(segment.text for segment in self.answer)


@dataclass(frozen=True)
class Conversation:
    """One method's turns, each asked with the earlier ones in the prompt."""

    label: str
    turns: tuple[Turn, ...]


def converse(
    session: Session,
    image: Any,
    questions: Sequence[str],
    methods: Mapping[str, Method],
    truth: Set[str],
    analyser: Analyser,
    new_tokens: int,
) -> tuple[Conversation, ...]:
    """Hold the same conversation under each method, its own answers fed back, as in POPE chat (arXiv:2407.21771)."""
    found = []
    for label, method in methods.items():
        turns: list[Turn] = []
        for question in questions:
            earlier = [text for turn in turns for text in (turn.question, turn.text)]
            reply = session.answer(session.encode(image, [*earlier, question]), method, new_tokens)
            turns.append(Turn(question, mark(question, reply.text, truth, analyser), reply.terminated))
        found.append(Conversation(label, tuple(turns)))
    return tuple(found)


def mark(question: str, answer: str, truth: Set[str], analyser: Analyser) -> tuple[Segment, ...]:
    """Cut an answer into what it says of objects, supported by the truth or not, and the rest.

    To "Is there a/an OBJECT in the image?" the answer is yes or no, read as POPE's own script does, and is one segment:
    right or wrong. In any other answer, as in one that holds neither word, the mentions that CHAIR counts are marked.
    """
    asked = _YES_NO.fullmatch(question.strip())
    name = NODE_WORD.get(asked[1].lower()) if asked else None
    if name is None or is_unparsed(answer):
        return tuple(segments(answer, truth, analyser))
    return (Segment(answer, name, (parse_answer(answer) == "yes") == (name in truth)),)


def follow_up(caption: str, truth: Set[str], analyser: Analyser, count: int = 3) -> list[str]:
    """Return POPE questions that go on from a caption: one object that is there, then some that are not.

    The absent ones are first those that the caption names all the same, then the most frequent of COCO. A picture that
    shows none of the 80 objects is asked about absent ones alone.
    """
    named = [mention for mention in analyser.mentions(caption).objects if mention not in truth]
    present = sorted(truth)[:1]
    absent = list(dict.fromkeys([*named, *(word for word in _FREQUENT if word not in truth)]))
    return [pope_question(word) for word in [*present, *absent][:count]]


def draw_answers(conversations: Sequence[Conversation], picture: np.ndarray, truth: Set[str]) -> Figure:
    """Draw the picture and what it shows, and beside it a column a method: question by question, answers with marks.

    What the picture bears out is blue, what it does not is red and bold. More than _ACROSS methods stand in several
    rows of columns, each with the questions.
    """
    shows = "shows: " + (", ".join(sorted(truth)) or "none of COCO's 80 objects")
    key = [Segment("supported", None, True), Segment("  "), Segment("not supported", None, False)]
    texts = [_paragraph([Segment(shows)], _ASIDE), _paragraph(key, _ASIDE)]
    side = [OffsetImage(picture, zoom=190 / picture.shape[1]), *texts]
    rows = in_rows(conversations, _ACROSS)
    whole = len(rows[0]) * (_COLUMN + 4) - 4
    body: list[OffsetBox] = []
    for row in rows:
        body.append(_columns([[Segment(conversation.label)] for conversation in row], weight="bold"))
        for turn in zip(*(conversation.turns for conversation in row), strict=True):
            asked = _paragraph([Segment(turn[0].question)], whole, style="italic")
            body.append(_packed(VPacker, [asked, _columns([_said(answer) for answer in turn])], _LINE))
    title = _paragraph([Segment("What the picture bears out, and what it does not")], whole, weight="bold")
    aside, answers = _packed(VPacker, side, 3 * _LINE), _packed(VPacker, body, 4 * _LINE)
    page = _packed(VPacker, [title, _packed(HPacker, [aside, answers], 22)], 4 * _LINE)
    figure = Figure()
    place: Any = AnchoredOffsetbox(
        "upper left", child=page, bbox_to_anchor=figure.bbox, pad=0, borderpad=1.6, frameon=False
    )
    figure.add_artist(place)
    with canvas.any_glyph():
        wide, high = page.get_bbox(FigureCanvasAgg(figure).get_renderer()).size
    figure.set_size_inches(wide / figure.dpi + 2 * 16 / 72, high / figure.dpi + 2 * 16 / 72)
    return figure


def _packed(packer: type[HPacker] | type[VPacker], boxes: Sequence[OffsetBox], points: float) -> OffsetBox:
    """Put boxes beside or below each other, aligned at the top or the left, so many points apart."""
    return packer(children=[*boxes], pad=0, sep=points, align="top" if packer is HPacker else "left")


def _said(turn: Turn) -> list[Segment]:
    end = [] if turn.terminated else [Segment(" [cut at the token cap]")]
    return [*(turn.answer if turn.text else [Segment("(nothing)")]), *end]


def _columns(texts: Sequence[Sequence[Segment]], **style: Any) -> OffsetBox:
    return _packed(HPacker, [_paragraph(text, _COLUMN, **style) for text in texts], 22)


def _paragraph(segments: Sequence[Segment], width: int, **style: Any) -> OffsetBox:
    """Set segments as one text, wrapped and filled up with blanks to so many characters a line."""
    text = canvas.drawable("".join(segment.text for segment in segments))
    source = [segment for segment in segments for _ in segment.text]
    font = {"family": "DejaVu Sans Mono", "fontsize": _SIZE, "parse_math": False, **style}
    lines: list[OffsetBox] = []
    for start, end in _wrap(text, width):
        places = [list(group) for _, group in groupby(range(start, end), key=lambda place: id(source[place]))]
        parts = [(text[part[0] : part[-1] + 1], _STYLES[source[part[0]].supported]) for part in places]
        parts.append((" " * (width - end + start), {}))
        areas = [TextArea(words, textprops=font | marked) for words, marked in parts]
        lines.append(HPacker(children=[*areas], pad=0, sep=0, align="baseline"))
    return _packed(VPacker, lines, _LINE)


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
