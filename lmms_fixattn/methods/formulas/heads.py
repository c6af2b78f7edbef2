"""How strongly each head is amplified, from its visual sensitivity.

The visual sensitivity r[l, h] of a head is the attention mass that its newest row puts on the image at prefill, before
amplification. FixAttn (arXiv:2501.12206) claims head-specific modulation without a formula: these are our readings.
"""

from __future__ import annotations

import torch

from lmms_fixattn.methods.formulas.selection import largest


def proportional_gains(sensitivity: torch.Tensor, g_max: float) -> torch.Tensor:
    """Return g = r / mean over heads of r, clipped to [0, g_max]: [rows, heads] -> [rows, heads].

    A row that looks at no image at all has no ratio; its gains are 1, and there is nothing that they would amplify.
    """
    mean = sensitivity.mean(dim=-1, keepdim=True)
    gains = torch.where(mean > 0, sensitivity / mean.clamp_min(torch.finfo(mean.dtype).tiny), 1.0)
    return gains.clamp(0, g_max)


def top_gains(sensitivity: torch.Tensor, share: float) -> torch.Tensor:
    """Return 1 for the int(share * heads) most sensitive heads and 0 for the rest: [rows, heads] -> [rows, heads]."""
    return largest(sensitivity, int(share * sensitivity.shape[-1])).to(sensitivity.dtype)
