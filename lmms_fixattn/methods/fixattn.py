"""FixAttn: amplify the attention to the image tokens that the vision tower itself attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch.nn.functional import pad

from lmms_fixattn.methods.base import Layers, choice, count, layer_range, number, switch
from lmms_fixattn.methods.formulas.heads import proportional_gains, top_gains
from lmms_fixattn.methods.formulas.selection import TokenSets, random_tokens, select_tokens
from lmms_fixattn.methods.refine import Refined

if TYPE_CHECKING:
    import torch

    from lmms_fixattn.methods.views import Rows, VisionAttention


@dataclass(frozen=True)
class FixAttn(Refined):
    """Amplify local and summary image tokens, each with its own strength, head by head, then refine the logits.

    Tokens are selected once an image from the vision tower's attention (``selection.py``). Scores
    before softmax, newest row, layers ``layers``::

        s[h, j] += alpha * g[h] * |s[h, j]|   for local (and spatial) tokens j
        s[h, j] += beta  * g[h] * |s[h, j]|   for summary tokens j

    The head gain g is 1 with ``head_modulation="off"``, which is what the released code does. The abstract of the
    paper's first version promises head-specific modulation but gives no formula, so "proportional" and "top" are our
    reading: the visual sensitivity r[l, h] of a head is its attention mass on the image in the newest row at prefill,
    measured in each layer before that layer is amplified; then g = r / mean_h r clipped to [0, g_max] ("proportional"),
    or 1 for the ``share`` of heads of the layer with the largest r and 0 for the others ("top").

    ``selection="random"`` is the control that says whether it matters which tokens these are: of each image as many
    local (with the spatial) and as many summary tokens, drawn at random. ``selection="prompt"`` is our substitute, not
    FixAttn's own, for vision towers without a class token: in each layer, before it is amplified, local tokens are the
    ``local_ratio`` of image tokens that the last query position of the prompt attends to most, averaged over heads, and
    summary tokens the outliers of the same measure; there are no spatial ones.

    Heads are weighed without a change of the mean gain over the heads of a layer by "proportional" with ``g_max`` at
    least their number, and by "top" with alpha and beta divided by ``share``.

    Source: arXiv:2501.12206, whose third version is called PAINT, and the released code hasanar1f/PAINT at 2a9e8f8
    (modPAI). The defaults give the best row of its Table 1 (CHAIR_s 17.6 on 500 COCO images), so
    ``released_first_token`` is on, see :class:`~lmms_fixattn.methods.refine.Refined`; ``spatial_ratio=0.05`` gives its
    row "with spatial".
    """

    name: ClassVar[str] = "fixattn"
    summary: ClassVar[str] = "amplify attention to the vision tower's local and summary tokens; refine the logits"
    source: ClassVar[str] = "arXiv:2501.12206; github.com/hasanar1f/PAINT"
    cite: ClassVar[str] = "arif2025fixattn"
    verified: ClassVar[str] = "the released code's outputs; head modulation, our reading of the paper, its formula"

    alpha: float = number(0.7, "amplification of local and spatial tokens", low=0)
    beta: float = number(0.4, "amplification of summary tokens", low=0)
    local_ratio: float = number(0.25, "share of image tokens that are local", low=0, high=1)
    spatial_ratio: float = number(0.0, "share of image tokens that are spatial", low=0, high=1)
    spatial: str = choice(
        "received",
        "spatial tokens by attention received, or by the released code's sum, which is rounding noise",
        ("received", "released"),
    )
    selection: str = choice(
        "vision",
        "tokens by the vision tower's attention; a control: as many, at random; or by the prompt's attention",
        ("vision", "random", "prompt"),
    )
    draw: int = count(0, "seed of the random tokens (selection=random)")
    layers: Layers = layer_range((2, None), "decoder layers to edit, end excluded")
    released_first_token: bool = switch(True, "with the refine on, leave the prefill unamplified, as released")
    head_modulation: str = choice("off", "gain of each head by its visual sensitivity", ("off", "proportional", "top"))
    g_max: float = number(2.0, "largest head gain (head_modulation=proportional)", low=0)
    share: float = number(0.5, "share of heads that are amplified (head_modulation=top)", low=0, high=1)

    @property
    def vision_parts(self) -> frozenset[str]:
        if self.selection == "prompt":
            return frozenset()
        parts = {"cls_first", "cls_second_last"}
        parts |= {f"{self.spatial}_first"} if self.spatial_ratio else set()
        return frozenset(parts | ({"fingerprint"} if self.selection == "random" else set()))

    @property
    def edited_layers(self) -> Layers | None:
        return self.layers

    def needs_row(self, prefill: bool) -> bool:
        return self.amplifies(prefill) or self.head_modulation != "off" or self.selection == "prompt"

    def token_sets(self, vision: VisionAttention) -> TokenSets:
        """Return the local (with the spatial) and the summary tokens of each image."""
        spatial = vision.received_first if self.spatial == "received" else vision.released_first
        sets = select_tokens(
            vision.cls_first, vision.cls_second_last, spatial, self.local_ratio, self.spatial_ratio, vision.real
        )
        return random_tokens(sets, vision.fingerprint, self.draw, vision.real) if self.selection == "random" else sets

    def select(self, vision: VisionAttention) -> torch.Tensor:
        tokens = self.token_sets(vision)
        return self.alpha * tokens.local + self.beta * tokens.summary

    def edit_scores(self, rows: Rows) -> None:
        gain = rows.columns.gain
        if self.head_modulation != "off" or self.selection == "prompt":
            of_prompt = rows.once_at_prefill(self._of_prompt)
            if self.selection == "prompt":  # a cache of fixed length has columns behind those that the prompt had
                gain = pad(of_prompt, (0, rows.prompt - of_prompt.shape[-1]))
            else:
                gain = gain * of_prompt
        if self.amplifies(rows.prefill):
            rows.amplify(gain)

    def head_gains(self, sensitivity: torch.Tensor) -> torch.Tensor:
        """Return g of each head from its visual sensitivity r, both [rows, heads] of a layer; modulation must be on."""
        if self.head_modulation == "top":
            return top_gains(sensitivity, self.share)
        return proportional_gains(sensitivity, self.g_max)

    def _head_gains(self, rows: Rows) -> torch.Tensor:
        return self.head_gains(rows.image_mass())[:, :, None]

    def _of_prompt(self, rows: Rows) -> torch.Tensor:
        """Return the gains of heads, [rows, heads, 1], or those of columns, [rows, 1 or heads, prompt]."""
        heads = self._head_gains(rows) if self.head_modulation != "off" else None
        if self.selection != "prompt":
            return heads  # type: ignore[return-value]
        seen = rows.weights()[..., : rows.prompt].mean(dim=1)
        tokens = select_tokens(seen, seen, None, self.local_ratio, 0, rows.columns.image[:, 0])
        gain = (self.alpha * tokens.local + self.beta * tokens.summary)[:, None]
        return gain if heads is None else gain * heads
