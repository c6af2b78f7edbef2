"""Find a model's sink dimensions, which VAR needs of a model that none are published for."""

from __future__ import annotations

from typing import Any

import torch

from lmms_fixattn.methods.formulas.sinks import relative_size
from lmms_fixattn.models.family import text_model


def sink_dimensions(model: Any, ids: torch.Tensor, count: int = 2, layers: slice = slice(2, -1)) -> dict[int, float]:
    """Find the dimensions in which a model's beginning-of-sequence token is massive: VAR's ``sink_dims``.

    >>> sink_dimensions(model, tokenizer("Describe the image.", return_tensors="pt").input_ids)
    {2533: 56.1, 1415: 29.8}

    A dimension's value is the median over layers of the first token's |x[d]| / RMS(x). Choose ``tau`` well below the
    smallest of them and well above what other tokens of a text reach; if no gap lies between, the model has no such
    sinks, and VAR does not apply to it.

    Args:
        model: a model of a known family.
        ids: a text, [1, tokens], that starts with the beginning-of-sequence token.
        count: how many dimensions to return.
        layers: of the states entering the decoder layers; by default from the third on, without the last.

    Returns:
        The ``count`` largest by dimension, largest first.
    """
    text = text_model(model)
    with torch.no_grad():
        states = text(input_ids=ids.to(text.device), use_cache=False, output_hidden_states=True).hidden_states
    sizes = torch.stack([relative_size(state[0, 0]).cpu() for state in states[:-1][layers]]).median(dim=0).values
    top = sizes.topk(count)
    return dict(zip(top.indices.tolist(), top.values.tolist(), strict=True))
