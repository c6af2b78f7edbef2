"""HGAI: give every head the same, averaged push towards the image, in the layers where images are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmms_fixattn.methods.base import Layers, Method, layer_range, number
from lmms_fixattn.methods.views import Rows


@dataclass(frozen=True)
class HGAI(Method):
    """Amplify the newest row's attention to the image by an amount that all heads of a layer share.

    Scores before softmax, newest row (prefill included), layers ``layers``, every head h, j over the image tokens::

        s[h, j] += alpha * mean over heads h' of |s[h', j]|

    Source: Heads-Guided Attention Intervention, arXiv:2411.16724, and the released code
    ZhangqiJiang07/middle_layers_indicating_hallucinations at a0622a9, whose command line "5,18" means layers 5 to 18,
    both included. They were chosen on LLaVA-1.5-7B, which has 32.
    """

    name: ClassVar[str] = "hgai"
    summary: ClassVar[str] = "push every head of the middle layers towards the image by the heads' mean score"
    source: ClassVar[str] = "arXiv:2411.16724; github.com/ZhangqiJiang07/middle_layers_indicating_hallucinations"
    cite: ClassVar[str] = "jiang2025hgai"
    verified: ClassVar[str] = "the released code's outputs"

    alpha: float = number(0.5, "amplification of the attention to image tokens", low=0)
    layers: Layers = layer_range((5, 19), "decoder layers to edit, end excluded")

    def edit_scores(self, rows: Rows) -> None:
        prompt = rows.scores[..., : rows.prompt]
        prompt += self.alpha * rows.columns.image * prompt.abs().mean(dim=1, keepdim=True)
