"""A conversation on a picture under several methods, with what each answer says that the picture does not show."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from lmms_fixattn.data.pope_questions import question as pope_question
from lmms_fixattn.inspection.session import Session
from lmms_fixattn.methods import Method
from lmms_fixattn.report.coloured import Segment, segments
from lmms_fixattn.scoring.chair import Analyser
from lmms_fixattn.scoring.objects.coco_objects import NODE_WORD
from lmms_fixattn.scoring.pope import is_unparsed, parse_answer

_YES_NO = re.compile(r"is there an? (.+?) in the (?:image|picture|photo)\?", re.IGNORECASE)
_FREQUENT = ("person", "chair", "car", "dining table", "cup", "bottle", "bowl", "handbag", "truck", "bench")
"""The objects that most COCO images show, most frequent first."""


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
