"""PAI: pay more attention to the whole image, and lean away from what the text alone would say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lmms_fixattn.guidance import contrast
from lmms_fixattn.methods.base import Layers, Method, layer_range, number, switch

if TYPE_CHECKING:
    import torch

    from lmms_fixattn.attention import NewestRow
    from lmms_fixattn.vision import VisionAttention


@dataclass(frozen=True)
class PAI(Method):
    """Amplify the newest row's attention to every image token, then refine the logits.

    Scores before softmax, newest row, layers ``layers``, j over the image tokens I::

        s[j] += alpha * |s[j]|

    Next-token scores, with lc = log-softmax with the image and lu = log-softmax of the same prompt and text without
    the image tokens and never amplified::

        out = gamma * (lc - lu) + lu,   -inf where lc < log(cutoff) + max(lc)

    gamma = 1 means no refine. Source: arXiv:2407.21771, eq. 4 to 6, and the released code LALBJ/PAI, whose command
    line gives the defaults. With the refine on, that code does not amplify the prefill, from which the first token
    comes; the published tables were made so, and ``released_first_token=False`` gives what the paper describes.
    """

    name: ClassVar[str] = "pai"
    summary: ClassVar[str] = "amplify attention to the whole image; refine the logits against a text-only branch"
    source: ClassVar[str] = "arXiv:2407.21771; github.com/LALBJ/PAI"

    alpha: float = number(0.2, "amplification of the attention to image tokens", low=0)
    layers: Layers = layer_range((2, None), "decoder layers to edit, end excluded")
    gamma: float = number(1.1, "strength of the logits refine; 1 turns it off", low=1)
    cutoff: float = number(0.1, "refine keeps tokens with at least this share of the top probability", low=0, high=1)
    released_first_token: bool = switch(True, "with the refine on, leave the prefill unamplified, as released")

    @property
    def edited_layers(self) -> Layers | None:
        return self.layers

    @property
    def guides(self) -> bool:
        return self.gamma != 1

    def needs_row(self, prefill: bool) -> bool:
        return not (prefill and self.guides and self.released_first_token)

    def select(self, vision: VisionAttention) -> float:
        return self.alpha

    def edit_scores(self, row: NewestRow) -> None:
        row.amplify(row.gain)

    def guide(self, with_image: torch.Tensor, without_image: torch.Tensor) -> torch.Tensor:
        return contrast(with_image, without_image, self.gamma, self.cutoff)
