"""DoLa: lean away from what the layer says that differs most from the last one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lmms_fixattn.methods.base import Layers, Method, layer_range, number
from lmms_fixattn.methods.formulas.contrast import jensen_shannon, plausible
from lmms_fixattn.methods.views import Step


@dataclass(frozen=True)
class DoLa(Method):
    """Contrast the next-token scores with those of an earlier layer, chosen anew for each token.

    With N the model's distribution and q_j what the state entering layer j gives without the final norm, j every second
    layer of ``layers`` (0 is the embeddings), and M the j for which the Jensen-Shannon divergence of N and q_j is
    largest::

        out = log N - alpha log q_M,   -inf where log N < log(cutoff) + max(log N)

    Source: arXiv:2309.03883 and the released code voidism/DoLa at 82dcec5, to which alpha (1 there) is added. That
    code takes the layer by KL(A || N) + KL(A || q_j), A the mean of the two, rather than by the paper's divergence, the
    same layer and the same cutoff for all rows of a batch; here each row follows the paper.

    The authors use half of the layers: of 32, ``layers="0-16"`` for long answers and ``layers="16-32"`` for short ones.
    The default, all of them, is that of HALC's scripts for LLaVA, and fits models of any depth. The authors recommend a
    repetition penalty of 1.2 with it. Prompts without image are guided too: the method knows of no image.
    """

    name: ClassVar[str] = "dola"
    summary: ClassVar[str] = "contrast the logits with those of the layer that differs most"
    source: ClassVar[str] = "arXiv:2309.03883; github.com/voidism/DoLa"
    cite: ClassVar[str] = "chuang2024dola"
    verified: ClassVar[str] = "its formula, on LLaVA written out by hand"

    alpha: float = number(1.0, "strength of the contrast; 0 turns it off", low=0)
    cutoff: float = number(0.1, "keep tokens with at least this share of the top probability", low=0, high=1)
    layers: Layers = layer_range((0, None), "layers to choose from by what enters them, every second, end excluded")

    @property
    def early_layers(self) -> Layers | None:
        return self.layers if self.alpha else None

    def guide(self, scores: torch.Tensor, step: Step) -> torch.Tensor:
        early = step.early(normed=False, every=2)
        distance = jensen_shannon(scores.float().softmax(dim=-1), early.softmax(dim=-1))
        farthest = early[distance.argmax(dim=0), torch.arange(len(scores), device=early.device)]
        out = scores.float().log_softmax(dim=-1) - self.alpha * farthest.log_softmax(dim=-1)
        return out.masked_fill(~plausible(scores, self.cutoff), -torch.inf).log_softmax(dim=-1)
