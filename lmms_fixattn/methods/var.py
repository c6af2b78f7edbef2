"""VAR: take attention from sinks, which carry nothing, and give it to the rest of the image."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from lmms_fixattn.methods.base import Layers, Method, dimension_list, layer_range, number
from lmms_fixattn.methods.formulas.sinks import relative_size
from lmms_fixattn.methods.text_model import LLAVA_7B, LLAVA_13B, TextModel
from lmms_fixattn.methods.views import Rows

_DIMENSIONS = {LLAVA_7B: (1415, 2533), LLAVA_13B: (2100, 4743)}
_EPSILON = 1e-6  # added to each image token's weight in the sum below the line of portion, as released


@dataclass(frozen=True)
class VAR(Method):
    """Redistribute the attention of image-centric heads from sink tokens to the other image tokens.

    A position is a sink of layer l if its hidden state x entering the layer is massive in one of the sink dimensions D,
    which is found once, at prefill, for each prompt anew::

        max over d in D of |x[d]| / sqrt(mean of x^2 + 1e-6) > tau

    Weights after softmax, layers ``layers``, all rows of text after the image at prefill, the row at decode. With I the
    image tokens, S the sinks, m = sum of w over I, and portion = sum of w over S and I / (m + 1e-6 |I|), the rows and
    heads with m >= image_mass and portion <= rho get::

        w[j] *= p                                          for sinks j, of image and text
        w[j] += (1 - p) sum(w over S) * w[j] / sum(w over I without S)   for image tokens j that are no sinks

    A row that sees no image sink stays as it is.

    Source: Visual Attention Redistribution, arXiv:2503.03321, and the released code seilk/VisAttnSink at 98e62d6
    (src/logic/logic.py and constants.py), which gives tau, and the dimensions for LLaVA-1.5-7B and 13B. Our
    ``image_mass`` is its summ. That code reuses the first question's sinks for all later ones and pools those of a
    batch; here each prompt has its own. It also edits the last layer, although asked not to, and so do we by default.

    For another model, ``inspection.sinks.sink_dimensions`` finds the dimensions, and shows what tau parts.
    """

    name: ClassVar[str] = "var"
    summary: ClassVar[str] = "move attention from sink tokens to the rest of the image in image-centric heads"
    source: ClassVar[str] = "arXiv:2503.03321; github.com/seilk/VisAttnSink"
    cite: ClassVar[str] = "kang2025var"
    verified: ClassVar[str] = "the released code's outputs"
    edits_text_rows: ClassVar[bool] = True

    sink_dims: str | tuple[int, ...] = dimension_list(
        "dimensions in which sinks are massive; published: of LLaVA-1.5-7B or 13B, whichever the model is"
    )
    tau: float = number(20.0, "size, relative to the state's RMS, from which a token is a sink", low=0)
    rho: float = number(0.5, "heads with a larger share of sinks in their image attention stay", low=0, high=1)
    image_mass: float = number(0.2, "heads with less attention on the image stay", low=0, high=1)
    p: float = number(0.6, "share of its attention that a sink keeps; 1 turns the method off", low=0, high=1)
    layers: Layers = layer_range((2, None), "decoder layers to edit, end excluded")

    @classmethod
    def example(cls, text: TextModel, folder: Path) -> dict[str, Any]:
        """Return two dimensions, and a size that ordinary states reach in them."""
        return {**super().example(text, folder), "sink_dims": [0, text.hidden_size - 1], "tau": 1.6}

    def for_model(self, text: TextModel) -> VAR:
        dims = self.sink_dims
        if isinstance(dims, str):
            where = "lmms_fixattn.inspection.sinks"
            instead = f"find its own with sink_dimensions of {where}, and give sink_dims=[D,D] and tau"
            dims = text.published(_DIMENSIONS, "var: sink_dims", instead)
        if max(dims) >= text.hidden_size:
            raise ValueError(f"var: sink_dims {max(dims)} lies outside the hidden state, of size {text.hidden_size}")
        return dataclasses.replace(self, sink_dims=dims)

    def observe_input(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """Return which positions are sinks: bool [prompts, 1, prompt]."""
        return (relative_size(hidden)[..., list(self.sink_dims)].amax(dim=-1) > self.tau)[:, None]

    def edit_weights(self, rows: Rows, weights: torch.Tensor) -> None:
        image, sinks = rows.columns.image, rows.observed[rows.layer]
        prompt = weights[..., : rows.prompt]
        on_image = prompt * image
        mass, on_sinks = on_image.sum(dim=-1, keepdim=True), (on_image * sinks).sum(dim=-1, keepdim=True)
        on_others = on_image * ~sinks
        rest = on_others.sum(dim=-1, keepdim=True)
        portion = on_sinks / (mass + _EPSILON * image.sum(dim=-1, keepdim=True))
        seen = sinks & image if rows.keep is None else sinks & image & rows.keep[..., : rows.prompt]
        moves = (mass >= self.image_mass) & (portion <= self.rho) & (rest > 0) & seen.any(dim=-1, keepdim=True)
        freed = (1 - self.p) * (prompt * sinks).sum(dim=-1, keepdim=True)
        moved = prompt * (1 - (1 - self.p) * sinks) + freed * on_others / rest
        prompt.copy_(moved.where(moves, prompt))
