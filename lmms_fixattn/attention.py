"""The attention function of an intervention: the model's own for all rows, then those that a method edits once more.

Registered in transformers' attention registry beside the model's own implementation (SDPA, eager, FlashAttention),
whose mask and kernel it keeps. What to edit comes as a keyword argument of the forward call, so nothing stays anywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

from lmms_fixattn.image_span import Columns

if TYPE_CHECKING:
    from lmms_fixattn.methods.base import Method

EDIT = "lmms_fixattn_edit"
"""The keyword by which a forward call carries its :class:`Edit` down to the attention function."""


@dataclass
class Edit:
    """One answer's edit: built at prefill, kept beside its cache, gone with it."""

    method: Method
    layers: Collection[int]
    columns: Columns
    prefill: bool = True
    memory: dict[int, torch.Tensor] = field(default_factory=dict)
    """What ``Rows.at_prefill`` and ``Method.note_input`` keep, by layer; its first dimension is the prompts'."""

    def columns_on(self, device: torch.device) -> Columns:
        """Return the columns on the device of a layer (a model may be spread over several)."""
        if self.columns.device != device:
            self.columns = self.columns.to(device)
        return self.columns

    @cached_property
    def text_rows(self) -> list[torch.Tensor]:
        """The columns of each prompt's text after its image: int64 [text] each."""
        return [after[0].nonzero().flatten() for after in self.columns.after]


@dataclass
class Rows:
    """Query rows of one layer, as a method's hooks see them.

    At decode, and in the prefill of most methods, the newest row of every prompt of the batch. In the prefill of a
    method with ``edits_text_rows`` instead, one prompt at a time, every row of text after its image.
    """

    scores: torch.Tensor
    """Scaled scores before mask and softmax, float32 [rows, heads, keys]; ``edit_scores`` changes them in place."""
    keep: torch.Tensor | None
    """bool [rows, 1, keys], False at masked keys; None if every key counts."""
    columns: Columns
    """What the prompt's columns are, [rows or 1, 1, prompt] each; keys behind them are of the generated text."""
    prefill: bool
    layer: int
    memory: dict[int, torch.Tensor]

    @property
    def prompt(self) -> int:
        """The number of columns of the prompt, padding included."""
        return self.columns.image.shape[-1]

    def after_image(self) -> torch.Tensor:
        """Return which keys are text after the image, the prompt's and the answer's: bool [rows or 1, 1, keys]."""
        generated = self.columns.has_image.expand(-1, -1, self.scores.shape[-1] - self.prompt)
        return torch.cat([self.columns.after, generated], dim=-1)

    def amplify(self, gain: torch.Tensor) -> None:
        """Add gain * |score| to the prompt's scores; gain broadcasts over [rows, heads, prompt]."""
        prompt = self.scores[..., : self.prompt]
        prompt.addcmul_(prompt.abs(), gain.to(prompt.dtype))

    def weights(self) -> torch.Tensor:
        """Return the weights after softmax, with the scores as they are now: [rows, heads, keys]."""
        return softmax_kept(self.scores, self.keep)

    def edited_weights(self, method: Method) -> torch.Tensor:
        """Let ``method`` edit the scores, then the weights, and return these: [rows, heads, keys]."""
        method.edit_scores(self)
        weights = self.weights()
        method.edit_weights(self, weights)
        return weights

    def image_mass(self) -> torch.Tensor:
        """Return each head's attention weight on the image, with the scores as they are now: [rows, heads]."""
        return (self.weights()[..., : self.prompt] * self.columns.image).sum(dim=-1)

    def at_prefill(self, measure: Callable[[Rows], torch.Tensor]) -> torch.Tensor:
        """Return what ``measure`` gave for this layer's newest rows at prefill; measures now if this is it."""
        if self.prefill:
            self.memory[self.layer] = measure(self)
        return self.memory[self.layer]


