"""Encode each picture once: what the vision tower gave for it is put back in place when it is asked for again."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from lmms_fixattn.lru import LRUCache
from lmms_fixattn.methods.views import VisionAttention
from lmms_fixattn.models.family import family_of_model
from lmms_fixattn.models.transformers_api import replaced
from lmms_fixattn.models.vision_watch import watching


@dataclass(frozen=True)
class _Seen:
    """What the tower gave for one picture, without the dimension of pictures."""

    states: dict[int, torch.Tensor]  # by layer, those that the projector reads: [tokens, hidden size]
    attention: dict[str, torch.Tensor]  # by field of VisionAttention: [patches]

    @property
    def size(self) -> int:
        return sum(t.nbytes for t in (*self.states.values(), *self.attention.values()))


class VisionCache:
    """A memory of encoded pictures, on the device of the vision tower.

    Equal pictures of one batch are encoded once, and those of recent batches not again. A picture's states come with
    what a method reads of the tower's attention, so every method sees what it would have seen.

    Args:
        most: bytes to hold at most. One picture of LLaVA-1.5-7B takes 1.2 MB in half precision.

    Attributes:
        encoded: pictures that the tower was run on.
    """

    def __init__(self, most: int = 256 << 20) -> None:
        self.encoded = 0
        self._seen: LRUCache[_Seen] = LRUCache(most)

    @contextmanager
    def reused(self, model: Any, pictures: Sequence[Hashable]) -> Iterator[None]:
        """Reuse what is known in the tower's first run inside the block; further ones are left alone.

        Args:
            model: a model of a known family; one that keeps no pictures is left as it is.
            pictures: the identity of each picture of that run, in order; equal ones have equal pixels. Older
                transformers repeat each for its prompt's beams before they are encoded.
        """
        family = family_of_model(model)
        if not pictures or not family.keeps_pictures:
            self.encoded += len(pictures)
            yield
            return
        tower, layers = family.tower(model), family.kept_layers()
        whole = tower.forward
        waiting = [list(pictures)]

        def forward(pixel_values: torch.Tensor, **kwargs: Any) -> Any:
            if not waiting:
                return whole(pixel_values, **kwargs)
            return self._encode(tower, whole, layers, waiting.pop(), pixel_values, kwargs)

        with replaced(tower, "forward", forward):
            yield

    def _encode(
        self,
        tower: Any,
        whole: Any,
        layers: Sequence[int],
        pictures: Sequence[Hashable],
        pixels: torch.Tensor,
        kwargs: dict[str, Any],
    ) -> BaseModelOutputWithPooling:
        copies, rest = divmod(len(pixels), len(pictures))
        if rest or not copies:
            raise ValueError(f"expected the pixels of {len(pictures)} pictures, got those of {len(pixels)}")
        watch = watching(tower)
        parts = frozenset[str]() if watch is None else watch.parts
        known = {picture: self._known(picture, parts) for picture in pictures}
        new = [picture for picture, seen in known.items() if seen is None]
        pictures = [picture for picture in pictures for _ in range(copies)]
        self.encoded += len(new)
        if new:
            output = whole(pixels[[pictures.index(picture) for picture in new]], **kwargs)
            told = None if watch is None else watch.take()
            for index, picture in enumerate(new):
                # Copies, since a view would keep the whole batch's states alive.
                states = {layer: output.hidden_states[layer][index].clone() for layer in layers}
                seen = _Seen(states, {part: getattr(told, part)[index].clone() for part in parts})
                known[picture] = seen
                self._seen.put(picture, seen, seen.size)
        rows: list[Any] = [known[picture] for picture in pictures]
        if watch is not None and parts:
            attention = {part: torch.stack([row.attention[part] for row in rows]) for part in parts}
            watch.put(VisionAttention(**attention))
        # Of the tower's output, image features are made of these states alone, by their layers' numbers.
        chosen = {layer: torch.stack([row.states[layer] for row in rows]) for layer in layers}
        return BaseModelOutputWithPooling(hidden_states=chosen)

    def _known(self, picture: Hashable, parts: frozenset[str]) -> _Seen | None:
        seen = self._seen.get(picture)
        return seen if seen is not None and parts <= seen.attention.keys() else None
