"""The attention function of an intervention: the model's own for all rows, then those that a method edits once more.

Registered in transformers' attention registry beside the model's own implementation (SDPA, eager, FlashAttention),
whose mask and kernel it keeps. What to edit comes as a keyword argument of the forward call, so nothing stays anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn
from torch.nn.functional import pad

from lmms_fixattn.methods.image_span import Columns
from lmms_fixattn.models.transformers_api import EngineError, attention_function, known_attention, register_attention

if TYPE_CHECKING:
    from lmms_fixattn.engine.contrastive_branch import SecondBranch
    from lmms_fixattn.engine.prefix_cache import Begun
    from lmms_fixattn.methods.base import Method

EDIT = "lmms_fixattn_edit"
"""The keyword by which a forward call carries its :class:`Edit` down to the attention function."""
OURS = "lmms_fixattn"
"""What the names of this package's attention functions begin with."""
UNEDITED: Final = "unedited"
"""What it carries in a pass that is to be left as it is: without the keyword, a pass is an error."""
_NO_COLUMNS = Columns.lay_out(torch.zeros(1, 0, dtype=torch.bool))


@dataclass
class Part:
    """One method's share of an answer's edit: where it acts, and what it keeps of this prompt."""

    method: Method
    layers: Collection[int]
    columns: Columns
    noted: dict[int, torch.Tensor] = field(default_factory=dict)
    """What ``Method.note_input`` kept, by layer; its first dimension is the prompts'."""
    measured: dict[int, torch.Tensor] = field(default_factory=dict)
    """What ``Rows.at_prefill`` measured, by layer; its first dimension is the prompts'."""

    def settle(self, columns: int) -> None:
        """Lay out what goes by column for a cache of this fixed length, once the prefill is over."""
        self.columns = self.columns.widened(columns)
        for layer, note in self.noted.items():
            if note.dim() == 3:
                self.noted[layer] = pad(note, (0, columns - note.shape[-1]))

    def columns_on(self, device: torch.device) -> Columns:
        """Return the columns on the device of a layer (a model may be spread over several)."""
        if self.columns.device != device:
            self.columns = self.columns.to(device)
        return self.columns


@dataclass
class Edit:
    """One answer's edit: built at prefill, kept with its cache, gone with it."""

    parts: tuple[Part, ...]
    """In the order in which the methods act."""
    is_image: torch.Tensor
    """bool [rows, prompt], True at image tokens."""
    kept: torch.Tensor
    """bool [rows, prompt], False at padding."""
    noted: str = ""
    """Which layers ``states`` are of. It tells compiled steps apart, which hold the hooks they were traced with."""
    states: dict[int, torch.Tensor] = field(default_factory=dict)
    """By layer, the newest state of each row as it enters it, for guiding: [rows, hidden size]."""
    prefill: bool = True
    second: SecondBranch | None = None
    """A contrast's branch, whose rows follow the answers' own in every step after the prefill."""
    begun: Begun | None = None
    """At prefill, what was read before it of the prompts' shared beginnings."""
    seen: str = ""
    """What happened in the running pass, as :meth:`saw` wrote it down: see ``witness.py``."""
    over: bool = False
    """Whether a pass ended as it must since the witness last looked."""

    def saw(self, kind: str, layer: int) -> None:
        """Write down that something happened in a layer; ``kind`` is one of ``witness.KINDS``."""
        self.seen += f"{kind} {layer}, "

    @cached_property
    def padded(self) -> bool:
        """Whether any prompt of the batch is padded."""
        return not bool(self.kept.all())

    @cached_property
    def has_image(self) -> torch.Tensor:
        """Return which rows have an image: bool [rows, 1]."""
        return self.is_image.any(dim=1, keepdim=True)

    @cached_property
    def text_rows(self) -> list[torch.Tensor]:
        """The columns of each prompt's text after its image, but for the newest one: int64 [text] each."""
        after = (self.is_image.cumsum(dim=1) > 0) & ~self.is_image
        return [text[:-1].nonzero().flatten() for text in after]

    def acting(self, layer: int, on_text_rows: bool = False) -> list[Part]:
        """Return the parts that edit a layer in this phase: its newest row, or the rows of text before it."""
        return [
            part
            for part in self.parts
            if layer in part.layers
            and part.method.needs_row(self.prefill)
            and (part.method.edits_text_rows or not on_text_rows)
        ]


