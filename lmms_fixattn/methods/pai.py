"""PAI: pay more attention to the whole image, and lean away from what the text alone would say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmms_fixattn.methods.base import Layers, layer_range, number
from lmms_fixattn.methods.refine import Refined
from lmms_fixattn.methods.views import Rows


@dataclass(frozen=True)
class PAI(Refined):
    """Amplify the newest row's attention to every image token, then refine the logits.

    Scores before softmax, newest row, layers ``layers``, j over the image tokens::

        s[j] += alpha * |s[j]|

    Source: arXiv:2407.21771, eq. 4, and the released code LALBJ/PAI at 9bbd8bd, whose command line gives the defaults;
    other papers' tables run it with alpha 0.5.
    """

    name: ClassVar[str] = "pai"
    summary: ClassVar[str] = "amplify attention to the whole image; refine the logits against a text-only branch"
    source: ClassVar[str] = "arXiv:2407.21771; github.com/LALBJ/PAI"
    cite: ClassVar[str] = "liu2024pai"
    verified: ClassVar[str] = "the released code's outputs"

    alpha: float = number(0.2, "amplification of the attention to image tokens", low=0)
    layers: Layers = layer_range((2, None), "decoder layers to edit, end excluded")

    def needs_row(self, prefill: bool) -> bool:
        return self.amplifies(prefill)

    def edit_scores(self, rows: Rows) -> None:
        rows.amplify(self.alpha * rows.columns.image)
