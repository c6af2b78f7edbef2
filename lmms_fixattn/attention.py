"""The attention function of an intervention: the model's own for all rows, then the newest row once more, edited.

Registered in transformers' attention registry beside the model's own implementation (SDPA, eager, FlashAttention),
whose mask and kernel it keeps. What to edit comes as a keyword argument of the forward call, so nothing stays anywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

if TYPE_CHECKING:
    from lmms_fixattn.methods.base import Method

EDIT = "lmms_fixattn_edit"
"""The keyword by which a forward call carries its :class:`Edit` down to the attention function."""


@dataclass
class Edit:
    """One answer's edit: built at prefill, kept beside its cache, gone with it."""

    method: Method
    layers: range
    gain: torch.Tensor
    """float32 [rows, 1, prompt]: the gain of each column, 0 outside the selected image tokens."""
    is_image: torch.Tensor
    """bool [rows, 1, prompt]."""
    prefill: bool = True
    memory: dict[int, torch.Tensor] = field(default_factory=dict)
    """What ``NewestRow.at_prefill`` keeps, by layer."""

    def on(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return gain and is_image on the device of a layer (a model may be spread over several)."""
        if self.gain.device != device:
            self.gain, self.is_image = self.gain.to(device), self.is_image.to(device)
        return self.gain, self.is_image


@dataclass
class NewestRow:
    """The newest query row of one layer, as ``Method.edit_scores`` sees it."""

    scores: torch.Tensor
    """Scaled scores before mask and softmax, float32 [rows, heads, keys]; edited in place."""
    keep: torch.Tensor | None
    """bool [rows, 1, keys], False at masked keys; None if every key counts."""
    gain: torch.Tensor
    """float32 [rows, 1, prompt]: what ``Method.select`` gave, laid out over the columns."""
    is_image: torch.Tensor
    """bool [rows, 1, prompt]."""
    prefill: bool
    layer: int
    memory: dict[int, torch.Tensor]

    def amplify(self, gain: torch.Tensor) -> None:
        """Add gain * |score| to the prompt's scores; gain broadcasts over [rows, heads, prompt]."""
        prompt = self.scores[..., : gain.shape[-1]]
        prompt.addcmul_(prompt.abs(), gain.to(prompt.dtype))

    def weights(self) -> torch.Tensor:
        """Return the weights after softmax, with the scores as they are now: [rows, heads, keys]."""
        return softmax_kept(self.scores, self.keep)

    def image_mass(self) -> torch.Tensor:
        """Return each head's attention weight on the image, with the scores as they are now: [rows, heads]."""
        weights = self.weights()[..., : self.is_image.shape[-1]]
        return (weights * self.is_image).sum(dim=-1)

    def at_prefill(self, measure: Callable[[NewestRow], torch.Tensor]) -> torch.Tensor:
        """Return what ``measure`` gave for this layer at prefill; measures now if this is it."""
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
        own = _implementation(module, implementation)
        if edit is None or module.layer_idx not in edit.layers or not edit.method.needs_row(edit.prefill):
            return own(module, query, key, value, attention_mask, **kwargs)
        if query.shape[2] == 1:
            return _edited_row(module, query, key, value, attention_mask, kwargs["scaling"], edit)
        output, weights = own(module, query, key, value, attention_mask, **kwargs)
        row, row_weights = _edited_row(
            module, query[:, :, -1:], key, value, attention_mask, kwargs["scaling"], edit, prefill=query.shape[2]
        )
        output[:, -1:] = row
        if weights is not None:
            weights[:, :, -1:] = row_weights
        return output, weights

    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[implementation])
    return name


def _implementation(module: nn.Module, implementation: str) -> Callable[..., Any]:
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
    edit.method.edit_scores(row)
    weights = row.weights().to(value.dtype)
    rows, heads, _, size = query.shape
    value = value[:, :, : weights.shape[-1]]
    output = weights.view(rows, value.shape[1], -1, weights.shape[-1]) @ value
    return output.view(rows, 1, heads, size), weights[:, :, None]


def newest_row(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    edit: Edit,
    prefill: int | None = None,
) -> NewestRow:
    """Score the newest row against every key, before any edit; arguments as in :func:`_edited_row`."""
    if mask is None and prefill is not None:
        # A static cache hands over its whole buffer; without a mask, what lies behind the prompt is not yet text.
        key = key[:, :, :prefill]
    rows, _, _, size = query.shape
    grouped = (query * scaling).view(rows, key.shape[1], -1, size)
    scores = (grouped @ key.transpose(2, 3)).view(rows, -1, key.shape[2]).float()
    gain, is_image = edit.on(scores.device)
    keep = kept_keys(mask, scores.shape[-1])
    return NewestRow(scores, keep, gain, is_image, edit.prefill, module.layer_idx, edit.memory)


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
