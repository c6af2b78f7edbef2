"""AdaIAT: lean on the answer so far, when the model does so too little, each head as far as it pays."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch

from lmms_fixattn.methods.base import Layers, Method, layer_range, number, switch, word
from lmms_fixattn.methods.statistics import AttentionStatistics
from lmms_fixattn.methods.text_model import TextModel
from lmms_fixattn.methods.views import Rows


@dataclass(frozen=True)
class AdaIAT(Method):
    """Amplify the attention to the generated text, head by head, where a layer's falls short of a threshold.

    Weights after softmax, newest row, layers ``layers``, G the generated tokens, the newest one included; the prefill
    has none, so the first token is the unmodified model's. For each answer by itself::

        a = sum over heads h of the mean of w[h, j] over j in G
        w[h, G] *= max(0, 1 + alpha * M[l, h])  and the row is divided by its new sum,  if a < threshold[l]

    M and the thresholds come from ``statistics`` of the model itself: with t and f a head's mean weight on a generated
    token where the model names a true and a hallucinated object, M = t / f - 1, and threshold[l] = F + beta * (T - F)
    with T and F the sums of t and f over the heads of layer l. ``lmms-fixattn calibrate adaiat`` measures them; those
    that the authors measured have no licence, and are not shipped.

    Source: Adaptive IAT, arXiv:2603.04908, and the released code XianguiKang/AdaIAT at a0bf78e (LLaVA/methods/AdaIAT.py
    and chair_generate.py, which wraps layers 0 to 30 and acts in 5 to 17). That code sums a over the batch. Five of its
    heads have M < -1/alpha, so that their weights turn negative, which ``clamp`` forbids; false does as released.
    Answers to prompts without image stay as they are.
    """

    name: ClassVar[str] = "adaiat"
    summary: ClassVar[str] = "amplify attention to the answer so far by measured ratios, when it is below a threshold"
    source: ClassVar[str] = "arXiv:2603.04908; github.com/XianguiKang/AdaIAT"
    cite: ClassVar[str] = "zhong2026adaiat"
    verified: ClassVar[str] = "the released code's outputs"

    alpha: float = number(6.0, "amplification, times each head's M; 0 turns the method off", low=0)
    beta: float = number(0.5, "threshold between the hallucinated (0) and the true (1) mean", low=0)
    layers: Layers = layer_range((5, 18), "decoder layers to edit, end excluded")
    statistics: str = word(
        "none",
        "what `lmms-fixattn calibrate adaiat` wrote for the model",
        "none, or a .safetensors file",
        r".*\.safetensors",
    )
    digest: str = word("any", "sha256 of the statistics, which the file must have", "any, or a sha256", "[0-9a-f]{64}")
    clamp: bool = switch(True, "let no weight fall below 0; the released code does")

    @classmethod
    def example(cls, text: TextModel, folder: Path) -> dict[str, Any]:
        """Return statistics with which the method always acts: every head looks 1.2 times as much at true objects."""
        path = folder / "statistics.safetensors"
        means = torch.ones(text.layers, text.heads)
        AttentionStatistics(1.2 * means, means, text, {}).save(path)
        return {**super().example(text, folder), "statistics": str(path)}

    def for_model(self, text: TextModel) -> AdaIAT:
        if self.statistics == "none":
            raise ValueError(
                "adaiat needs statistics of this very model: make them with `lmms-fixattn calibrate adaiat` on images "
                "of yours, and give statistics=FILE.safetensors"
            )
        statistics, digest = AttentionStatistics.read(Path(self.statistics).expanduser())
        if statistics.text_model != text:
            raise ValueError(
                f"adaiat: {self.statistics} was measured on {statistics.text_model}, this model is {text}; "
                "statistics are a model's own: calibrate this one"
            )
        if self.digest not in ("any", digest):
            raise ValueError(f"adaiat: {self.statistics} has sha256 {digest}, not {self.digest}")
        return dataclasses.replace(self, digest=digest)

    def needs_row(self, prefill: bool) -> bool:
        return not prefill

    def observe_input(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """Return the layer's factors and, last, its threshold, for each prompt: [prompts, heads + 1]."""
        return _constants(self)[layer].to(hidden.device).expand(len(hidden), -1)

    def edit_weights(self, rows: Rows, weights: torch.Tensor) -> None:
        constants = rows.observed[rows.layer]
        factors, threshold = constants[:, :-1, None], constants[:, -1]
        generated = rows.generated() if rows.keep is None else rows.generated() & rows.keep
        count = generated.sum(dim=-1).clamp_min(1)
        attention = ((weights * generated).sum(dim=-1) / count).sum(dim=-1)
        acts = (attention < threshold)[:, None, None] & rows.columns.has_image
        weights *= factors.where(acts & generated, 1.0)
        weights /= weights.sum(dim=-1, keepdim=True).where(acts, 1.0)


@lru_cache(maxsize=4)
def _constants(method: AdaIAT) -> torch.Tensor:
    """Return the factors and the threshold of each layer, [layers, heads + 1]; the method's digest says which."""
    statistics, digest = AttentionStatistics.read(Path(method.statistics).expanduser())
    if digest != method.digest:
        raise ValueError(f"adaiat: {method.statistics} has sha256 {digest}, not {method.digest}, as when the run began")
    factors = 1 + method.alpha * (statistics.ratios() - 1)
    thresholds = statistics.thresholds(method.beta)[:, None]
    return torch.cat([factors.clamp_min(0) if method.clamp else factors, thresholds], dim=-1)
