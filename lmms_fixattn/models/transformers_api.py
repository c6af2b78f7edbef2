"""Every name of transformers that the engine needs beyond the documented interface, each found by asking for it.

Such names change between releases (5.24 calls the cache argument ``cache``, earlier ones ``past_key_values``). They are
read from signatures and from the objects themselves, never concluded from a version number, and what is not found is an
:class:`EngineError`: a method that cannot act must not look like one that does not help.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from transformers import AttentionInterface, Cache, CompileConfig, DynamicCache
from transformers.cache_utils import DynamicLayer, StaticLayer
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    AttentionMaskInterface,
    create_causal_mask,
    create_sliding_window_causal_mask,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lmms_fixattn.versions import EngineError

__all__ = ["DynamicLayer", "EngineError"]

_CACHE_NAMES = ("cache", "past_key_values")


@cache
def cache_name(function: Callable[..., Any]) -> str:
    """Return the name by which a function of transformers takes the KV cache.

    Raises:
        EngineError: its signature has none of the known names.
    """
    parameters = inspect.signature(function).parameters
    for name in _CACHE_NAMES:
        if name in parameters:
            return name
    raise EngineError(
        f"expected {function.__qualname__} to take a KV cache as {' or '.join(_CACHE_NAMES)}, "
        f"but it takes {', '.join(parameters)}"
    )


def with_cache(module: Any, cache: Any) -> dict[str, Any]:
    """Return the keyword argument that hands a KV cache to a module's forward call, or to a model's ``generate``."""
    return {cache_name(type(module).forward): cache}


def cache_of(module: Any, kwargs: Mapping[str, Any]) -> Cache | None:
    """Return the KV cache among the arguments of a module's forward call; None where it was called without one.

    Raises:
        EngineError: the argument is not there, so whether there is a cache cannot be told.
    """
    return cache_among(kwargs, cache_name(type(module).forward))


def cache_among(kwargs: Mapping[str, Any], name: str) -> Cache | None:
    """Do as :func:`cache_of`, given the name; a compiled step can be traced through it.

    Raises:
        EngineError: the argument is not there, so whether there is a cache cannot be told.
    """
    if name not in kwargs:
        raise EngineError(f"expected a call with {name}=, its KV cache, but it was with {', '.join(kwargs) or 'none'}")
    return kwargs[name]


def check_cache(cache: Any, depth: int, read: int) -> None:
    """See to it that a KV cache is of a kind that is known, and holds a prompt that was read into it.

    Args:
        depth: the number of layers of the text model; 0 for a cache that is still empty.
        read: the prompt's columns.

    Raises:
        EngineError: it is not, or does not.
    """
    layers = getattr(cache, "layers", None)
    unknown = [layer for layer in layers or () if not isinstance(layer, DynamicLayer | StaticLayer)]
    if not isinstance(cache, Cache) or not isinstance(layers, list) or unknown:
        kind = type(unknown[0] if unknown else cache).__name__
        raise EngineError(
            f"expected a KV cache of growing or fixed layers (DynamicCache, StaticCache), got one of {kind}"
        )
    if depth and ((held := int(cache.get_seq_length())) != read or len(layers) != depth):
        raise EngineError(
            f"expected a KV cache of {depth} layers to hold {read} positions after a prompt of {read}, "
            f"got {len(layers)} layers and {held} positions"
        )


def new_cache(text: Any) -> Cache:
    """Return an empty growing KV cache for a text model."""
    return DynamicCache(config=text.config)


def length_of(cache: Cache) -> int | None:
    """Return how many positions a KV cache of fixed length has; None for one that grows."""
    return int(cache.layers[0].max_cache_len) if cache.is_compileable else None


def full_attention(mask: Any) -> Any:
    """Return the mask of full attention; ``generate`` prepares one a kind of layer for text models that name kinds.

    Raises:
        EngineError: there are several, and none is of that kind.
    """
    if not isinstance(mask, dict):
        return mask
    if "full_attention" not in mask:
        raise EngineError(f"expected an attention mask for full_attention layers, got some for {', '.join(mask)}")
    return mask["full_attention"]


class CausalMask:
    """transformers' own mask function for a text model; a compiled step can be traced through a call of it."""

    def __init__(self, config: Any) -> None:
        self.config = config
        sliding = getattr(config, "sliding_window", None)
        self.create = create_sliding_window_causal_mask if sliding else create_causal_mask
        self.cache_name = cache_name(self.create)

    def __call__(self, embeds: torch.Tensor, mask: torch.Tensor, cache: Cache, positions: torch.Tensor) -> Any:
        """Return the mask for new tokens on a KV cache, of the kind that the attention implementation takes.

        Args:
            embeds: [rows, new tokens, hidden size].
            mask: int64 [rows, keys], 0 at padding.
            positions: [rows, new tokens].
        """
        name = {self.cache_name: cache}
        return self.create(
            config=self.config, inputs_embeds=embeds, attention_mask=mask, position_ids=positions, **name
        )


