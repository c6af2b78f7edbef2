"""The attention function of an intervention: the model's own for all rows, then those that a method edits once more.

Registered in transformers' attention registry beside the model's own implementation (SDPA, eager, FlashAttention),
whose mask and kernel it keeps. What to edit comes as a keyword argument of the forward call, so nothing stays anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from lmms_fixattn.engine.edit import Edit, LayerEdit
from lmms_fixattn.methods.views import Columns, Rows
from lmms_fixattn.models.transformers_api import EngineError, attention_function, known_attention, register_attention

if TYPE_CHECKING:
    pass

EDIT = "lmms_fixattn_edit"
"""The keyword by which a forward call carries its :class:`Edit` down to the attention function."""
OURS = "lmms_fixattn"
"""What the names of this package's attention functions begin with."""
UNEDITED: Final = "unedited"
"""What it carries in a pass that is to be left as it is: without the keyword, a pass is an error."""
_NO_COLUMNS = Columns.lay_out(torch.zeros(1, 0, dtype=torch.bool))


def edited_weights(rows: Rows, parts: Sequence[LayerEdit], sample: int | None = None) -> torch.Tensor:
    """Let the parts edit the scores in turn, then the weights in turn, and return these: [rows, heads, keys].

    Args:
        sample: the prompt whose rows these are; None: each prompt of the batch has one.
    """
    seen = [(part.method, part.view(rows, sample)) for part in parts]
    for method, view in seen:
        method.edit_scores(view)
    weights = rows.weights()
    for method, view in seen:
        method.edit_weights(view, weights)
    return weights