@dataclass
class Rows:
    """Query rows of one layer, as a method's hooks see them: the newest row of every prompt of the batch.

    In the prefill of a method with ``edits_text_rows`` further ones follow, one prompt at a time: all other rows of its
    text after the image.
    """

    scores: torch.Tensor
    """Scaled scores before mask and softmax, float32 [rows, heads, keys]; ``edit_scores`` changes them in place."""
    keep: torch.Tensor | None
    """bool [rows, 1, keys], False at masked keys; None if every key counts."""
    columns: Columns
    """What the columns are, [rows or 1, 1, columns] each; keys behind them are of the generated text."""
    prefill: bool
    layer: int
    noted: dict[int, torch.Tensor] = field(default_factory=dict)
    """What ``Method.note_input`` kept when the prompt entered each layer: [rows or 1, ...]."""
    measured: dict[int, torch.Tensor] = field(default_factory=dict)

    def of(self, part: Part, sample: int | None = None) -> Rows:
        """Return the same rows as a part's method sees them; all of one prompt, if a sample is given."""
        columns, noted, measured = part.columns_on(self.scores.device), part.noted, part.measured
        if sample is not None:
            columns = columns.of(sample)
            noted, measured = (
                {self.layer: kept[self.layer][sample : sample + 1]} if self.layer in kept else {}
                for kept in (noted, measured)
            )
        return Rows(self.scores, self.keep, columns, self.prefill, self.layer, noted, measured)

    @property
    def prompt(self) -> int:
        """The number of columns: the prompt's, padding included; more on a cache of fixed length."""
        return self.columns.image.shape[-1]

    def generated(self) -> torch.Tensor:
        """Return which keys are of the answer to a prompt with an image: bool [rows or 1, 1, keys]."""
        behind = self.columns.has_image.expand(-1, -1, self.scores.shape[-1] - self.prompt)
        return torch.cat([self.columns.generated, behind], dim=-1)

    def after_image(self) -> torch.Tensor:
        """Return which keys are text after the image, the prompt's and the answer's: bool [rows or 1, 1, keys]."""
        behind = self.scores.shape[-1] - self.prompt
        return self.generated() | pad(self.columns.after, (0, behind))

    def amplify(self, gain: torch.Tensor) -> None:
        """Add gain * |score| to the scores of the columns; gain broadcasts over [rows, heads, columns]."""
        prompt = self.scores[..., : self.prompt]
        prompt.addcmul_(prompt.abs(), gain.to(prompt.dtype))

    def weights(self) -> torch.Tensor:
        """Return the weights after softmax, with the scores as they are now: [rows, heads, keys]."""
        return softmax_kept(self.scores, self.keep)

    def image_mass(self) -> torch.Tensor:
        """Return each head's attention weight on the image, with the scores as they are now: [rows, heads]."""
        return (self.weights()[..., : self.prompt] * self.columns.image).sum(dim=-1)

    def at_prefill(self, measure: Callable[[Rows], torch.Tensor]) -> torch.Tensor:
        """Return what ``measure`` gave for this layer's newest rows at prefill; measures now if this is it."""
        if self.layer not in self.measured:
            self.measured[self.layer] = measure(self)
        return self.measured[self.layer]


def edited_weights(rows: Rows, parts: Sequence[Part], sample: int | None = None) -> torch.Tensor:
    """Let the parts edit the scores in turn, then the weights in turn, and return these: [rows, heads, keys].

    Args:
        sample: the prompt whose rows these are; None: each prompt of the batch has one.
    """
    seen = [(part.method, rows.of(part, sample)) for part in parts]
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
        if edit.second is None or edit.prefill:
            return _edited(own, module, query, key, value, attention_mask, edit, kwargs)
        rows = key.shape[0]
        mask = None if attention_mask is None else attention_mask[:rows]
        if (positions := kwargs.get("position_ids")) is not None:
            kwargs["position_ids"] = positions[:rows]
        output, weights = _edited(own, module, query[:rows], key, value, mask, edit, kwargs)
        return torch.cat([output, edit.second.attend(own, module, query[rows:], kwargs)]), weights

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
            if part.method.has("note_input") and module.layer_idx not in part.noted:
                raise EngineError(f"{part.method.name}: layer {module.layer_idx}: what enters it was not shown to it")
    new = query.shape[2]
    begun = edit.is_image.shape[1] - new if edit.prefill else 0  # columns that were read before this chunk
    rows = newest_row(module, query, key, mask, scaling, edit.prefill, begun)
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
            text = text.to(query.device) - begun
            rows = text_rows(module, query, key, mask, scaling, text, sample, begun)
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
    begun: int = 0,
) -> Rows:
    """Score the newest row of every prompt against every key, before any edit; tensors as in :func:`_edited`.

    Args:
        begun: the columns of the prompt whose keys were in the cache before this prefill.
    """
    if mask is None and prefill:
        # A static cache hands over its whole buffer; without a mask, what lies behind the prompt is not yet text.
        key = key[:, :, : begun + query.shape[2]]
    scores = scored(query[:, :, -1:] * scaling, key)[:, :, 0]
    return Rows(scores, kept_keys(mask, scores.shape[-1]), _NO_COLUMNS, prefill, module.layer_idx)


def text_rows(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    text: torch.Tensor,
    sample: int,
    begun: int = 0,
) -> Rows:
    """Score rows of one prompt at prefill, before any edit; tensors as in :func:`_edited`.

    Args:
        text: the rows' places in ``query``, int64 [rows].
        sample: which of the prompts.
        begun: the columns of the prompt whose keys were in the cache before this prefill.
    """
    key = key[sample] if mask is not None and mask.dim() == 4 else key[sample, :, : begun + query.shape[2]]
    scores = scored(query[sample][:, text] * scaling, key).transpose(0, 1)
    keep = kept_keys_of_rows(mask, scores.shape[-1], sample, text, begun)
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


def kept_keys_of_rows(
    mask: torch.Tensor | None, keys: int, sample: int, rows: torch.Tensor, begun: int = 0
) -> torch.Tensor:
    """Return what these rows of one prompt see at prefill, of any of transformers' masks: bool [rows, 1, keys]."""
    if mask is not None and mask.dim() == 4:
        kept = mask[sample, 0, rows, :keys]
        return (kept if kept.dtype == torch.bool else kept > -1)[:, None]
    causal = torch.arange(keys, device=rows.device) <= rows[:, None] + begun
    return (causal if mask is None else causal & mask[sample, :keys].bool())[:, None]