def inside(owner: Any, path: str) -> Any:
    """Return a part of a model by its path, such as ``model.language_model``.

    Raises:
        EngineError: it is not where it was in the versions that were tried.
    """
    found = owner
    for name in path.split("."):
        if not hasattr(found, name):
            raise EngineError(
                f"expected {type(owner).__name__} to have {path}, but {type(found).__name__} has no {name}"
            )
        found = getattr(found, name)
    return found


def check_transformers(text: Any, *classes: Any) -> None:
    """See to it that a text model, the classes around it and KV caches have what the engine needs of them.

    Raises:
        EngineError: a name is missing.
    """
    for function in (type(text).forward, *(each.forward for each in classes), create_causal_mask):
        cache_name(function)
    for attention in (layer.self_attn for layer in text.layers):
        for name in ("layer_idx", "num_key_value_groups"):
            inside(attention, name)
    for kind, names in ((DynamicLayer, ("update", "reorder_cache", "lazy_initialization", "get_seq_length")),
                        (StaticLayer, ("update", "reorder_cache", "reset", "get_seq_length")),
                        (Cache, ("update", "reorder_cache", "get_seq_length", "is_compileable"))):  # fmt: skip
        for name in names:
            if not hasattr(kind, name):
                raise EngineError(f"expected transformers' {kind.__name__} to have {name}, but it has not")


@contextmanager
def replaced(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Let an object have another method of its own inside the block; afterwards it has what it had."""
    before = vars(owner).get(name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def attention_in_use(module: Any) -> str:
    """Return the name of the attention implementation of a text model or a vision tower.

    Raises:
        EngineError: its configuration does not name one.
    """
    name = getattr(module.config, "_attn_implementation", None)
    if not isinstance(name, str):
        raise EngineError(f"expected a model's configuration to name its attention implementation, got {name!r}")
    return name


def loadable_attention() -> list[str]:
    """Return the names of the attention implementations that a model can be loaded with."""
    return ["eager", *(name for name in ALL_ATTENTION_FUNCTIONS.valid_keys() if "paged" not in name)]


def known_attention() -> set[str]:
    """Return the names of all attention implementations that have a mask function, and eager."""
    return {*ALL_MASK_ATTENTION_FUNCTIONS.keys(), "eager"}


def register_attention(name: str, attend: Callable[..., Any], like: str) -> None:
    """Register an attention function under a name, with the mask function of the implementation that it is based on.

    Without the mask function transformers leaves padding unmasked, without a word.
    """
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[like])


def attention_function(module: Any, implementation: str) -> Callable[..., Any]:
    """Return the function behind the name of an attention implementation, for an attention module.

    Raises:
        EngineError: the module's code has no eager function.
    """
    if implementation == "eager":
        return inside(sys.modules[type(module).__module__], "eager_attention_forward")  # type: ignore[no-any-return]
    return AttentionInterface()[implementation]  # type: ignore[no-any-return]


def compiling_everywhere() -> CompileConfig:
    """Return the settings by which ``generate`` compiles a whole step into one graph, on a CPU as well."""
    config = CompileConfig(fullgraph=True)
    if not hasattr(config, "_compile_all_devices"):
        raise EngineError("expected transformers' CompileConfig to have _compile_all_devices, but it has not")
    config._compile_all_devices = True
    return config