@cache
def attention_over(implementation: str) -> str:
    """Register our attention over one of transformers' own and return the name to set on a text model.

    The name never contains that of the implementation: transformers looks for some of them as substrings.
    """
    known = known_attention()
    if implementation == "flex_attention" or implementation not in known:
        raise ValueError(
            f"attn_implementation {implementation!r} cannot carry an intervention; load the model with "
            "attn_implementation sdpa, eager or flash_attention_2"
        )
    name = f"{OURS}_{sorted(known).index(implementation)}"

    def attend(module: nn.Module, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> Any:
        edit: Any = kwargs.pop(EDIT, None)
        own = attention_function(module, implementation)
        if edit is None:
            raise EngineError(
                f"layer {module.layer_idx}: its attention function was called without the edit of the running answer"
            )
        if edit is UNEDITED:
            return own(module, query, key, value, attention_mask, **kwargs)
        if attention_mask is None and edit.padded:
            raise EngineError(f"layer {module.layer_idx}: no attention mask came for a batch that is padded")
        edit.saw("attention", module.layer_idx)
        if edit.branch is None or edit.prefill:
            return _edited(own, module, query, key, value, attention_mask, edit, kwargs)
        rows = key.shape[0]
        mask = None if attention_mask is None else attention_mask[:rows]
        if (positions := kwargs.get("position_ids")) is not None:
            kwargs["position_ids"] = positions[:rows]
        output, weights = _edited(own, module, query[:rows], key, value, mask, edit, kwargs)
        return torch.cat([output, edit.branch.attend(own, module, query[rows:], kwargs)]), weights

    register_attention(name, attend, implementation)
    return name


def _edited(
    own: Callable[..., Any],
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    edit: Edit,
    kwargs: dict[str, Any],
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attend as the model's own function ``own`` does, with a batch's edited rows in their places.

    Args:
        query: [rows, heads, new tokens, head size].
        key, value: [rows, key heads, keys, head size]; query head h reads key head h // (heads / key heads).

    Returns:
        Output [rows, new tokens, heads, head size] and, where ``own`` gives them, weights [rows, heads, new tokens,
        keys].
    """
    parts, scaling = edit.acting(module.layer_idx), kwargs["scaling"]
    if not parts:
        return own(module, query, key, value, mask, **kwargs)  # type: ignore[no-any-return]
    if edit.prefill:
        for part in parts:
            if part.method.has("observe_input") and module.layer_idx not in part.observed:
                raise EngineError(f"{part.method.name}: layer {module.layer_idx}: what enters it was not shown to it")
    new = query.shape[2]
    cached = edit.is_image.shape[1] - new if edit.prefill else 0  # columns that were read before this chunk
    rows = newest_row(module, query, key, mask, scaling, edit.prefill, cached)
    newest = edited_weights(rows, parts).to(value.dtype)[:, :, None]
    row = weighted(newest, value).transpose(1, 2)
    edit.saw("edit", module.layer_idx)
    if new == 1:
        return row, newest
    output, weights = own(module, query, key, value, mask, **kwargs)
    output[:, -1:] = row
    if weights is not None:
        weights[:, :, -1:] = newest
    if further := edit.acting(module.layer_idx, on_text_rows=True):
        for sample, text in enumerate(edit.text_rows):
            text = text.to(query.device) - cached
            rows = text_rows(module, query, key, mask, scaling, text, sample, cached)
            edited = edited_weights(rows, further, sample).to(value.dtype).transpose(0, 1)
            output[sample, text] = weighted(edited, value[sample]).transpose(0, 1)
            if weights is not None:
                weights[sample][:, text, : edited.shape[-1]] = edited
    return output, weights


def newest_row(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    prefill: bool,
    cached: int = 0,
) -> Rows:
    """Score the newest row of every prompt against every key, before any edit; tensors as in :func:`_edited`.

    Args:
        cached: the columns of the prompt whose keys were in the cache before this prefill.
    """
    if mask is None and prefill:
        # A static cache hands over its whole buffer; without a mask, what lies behind the prompt is not yet text.
        key = key[:, :, : cached + query.shape[2]]
    scores = scored(query[:, :, -1:] * scaling, key)[:, :, 0]
    return Rows(scores, visible_keys(mask, scores.shape[-1]), _NO_COLUMNS, prefill, module.layer_idx)


def text_rows(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    text: torch.Tensor,
    sample: int,
    cached: int = 0,
) -> Rows:
    """Score rows of one prompt at prefill, before any edit; tensors as in :func:`_edited`.

    Args:
        text: the rows' places in ``query``, int64 [rows].
        sample: which of the prompts.
        cached: the columns of the prompt whose keys were in the cache before this prefill.
    """
    key = key[sample] if mask is not None and mask.dim() == 4 else key[sample, :, : cached + query.shape[2]]
    scores = scored(query[sample][:, text] * scaling, key).transpose(0, 1)
    keep = visible_keys_of_rows(mask, scores.shape[-1], sample, text, cached)
    return Rows(scores, keep, _NO_COLUMNS, True, module.layer_idx)


def scored(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Return q k^T as float32 [..., heads, rows, keys]; query head h reads key head h // (heads / key heads).

    Args:
        query: [..., heads, rows, head size], scaled.
        key: [..., key heads, keys, head size].
    """
    *batch, heads, rows, size = query.shape
    grouped = query.reshape(*batch, key.shape[-3], heads * rows // key.shape[-3], size)
    return (grouped @ key.transpose(-1, -2)).view(*batch, heads, rows, key.shape[-2]).float()


def weighted(weights: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return the weighted sums of values, [..., heads, rows, head size]; heads as in :func:`scored`.

    Args:
        weights: [..., heads, rows, keys]; there may be more values behind the keys, which do not count.
        value: [..., key heads, keys or more, head size].
    """
    *batch, heads, rows, keys = weights.shape
    grouped = weights.reshape(*batch, value.shape[-3], heads * rows // value.shape[-3], keys)
    return (grouped @ value[..., :keys, :]).view(*batch, heads, rows, value.shape[-1])


def visible_keys(mask: torch.Tensor | None, keys: int) -> torch.Tensor | None:
    """Return the newest row of any of transformers' masks (2-D, 4-D bool, 4-D float) as bool [rows, 1, keys]."""
    if mask is None:
        return None
    if mask.dim() == 4:
        mask = mask[:, 0, -1]
        if mask.dtype != torch.bool:
            mask = mask > -1
    return mask[:, None, :keys].bool()


def visible_keys_of_rows(
    mask: torch.Tensor | None, keys: int, sample: int, rows: torch.Tensor, cached: int = 0
) -> torch.Tensor:
    """Return what these rows of one prompt see at prefill, of any of transformers' masks: bool [rows, 1, keys]."""
    if mask is not None and mask.dim() == 4:
        visible = mask[sample, 0, rows, :keys]
        return (visible if visible.dtype == torch.bool else visible > -1)[:, None]
    causal = torch.arange(keys, device=rows.device) <= rows[:, None] + cached
    return (causal if mask is None else causal & mask[sample, :keys].bool())[:, None]
