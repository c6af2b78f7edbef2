"""VAF (ClearSight): turn the image up and the system prompt down, where text and image are fused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmms_fixattn.methods.base import Layers, Method, layer_range, number
from lmms_fixattn.methods.views import Rows


@dataclass(frozen=True)
class VAF(Method):
    """Scale the scores of the text after the image, on the image and on what comes before it.

    Scores before mask and softmax, layers ``layers``, every head; in the prefill all rows of text after the image, at
    decode the row::

        s[j] *= enhance    for image tokens j
        s[j] *= suppress   for j before the image, the beginning-of-sequence token included

    Scores keep their sign, so that a negative score on the image sinks further, as in the released code. Of a prompt
    that ends with its image, the last row is edited, from which the answer comes (the released code edits every row).

    Source: Visual Amplification Fusion, ClearSight, CVPR 2025, arXiv:2503.13107, and the released code
    ustc-hyin/ClearSight at 5466c94 (visaug/inference/AttnAdapter.py), which takes 35 tokens to stand before the image;
    here they are counted. The layers, 9 to 14 of 32, were chosen on LLaVA-1.5-7B.
    """

    name: ClassVar[str] = "vaf"
    summary: ClassVar[str] = "scale scores on the image up and on the system prompt down, for all text rows"
    source: ClassVar[str] = "arXiv:2503.13107; github.com/ustc-hyin/ClearSight"
    cite: ClassVar[str] = "yin2025vaf"
    verified: ClassVar[str] = "the released code's outputs"
    edits_text_rows: ClassVar[bool] = True

    enhance: float = number(1.15, "factor on scores of image tokens", low=0)
    suppress: float = number(0.95, "factor on scores of tokens before the image", low=0)
    layers: Layers = layer_range((9, 15), "decoder layers to edit, end excluded")

    def edit_scores(self, rows: Rows) -> None:
        columns = rows.columns
        rows.scores[..., : rows.prompt] *= 1 + columns.image * (self.enhance - 1) + columns.before * (self.suppress - 1)
