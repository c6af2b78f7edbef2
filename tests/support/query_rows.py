"""Query rows made by hand, to call a method's hooks with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from lmms_fixattn.methods.views import Columns, Rows


def make_rows(
    scores: Any,
    is_image: Any,
    gain: Any = 0.0,
    *,
    keep: Any = None,
    prefill: bool = False,
    layer: int = 2,
    observed: Any = None,
    prefill_stats: Any = None,
) -> Rows:
    """Return Rows of these scores [rows, heads, keys]; is_image [rows, prompt]; gain one number, or as is_image."""
    image = torch.as_tensor(is_image, dtype=torch.bool)
    columns = replace(Columns.lay_out(image), gain=(image * torch.as_tensor(gain)).float()[:, None])
    return Rows(
        torch.as_tensor(scores),
        keep,
        columns,
        prefill,
        layer,
        observed or {},
        {} if prefill_stats is None else prefill_stats,
    )


def edited(method: Any, rows: Rows) -> torch.Tensor:
    """Return the rows' weights with a method's edits of scores and weights."""
    method.edit_scores(rows)
    weights = rows.weights()
    method.edit_weights(rows, weights)
    return weights
