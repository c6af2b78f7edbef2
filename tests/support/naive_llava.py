"""What LLaVA-1.5 makes of a prompt, by hand: naive_text.py says the rest."""

from __future__ import annotations

import numpy as np
import torch
from naive_text import Fix, Row, generate, in_a_row, log_softmax, numbers, softmax, words

__all__ = ["Fix", "Row", "generate", "log_softmax", "read", "select", "softmax"]


def read(model, ids, pictures):
    """Image features in the places of image tokens; positions count up."""
    rows = words(model, ids)
    if pictures:
        pixels = torch.cat([picture["pixel_values"] for picture in pictures])
        features = torch.cat(list(model.get_image_features(pixels).pooler_output))
        rows[[token == model.config.image_token_id for token in ids]] = numbers(features)
    return in_a_row(rows)


def select(model, picture, fix, real=None):
    """Gains of one image's real patches, from the tower's attention as transformers' eager code returns it."""
    tower = model.model.vision_tower
    before = tower.config._attn_implementation
    model.set_attn_implementation({"vision_config": "eager"})
    attentions = tower(picture["pixel_values"], output_attentions=True).attentions
    model.set_attn_implementation({"vision_config": before})
    first, second_last = attentions[0][0].numpy(), attentions[-2][0].numpy()
    real = list(range(first.shape[-1] - 1)) if real is None else real
    n = len(real)
    local = set(np.argsort(-first[:, 0, 1:].sum(0)[real], kind="stable")[: int(fix.local * n)].tolist())
    received = first.mean(0).sum(0)[1:][real]
    local |= set(np.argsort(-received, kind="stable")[: int(fix.spatial * n)].tolist())
    cls = second_last[:, 0, 1:].sum(0)[real]
    q1, q3 = np.percentile(cls, [25, 75])
    summary = {i for i in range(n) if cls[i] > q3 + 1.5 * (q3 - q1)}
    return [fix.beta if i in summary else fix.alpha if i in local else 0.0 for i in range(n)]
