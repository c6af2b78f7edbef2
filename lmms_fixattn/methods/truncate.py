"""Truncate: the unmodified model, stopped early. The control that every shorter caption is to be compared with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from lmms_fixattn.methods.base import Method, count

# Not behind a digit or a capital: the dot of "3.5" or "U.S." ends no sentence.
_SENTENCE_END = re.compile(r"(?<![A-Z\d])[.!?][\"')\]]*\s*$")


@dataclass(frozen=True)
class Truncate(Method):
    """End an answer at the first end of a sentence at which it has at least ``words`` words.

    Words are what stands between blanks. The model chooses every word before that by itself; then only the
    end-of-sequence token is left to it, so that a truncated answer counts as one that ended. One that ends earlier,
    or finds no end of a sentence, is the unmodified model's.

    `lmms-fixattn compare` cuts a baseline's captions to any length afterwards, and needs no run of this; this method
    puts the same control into a table as a row of its own, with whole sentences.
    """

    name: ClassVar[str] = "truncate"
    summary: ClassVar[str] = "stop at the first sentence end from k words on: the control for brevity"
    source: ClassVar[str] = "a control of this package"
    verified: ClassVar[str] = "the unmodified model's words up to the cut"
    needs_tokenizer: ClassVar[bool] = True

    words: int = count(40, "words from which an answer ends with its sentence", low=1)

    def ends(self, answer: str) -> bool:
        return len(answer.split()) >= self.words and _SENTENCE_END.search(answer) is not None
