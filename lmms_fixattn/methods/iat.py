"""IAT: lean on the answer so far, in which the image has already been read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmms_fixattn.methods.base import Layers, Method, layer_range, number
from lmms_fixattn.methods.views import Rows


@dataclass(frozen=True)
class IAT(Method):
    """Amplify the newest row's attention to the generated text.

    Scores before softmax, newest row, layers ``layers``, every head, j over the generated tokens, the newest one
    included. The prefill has none, so the first token is the unmodified model's::

        s[j] += alpha * |s[j]|

    Source: Increase Attention to Text, arXiv:2603.04908, and the released code XianguiKang/AdaIAT at a0bf78e
    (LLaVA/methods/IAT.py), whose defaults were chosen on LLaVA-1.5-7B. Answers to prompts without image stay as they
    are: they hold nothing that was read from one.
    """

    name: ClassVar[str] = "iat"
    summary: ClassVar[str] = "amplify attention to the answer generated so far"
    source: ClassVar[str] = "arXiv:2603.04908; github.com/XianguiKang/AdaIAT"
    cite: ClassVar[str] = "zhong2026adaiat"
    verified: ClassVar[str] = "the released code's outputs"

    alpha: float = number(0.8, "amplification of the attention to generated text", low=0)
    layers: Layers = layer_range((5, 18), "decoder layers to edit, end excluded")

    def needs_row(self, prefill: bool) -> bool:
        return not prefill

    def edit_scores(self, rows: Rows) -> None:
        rows.scores.addcmul_(rows.scores.abs(), self.alpha * rows.generated())