@cache
def attention_over(implementation: str) -> str:
    """Register our attention over one of transformers' own and return the name to set on a text model.

    The name never contains that of the implementation: transformers looks for some of them as substrings.
    """
    known = {*ALL_MASK_ATTENTION_FUNCTIONS.keys(), "eager"}
    if implementation == "flex_attention" or implementation not in known:
        raise ValueError(
            f"attn_implementation {implementation!r} cannot carry an intervention; load the model with "
            "attn_implementation sdpa, eager or flash_attention_2"
        )
    name = f"lmms_fixattn_{sorted(known).index(implementation)}"

    def attend(module: nn.Module, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> Any:
        edit: Edit | None = kwargs.pop(EDIT, None)
        own = attention_function(module, implementation)
        if edit is None or module.layer_idx not in edit.layers or not edit.method.needs_row(edit.prefill):
            return own(module, query, key, value, attention_mask, **kwargs)
        scaling, prompt = kwargs["scaling"], query.shape[2]
        if prompt == 1:
            return _edited_row(module, query, key, value, attention_mask, scaling, edit)
        output, weights = own(module, query, key, value, attention_mask, **kwargs)
        if not edit.method.edits_text_rows:
            newest = query[:, :, -1:]
            row, row_weights = _edited_row(module, newest, key, value, attention_mask, scaling, edit, prefill=prompt)
            output[:, -1:] = row
            if weights is not None:
                weights[:, :, -1:] = row_weights
            return output, weights
        for sample, text in enumerate(edit.text_rows):
            rows = text_rows(module, query, key, attention_mask, scaling, edit, sample)
            edited = rows.edited_weights(edit.method).to(value.dtype).transpose(0, 1)
            output[sample, text] = weighted(edited, value[sample]).transpose(0, 1)
            if weights is not None:
                weights[sample][:, text, : edited.shape[-1]] = edited
        return output, weights

    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[implementation])
    return name


def attention_function(module: nn.Module, implementation: str) -> Callable[..., Any]:
    if implementation == "eager":
        return sys.modules[type(module).__module__].eager_attention_forward  # type: ignore[no-any-return]
    return AttentionInterface()[implementation]  # type: ignore[no-any-return]


def _edited_row(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    edit: Edit,
    prefill: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend from the newest row with edited scores.

    Args:
        query: [rows, heads, 1, head size].
        key, value: [rows, key heads, keys, head size]; query head h reads key head h // (heads / key heads).
        prefill: the prompt's length, when this is the prefill of one longer than a token.

    Returns:
        Output [rows, 1, heads, head size] and weights [rows, heads, 1, keys].
    """
    row = newest_row(module, query, key, mask, scaling, edit, prefill)
    weights = row.edited_weights(edit.method).to(value.dtype)[:, :, None]
    return weighted(weights, value).transpose(1, 2), weights


def newest_row(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    edit: Edit,
    prefill: int | None = None,
) -> Rows:
    """Score the newest row of every prompt against every key, before any edit; arguments as in :func:`_edited_row`."""
    if mask is None and prefill is not None:
        # A static cache hands over its whole buffer; without a mask, what lies behind the prompt is not yet text.
        key = key[:, :, :prefill]
    scores = scored(query * scaling, key)[:, :, 0]
    keep = kept_keys(mask, scores.shape[-1])
    return Rows(scores, keep, edit.columns_on(scores.device), edit.prefill, module.layer_idx, edit.memory)


def text_rows(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    edit: Edit,
    sample: int,
) -> Rows:
    """Score the rows of one prompt's text after its image at prefill, before any edit.

    Args:
        query: all rows of all prompts, [prompts, heads, prompt, head size]; other arguments as in :func:`_edited_row`.
        sample: which of the prompts.
    """
    text = edit.text_rows[sample].to(query.device)
    key = key[sample] if mask is not None and mask.dim() == 4 else key[sample, :, : query.shape[2]]
    scores = scored(query[sample][:, text] * scaling, key).transpose(0, 1)
    keep = kept_keys_of_rows(mask, scores.shape[-1], sample, text)
    columns = edit.columns_on(scores.device).of(sample)
    memory = {layer: kept[sample : sample + 1] for layer, kept in edit.memory.items() if layer == module.layer_idx}
    return Rows(scores, keep, columns, True, module.layer_idx, memory)


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


def softmax_kept(scores: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
    """Return softmax over the kept keys; masked ones get weight 0, whatever was added to their scores."""
    return (scores if keep is None else scores.masked_fill(~keep, -torch.inf)).softmax(dim=-1)


def kept_keys(mask: torch.Tensor | None, keys: int) -> torch.Tensor | None:
    """Return the newest row of any of transformers' masks (2-D, 4-D bool, 4-D float) as bool [rows, 1, keys]."""
    if mask is None:
        return None
    if mask.dim() == 4:
        mask = mask[:, 0, -1]
        if mask.dtype != torch.bool:
            mask = mask > -1
    return mask[:, None, :keys].bool()


def kept_keys_of_rows(mask: torch.Tensor | None, keys: int, sample: int, rows: torch.Tensor) -> torch.Tensor:
    """Return what these rows of one prompt see at prefill, of any of transformers' masks: bool [rows, 1, keys]."""
    if mask is not None and mask.dim() == 4:
        kept = mask[sample, 0, rows, :keys]
        return (kept if kept.dtype == torch.bool else kept > -1)[:, None]
    causal = torch.arange(keys, device=rows.device) <= rows[:, None]
    return (causal if mask is None else causal & mask[sample, :keys].bool())[:, None]
