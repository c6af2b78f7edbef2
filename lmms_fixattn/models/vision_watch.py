"""The vision tower's own attention, as far as selection needs it, read while the tower runs anyway."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lmms_fixattn.methods.views import VisionAttention
from lmms_fixattn.models.transformers_api import EngineError, inside


class VisionWatch:
    """Hold what the tower's latest run told, until the prefill that uses it takes it."""

    def __init__(self, parts: frozenset[str]) -> None:
        self.parts = parts
        self._latest: VisionAttention | None = None

    def latest(self) -> VisionAttention:
        """Return the parts read so far in this run of the tower."""
        if self._latest is None:
            self.begin()
        return self._latest  # type: ignore[return-value]

    def take(self) -> VisionAttention | None:
        """Return what the latest run told, once; None where the tower did not run since.

        Raises:
            EngineError: the tower ran past the hooks that read it.
        """
        latest, self._latest = self._latest, None
        if latest is not None and (unread := [part for part in sorted(self.parts) if getattr(latest, part) is None]):
            raise EngineError(f"the vision tower ran, but its attention was not read: {', '.join(unread)} is unknown")
        return latest

    def begin(self) -> None:
        """Note that the tower begins to run."""
        self._latest = VisionAttention()

    def put(self, told: VisionAttention) -> None:
        """Count this as what the latest run told: of pictures that were not all encoded in it."""
        self._latest = told


_watches: dict[int, VisionWatch] = {}
"""The watch that a tower is under, by the tower's id; a tower outside all blocks has no entry."""


def watching(tower: nn.Module) -> VisionWatch | None:
    """Return the watch of the :func:`watch_vision` block that a tower is in, the innermost one."""
    return _watches.get(id(tower))


@contextmanager
def watch_vision(tower: nn.Module, parts: frozenset[str]) -> Iterator[VisionWatch]:
    """Read ``parts`` (field names of VisionAttention) from every run of ``tower`` inside the block.

    Only the CLS query's row of the layers that the parts need is computed: one key projection and one row a layer. The
    attention received needs every query's row, one image at a time; the fingerprint copies the pixels to the CPU.

    Raises:
        ValueError: the tower is no CLIP encoder with a class token.
    """
    watch = VisionWatch(parts)
    layers = encoder_layers(tower) if parts else []
    readers: dict[int, dict[str, Any]] = {}
    for part in parts - {"fingerprint"}:
        layer = len(layers) - 2 if part == "cls_second_last" else 0
        readers.setdefault(layer, {})[part] = _READERS[part]

    def reader(of_layer: dict[str, Any]) -> Any:
        def read(attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            for part, function in of_layer.items():
                setattr(watch.latest(), part, function(attention, hidden.detach()))

        return read

    handles = [tower.register_forward_pre_hook(lambda *_: watch.begin())] if parts else []
    if "fingerprint" in parts:
        # Where pixels enter, since of known pictures (image_features) the tower is called but not run.
        model: Any = tower
        entrance = model.get_input_embeddings()
        handles.append(entrance.register_forward_pre_hook(lambda _, args: _keep_fingerprint(watch, args[0])))
    handles += [
        layers[layer].self_attn.register_forward_pre_hook(reader(of_layer), with_kwargs=True)
        for layer, of_layer in readers.items()
    ]
    outer = _watches.get(id(tower))
    _watches[id(tower)] = watch
    try:
        yield watch
    finally:
        for handle in handles:
            handle.remove()
        if outer is None:
            del _watches[id(tower)]
        else:
            _watches[id(tower)] = outer


def encoder_layers(tower: Any) -> Sequence[Any]:
    """Return the layers of a CLIP vision tower.

    Raises:
        ValueError: it is of another kind, or has fewer than two layers.
    """
    encoder = getattr(getattr(tower, "vision_model", tower), "encoder", None)
    layers = getattr(encoder, "layers", None)
    config = getattr(tower, "config", None)
    if layers is None or len(layers) < 2 or "clip_vision" not in str(getattr(config, "model_type", "")):
        raise ValueError(
            "selecting image tokens needs a CLIP vision tower (class token, two layers or more), "
            f"got {type(tower).__name__}; method=pai needs no selection"
        )
    for layer in layers:
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.scale", "self_attn.head_dim"):
            inside(layer, name)
    return layers  # type: ignore[no-any-return]


def _project(attention: Any, projection: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """Return [images, heads, tokens, head size], float32."""
    projected: torch.Tensor = projection(hidden).float()
    return projected.view(*hidden.shape[:2], -1, attention.head_dim).transpose(1, 2)


def _cls_row(attention: Any, hidden: torch.Tensor) -> torch.Tensor:
    query = _project(attention, attention.q_proj, hidden[:, :1])
    key = _project(attention, attention.k_proj, hidden)
    weights = (query * attention.scale @ key.transpose(2, 3)).softmax(dim=-1)
    row: torch.Tensor = weights.sum(dim=1)[:, 0, 1:]
    return row


def _all_rows(attention: Any, hidden: torch.Tensor) -> Iterator[torch.Tensor]:
    for image in hidden[:, None]:
        query, key = (_project(attention, p, image) for p in (attention.q_proj, attention.k_proj))
        yield (query * attention.scale @ key.transpose(2, 3)).softmax(dim=-1).mean(dim=1)


def _received(attention: Any, hidden: torch.Tensor) -> torch.Tensor:
    return torch.cat([rows.sum(dim=1) for rows in _all_rows(attention, hidden)])[:, 1:]


def _released(attention: Any, hidden: torch.Tensor) -> torch.Tensor:
    return torch.cat([rows.sum(dim=2) for rows in _all_rows(attention, hidden)])[:, :-1]


def _keep_fingerprint(watch: VisionWatch, pixels: torch.Tensor) -> None:
    pictures = pixels.detach().float().cpu().numpy()
    digests = (hashlib.blake2b(picture.tobytes(), digest_size=7).digest() for picture in pictures)
    watch.latest().fingerprint = torch.tensor([int.from_bytes(digest, "big") for digest in digests])


_READERS = {
    "cls_first": _cls_row,
    "cls_second_last": _cls_row,
    "received_first": _received,
    "released_first": _released,
}
