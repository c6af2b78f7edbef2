"""DeCo: lean towards what the most confident earlier layer says of the tokens that are in question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lmms_fixattn.methods.base import Layers, Method, count, layer_range, number
from lmms_fixattn.methods.views import Step


@dataclass(frozen=True)
class DeCo(Method):
    """Add to the next-token scores those of an earlier layer, chosen anew for each token.

    With z the model's logits, C the shortest run of its ``top_k`` likeliest tokens whose probabilities reach ``top_p``
    together, e_j the logits that the state entering layer j gives with the final norm, and l* the layer of ``layers``
    that gives a token of C the highest probability, p*::

        out = z + alpha p* e_l*,   -inf outside C

    Source: arXiv:2410.11779 and the released code zjunlp/Deco at a3ccc15, whose settings for LLaVA-1.5-7B are the
    defaults: the paper's layers 20 to 28 of 32 count the embeddings as 0, as j does. That code takes one prompt at a
    time, and returns uncorrected scores with its tokens; here rows are independent and the scores are those above.
    Prompts without image are guided too: the method knows of no image.
    """

    name: ClassVar[str] = "deco"
    summary: ClassVar[str] = "add the logits of the most confident of the late layers"
    source: ClassVar[str] = "arXiv:2410.11779; github.com/zjunlp/Deco"
    cite: ClassVar[str] = "wang2025deco"
    verified: ClassVar[str] = "its formula, on LLaVA written out by hand"

    alpha: float = number(0.6, "weight of the earlier layer's logits; 0 turns it off", low=0)
    top_p: float = number(0.9, "probability that the candidate tokens reach together", low=0, high=1)
    top_k: int = count(20, "candidate tokens at most", low=1)
    layers: Layers = layer_range((20, 29), "layers to choose from by what enters them, end excluded")

    @property
    def early_layers(self) -> Layers | None:
        return self.layers if self.alpha else None

    def guide(self, scores: torch.Tensor, step: Step) -> torch.Tensor:
        candidates = self.candidates(scores)
        early = step.early(normed=True)
        confidence = early.softmax(dim=-1).masked_fill(~candidates, 0).amax(dim=-1)
        highest, layer = confidence.max(dim=0)
        chosen = early[layer, torch.arange(len(scores), device=early.device)]
        out = scores.float() + self.alpha * highest[:, None] * chosen
        return out.masked_fill(~candidates, -torch.inf).log_softmax(dim=-1)

    def candidates(self, scores: torch.Tensor) -> torch.Tensor:
        """Return which tokens are in question: bool [rows, vocabulary], True for at least the likeliest."""
        top = scores.float().softmax(dim=-1).topk(min(self.top_k, scores.shape[-1]), dim=-1)
        before = top.values.cumsum(dim=-1) - top.values
        within = (before < self.top_p) | (torch.arange(before.shape[-1], device=scores.device) == 0)
        return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, top.indices, within) & (scores > -torch.inf)
