"""One answer's edit: what its methods change in which layers, and what they keep of its prompt."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from lmms_fixattn.methods.views import Columns, Rows

if TYPE_CHECKING:
    from lmms_fixattn.engine.contrastive_branch import ContrastiveBranch
    from lmms_fixattn.engine.prefix_cache import PrefixPrefill
    from lmms_fixattn.methods.base import Method


@dataclass
class LayerEdit:
    """One method's share of an answer's edit: where it acts, and what it keeps of this prompt."""

    method: Method
    layers: Collection[int]
    columns: Columns
    observed: dict[int, torch.Tensor] = field(default_factory=dict)
    """What ``Method.observe_input`` returned, by layer; its first dimension is the prompts'."""
    prefill_stats: dict[int, torch.Tensor] = field(default_factory=dict)
    """What ``Rows.once_at_prefill`` computed, by layer; its first dimension is the prompts'."""

    def settle(self, columns: int) -> None:
        """Lay out what goes by column for a cache of this fixed length, once the prefill is over."""
        self.columns = self.columns.widened(columns)
        for layer, values in self.observed.items():
            if values.dim() == 3:
                self.observed[layer] = pad(values, (0, columns - values.shape[-1]))

    def columns_on(self, device: torch.device) -> Columns:
        """Return the columns on the device of a layer (a model may be spread over several)."""
        if self.columns.device != device:
            self.columns = self.columns.to(device)
        return self.columns

    def view(self, rows: Rows, sample: int | None = None) -> Rows:
        """Return rows as this part's method sees them; all of one prompt, if a sample is given."""
        columns, observed, stats = self.columns_on(rows.scores.device), self.observed, self.prefill_stats
        if sample is not None:
            columns = columns.of(sample)
            observed, stats = (
                {rows.layer: of[rows.layer][sample : sample + 1]} if rows.layer in of else {}
                for of in (observed, stats)
            )
        return Rows(rows.scores, rows.keep, columns, rows.prefill, rows.layer, observed, stats)


@dataclass
class Edit:
    """One answer's edit: built at prefill, kept with its cache, gone with it."""

    parts: tuple[LayerEdit, ...]
    """In the order in which the methods act."""
    is_image: torch.Tensor
    """bool [rows, prompt], True at image tokens."""
    mask: torch.Tensor
    """bool [rows, prompt], False at padding."""
    hooked: str = ""
    """Which layers ``states`` are of. It tells compiled steps apart, which hold the hooks they were traced with."""
    states: dict[int, torch.Tensor] = field(default_factory=dict)
    """By layer, the newest state of each row as it enters it, for guiding: [rows, hidden size]."""
    prefill: bool = True
    branch: ContrastiveBranch | None = None
    """The contrastive branch, whose rows follow the answers' own in every step after the prefill."""
    prefix: PrefixPrefill | None = None
    """At prefill, the prompts' shared prefixes, which were read before it."""
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
        return not bool(self.mask.all())

    @cached_property
    def has_image(self) -> torch.Tensor:
        """Return which rows have an image: bool [rows, 1]."""
        return self.is_image.any(dim=1, keepdim=True)

    @cached_property
    def text_rows(self) -> list[torch.Tensor]:
        """The columns of each prompt's text after its image, but for the newest one: int64 [text] each."""
        after = (self.is_image.cumsum(dim=1) > 0) & ~self.is_image
        return [text[:-1].nonzero().flatten() for text in after]

    def acting(self, layer: int, on_text_rows: bool = False) -> list[LayerEdit]:
        """Return the parts that edit a layer in this phase: its newest row, or the rows of text before it."""
        return [
            part
            for part in self.parts
            if layer in part.layers
            and part.method.needs_row(self.prefill)
            and (part.method.edits_text_rows or not on_text_rows)
        ]
