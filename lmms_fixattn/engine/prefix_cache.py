"""Read what several prompts begin with once: the words before the image, and the image."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache, DynamicCache

from lmms_fixattn.engine.attention import EDIT, UNEDITED, visible_keys
from lmms_fixattn.engine.edit import Edit
from lmms_fixattn.lru import LRUCache
from lmms_fixattn.models.family import family_of_model
from lmms_fixattn.models.transformers_api import cache_of, full_attention, with_cache

_States = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of one prefix in each layer, [tokens, key heads, head size]."""


class PrefixCache:
    """A prefill that computes equal prefixes of prompts once, and hands each prompt its keys and values.

    Every method leaves rows up to the end of the first image as they are, so what a prefix up to there comes to
    depends on nothing else. The remaining columns of all prompts are then one chunk on a filled cache; since prompts
    are padded on the left, it starts where the longest prompt's prefix ends.

    Questions about one image follow each other, so the prefixes of a batch's last prompts are kept for the batches
    after it; not under a method that reads what enters the layers, which would have to be kept as well.

    Args:
        most: bytes to keep at most. A prefix takes LLaVA-1.5-7B 320 MB in half precision.

    Attributes:
        computed: prompts, or prefixes in place of several, that the layers were run on up to the image's end.
    """

    def __init__(self, most: int = 1 << 30) -> None:
        self.computed = 0
        self._kept: LRUCache[_States] = LRUCache(most)

    @contextmanager
    def shared(self, model: Any, prefixes: Sequence[tuple[Hashable, int]]) -> Iterator[None]:
        """Share prefixes in the first prefill inside the block, which gives states of its last columns only.

        An error inside the block, out of memory for instance, lets go of all that was kept.

        Args:
            model: a model of a known family; where it is in an ``intervene`` block, that is the outer one.
            prefixes: of each prompt of that prefill, what tells its prefix from others, and how many tokens that
                has up to the end of its first image; 0 for a prompt without image. ``generate`` may repeat prompts for
                beams or samples.
        """
        waiting = [prefixes]
        prefix: list[PrefixPrefill] = []

        def share(text: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if not waiting:
                return None
            prefix.append(PrefixPrefill(text, waiting.pop(), kwargs))
            return args, self._share(text, prefix[0], kwargs)

        def keep(text: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if prefix and cache_of(text, kwargs) is prefix[0].past:  # and not a contrast's branch
                self._keep(prefix.pop())

        family = family_of_model(model)
        if not family.shares_prefixes:
            self.computed += sum(length > 0 for _, length in prefixes)
            yield
            return
        text = family.text(model)
        handles = [
            text.register_forward_pre_hook(share, with_kwargs=True),
            text.register_forward_hook(keep, with_kwargs=True),
        ]
        try:
            yield
        except BaseException:
            self._kept.clear()
            raise
        finally:
            for handle in handles:
                handle.remove()

    def _share(self, text: Any, prefix: PrefixPrefill, kwargs: dict[str, Any]) -> dict[str, Any]:
        known: dict[Hashable, _States] = {}
        if not prefix.reading:
            found = {key: self._kept.get(key) for key in prefix.lengths}
            known = {key: states for key, states in found.items() if states is not None}
        if not prefix.splits or not (known or len(prefix.lengths) < len(prefix.keys)):
            self.computed += prefix.with_image
            return kwargs
        new = [key for key in prefix.lengths if key not in known]
        self.computed += sum(prefix.lengths[key] > 0 for key in new)
        if new:
            known.update(prefix.read(text, new))
        return prefix.rest(known, kwargs)

    def _keep(self, prefix: PrefixPrefill) -> None:
        kept: dict[Hashable, tuple[_States, int]] = {}
        room = self._kept.most
        for key in reversed(prefix.whole()):
            if self._kept.get(key) is None:
                states = prefix.states(key)
                size = sum(one.nbytes for layer in states for one in layer)
                room -= size
                if room < 0:
                    break
                kept[key] = states, size
        for key in reversed(kept):
            self._kept.put(key, *kept[key])


class PrefixPrefill:
    """A batch of prompts, whose prefixes are read, each once, before the rest of the prefill.

    Args:
        text: the text model.
        prefixes: as in :meth:`SharedPrefixes.shared`.
        kwargs: the arguments of the text model's prefill.

    Attributes:
        keys: of each row, what tells its prefix from others.
        lengths: how many tokens each prefix has, in the order of the rows.
        with_image: the number of prompts with an image.
        reading: the layers whose inputs a method reads.
        split: the number of columns that are read as prefixes.
        splits: whether there are such columns, and all that is needed to read them first.
    """

    def __init__(self, text: Any, prefixes: Sequence[tuple[Hashable, int]], kwargs: Mapping[str, Any]) -> None:
        self.embeds: torch.Tensor = kwargs["inputs_embeds"]
        self.past: Any = cache_of(text, kwargs)
        self._positions: torch.Tensor | None = kwargs.get("position_ids")
        edit: Edit | None = kwargs.get(EDIT)
        mask = full_attention(kwargs.get("attention_mask"))
        rows, width = self.embeds.shape[:2]
        self.keys = [key for key, _ in prefixes for _ in range(rows // len(prefixes))]
        self.lengths = dict(prefixes)
        self.with_image = sum(length > 0 for _, length in prefixes)
        self._edited = edit is not None
        parts = edit.parts if edit else ()
        self.reading = {layer for part in parts if part.method.has("observe_input") for layer in part.layers}
        empty = self.past is not None and not int(self.past.get_seq_length())
        self._readable = empty and (mask is None or isinstance(mask, torch.Tensor))
        kept = visible_keys(mask, width) if self._readable else None
        self._padding: list[int] = [0] * rows if kept is None else (width - kept[:, 0].sum(dim=1)).tolist()
        split = min(pad + self.lengths[key] for pad, key in zip(self._padding, self.keys, strict=True))
        self.split = min(split, width - 2)  # one token on a filled cache would be taken for a step
        self.splits = self._readable and self.split > min(self._padding)
        self._inputs: dict[int, torch.Tensor] = {}

    def read(self, text: Any, new: Sequence[Hashable]) -> dict[Hashable, _States]:
        """Run the text model on prefixes; return their keys and values."""
        handles = [
            text.layers[layer].register_forward_pre_hook(partial(self._keep_input, layer), with_kwargs=True)
            for layer in self.reading
        ]
        device = self.embeds.device
        rows = [self.keys.index(key) for key in new]
        starts = torch.tensor([self._padding[row] for row in rows], device=device)[:, None]
        # What is read of a prompt behind its prefix, where another one's is longer, is left of no use by the mask.
        columns = starts + torch.arange(max(self._length(key) for key in new), device=device)
        places = torch.tensor(rows, device=device)[:, None], columns.clamp_max(self.embeds.shape[1] - 1)
        given = {"inputs_embeds": self.embeds[places]}
        if (positions := self._positions) is not None:  # [..., rows or 1, columns]
            positions = positions.expand(*positions.shape[:-2], *self.embeds.shape[:2])
            given["position_ids"] = positions[..., places[0], places[1]]
        cache = DynamicCache()
        try:
            # forward itself, past the text model's hooks: for an intervention this is no prompt of its own.
            unedited = {EDIT: UNEDITED} if self._edited else {}
            text.forward(**given, use_cache=True, **with_cache(text, cache), **unedited)
        finally:
            for handle in handles:
                handle.remove()
        return {key: _cut(cache, row, slice(self._length(key))) for row, key in enumerate(new)}

    def rest(self, states: Mapping[Hashable, _States], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Put the prefixes' keys and values into the cache; return the arguments of what is left of the prefill."""
        edit: Edit | None = kwargs.get(EDIT)
        if edit:
            edit.prefix = self
        for number, layers in enumerate(zip(*(states[key] for key in self.lengths), strict=True)):
            keys, values = (pad_sequence(list(each), batch_first=True) for each in zip(*layers, strict=True))
            self.past.update(self._laid_out(keys).transpose(1, 2), self._laid_out(values).transpose(1, 2), number)
        rest: dict[str, Any] = {"inputs_embeds": self.embeds[:, self.split :]}
        if kwargs.get("position_ids") is not None:
            rest["position_ids"] = kwargs["position_ids"][..., self.split :]
        mask = kwargs.get("attention_mask")
        if isinstance(mask, dict):
            rest["attention_mask"] = {kind: self._of_rest(one) for kind, one in mask.items()}
        elif mask is not None:
            rest["attention_mask"] = self._of_rest(mask)
        return {**kwargs, **rest}

    def _of_rest(self, mask: Any) -> Any:
        """Return the query positions of a mask behind the prefixes; one of two dimensions has none."""
        return mask[:, :, self.split :] if mask is not None and mask.dim() == 4 else mask

    def whole_input(self, layer: int, rest: torch.Tensor) -> torch.Tensor:
        """Return the states that enter a layer in all columns of the prompts, given those of the last columns."""
        return torch.cat([self._laid_out(self._inputs[layer]), rest], dim=1)

    def whole(self) -> list[Hashable]:
        """Return which prefixes can be cut out of the cache after the prefill, in order."""
        if not self._readable or self.reading or any(layer.is_sliding for layer in self.past.layers):
            return []
        return [key for key, length in self.lengths.items() if length]

    def states(self, key: Hashable) -> _States:
        """Return a copy of a prefix's keys and values in the cache after the prefill."""
        row = self.keys.index(key)
        start = self._padding[row]
        cut = _cut(self.past, row, slice(start, start + self.lengths[key]))
        return [(keys.clone(), values.clone()) for keys, values in cut]

    def _length(self, key: Hashable) -> int:
        return max(1, self.lengths[key])  # of a prompt without image any token, which is masked or read again

    def _laid_out(self, values: torch.Tensor) -> torch.Tensor:
        """Lay values of the prefixes, [prefixes, tokens, ...], out over rows and columns: [rows, split, ...]."""
        return values[tuple(place.to(values.device) for place in self._places)]

    @cached_property
    def _places(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Where each row and column is found: which prefix, [rows, 1], and which of its tokens, [rows, split]."""
        order, device = list(self.lengths), self.embeds.device
        which = torch.tensor([order.index(key) for key in self.keys], device=device)
        token = torch.arange(self.split, device=device) - torch.tensor(self._padding, device=device)[:, None]
        return which[:, None], token.clamp_min(0)  # of padding any token, since it is masked

    def _keep_input(self, layer: int, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._inputs[layer] = args[0] if args else kwargs["hidden_states"]


def _cut(cache: Cache, row: int, columns: slice) -> _States:
    """Return the keys and values of some columns of a row, as views."""
    return [
        (layer.keys[row, :, columns].transpose(0, 1), layer.values[row, :, columns].transpose(0, 1))
        for layer in cache.layers
    ]
