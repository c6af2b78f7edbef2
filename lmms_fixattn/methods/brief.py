"""Brief: the unmodified model, asked for less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmms_fixattn.methods.base import Method, count


@dataclass(frozen=True)
class Brief(Method):
    """Ask for ``sentences`` sentences: the same question, followed by "Answer in N sentences."

    The question is rewritten before the prompt is made: under lmms-eval by itself, in the last user turn of every
    round; in Python ask ``method.ask(question)`` yourself, since a model under :func:`lmms_fixattn.intervene` is given
    tokens. Questions that ask for a single word or phrase are no place for it.
    """

    name: ClassVar[str] = "brief"
    summary: ClassVar[str] = "ask for k sentences in the prompt: the control for brevity by request"
    source: ClassVar[str] = "a control of this package"
    verified: ClassVar[str] = "the question that it asks"

    sentences: int = count(2, "sentences to ask for; 0 turns the method off", low=0)

    def ask(self, question: str) -> str:
        if not self.sentences:
            return question
        return f"{question.rstrip()} Answer in {self.sentences} sentence{'s' * (self.sentences > 1)}."
