"""Record what the newest row's softmax gave in every layer and step, without touching the answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

import numpy as np
import torch

from lmms_fixattn.engine.attention import EDIT, OURS, edited_weights, newest_row
from lmms_fixattn.engine.edit import Edit
from lmms_fixattn.methods.views import Columns
from lmms_fixattn.models.family import family_of_model
from lmms_fixattn.models.transformers_api import attention_function, attention_in_use, register_attention

SEGMENTS = ("system", "image", "question", "answer")
"""What a position belongs to: before the first image token (the beginning-of-sequence token included), an image, the
prompt after it, what was generated."""

_RECORDER = "lmms_fixattn_recorder"
_number = count()


@dataclass(frozen=True)
class Recording:
    """The newest row's attention, step by step: row t is the one that answer token t was predicted from.

    A row's sums make 1, unless the method scales weights after the softmax.

    Attributes:
        before: float32 [steps, layers, heads, segments], the weights' sums by segment (SEGMENTS) as the scores were
            before the layer's own edit; earlier layers' edits are in what the layer reads.
        after: the same with the edit, which is what the layer used. Equal where a method does not edit.
    """

    before: np.ndarray
    after: np.ndarray


class Recorder:
    """Collect the sums of one prompt's answer while :func:`record_attention` is on."""

    def __init__(self) -> None:
        self._columns: Columns
        self._steps: list[dict[int, torch.Tensor]] = []

    def recording(self) -> Recording:
        """Return what was recorded since the latest prefill.

        Raises:
            ValueError: the model did not run.
        """
        if not self._steps:
            raise ValueError("nothing was recorded: run the model inside the record_attention block")
        layers = sorted(self._steps[0])
        sums = torch.stack([torch.stack([step[layer].cpu() for layer in layers]) for step in self._steps]).numpy()
        return Recording(before=sums[:, :, 0], after=sums[:, :, 1])

    def begin_step(self, ids: torch.Tensor, image_id: int) -> None:
        """Start a step; one of several tokens is a prefill and starts anew.

        Raises:
            ValueError: several prompts at once, or a prompt without image.
        """
        if ids.shape[1] > 1:
            is_image = ids == image_id
            if ids.shape[0] > 1 or not is_image.any():
                raise ValueError(
                    f"attention is recorded for one prompt with an image at a time, got {ids.shape[0]} "
                    f"with {int(is_image.sum())} image tokens"
                )
            self._columns = Columns.lay_out(is_image)
            self._steps = []
        self._steps.append({})

    def measure(self, module: Any, query: Any, key: Any, mask: Any, scaling: float, edit: Edit | None) -> None:
        """Record a layer's newest row, given what its attention function is given."""
        prefill = query.shape[2] > 1
        rows = newest_row(module, query[:1], key[:1], mask if mask is None else mask[:1], scaling, prefill)
        before = self._sums(rows.weights())
        parts = [] if edit is None else edit.acting(module.layer_idx)
        after = self._sums(edited_weights(rows, parts)) if parts else before
        self._steps[-1][module.layer_idx] = torch.stack([before, after])

    def _sums(self, weights: torch.Tensor) -> torch.Tensor:
        """Sum the newest row's weights, [1, heads, keys], by segment: [heads, segments]."""
        columns = self._columns
        width = columns.image.shape[-1]
        prompt, answer = weights[0, :, :width], weights[0, :, width:]
        kinds = (columns.before, columns.image, columns.after)
        return torch.stack([*((prompt * kind[0]).sum(dim=-1) for kind in kinds), answer.sum(dim=-1)], dim=-1)


@contextmanager
def record_attention(model: Any) -> Iterator[Recorder]:
    """Record every layer's newest row inside the block: one prompt with an image, greedy or sampled, with its cache.

    >>> with intervene(model, method), record_attention(model) as recorder:
    ...     model.generate(**inputs)
    >>> recorder.recording().after

    Enter it inside ``intervene``, whose edited scores it then sees. The row is scored once more, by the function that
    the edit itself uses and from the same query and keys; the model's own outputs are left as they are, so that the
    answer is the same to the bit. Passes without image (a refine's contrastive branch) are not recorded.
    """
    recorder = Recorder()

    def start(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        recorder.begin_step(ids, family.image_token_id)
        return args, {**kwargs, _RECORDER: recorder}

    family = family_of_model(model)
    own = attention_in_use(family.text(model))
    handle = model.register_forward_pre_hook(start, with_kwargs=True)
    try:
        family.use_attention(model, _recorded(own))
        yield recorder
    finally:
        family.use_attention(model, own)
        handle.remove()


@cache
def _recorded(implementation: str) -> str:
    """Register a recording attention function over one of the registered ones and return its name."""
    name = f"{OURS}_recorded_{next(_number)}"  # without the implementation's, as in attention_over

    def attend(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> Any:
        recorder: Recorder | None = kwargs.pop(_RECORDER, None)
        own = attention_function(module, implementation)
        output = own(module, query, key, value, attention_mask, **kwargs)
        if recorder is not None:
            recorder.measure(module, query, key, attention_mask, kwargs["scaling"], kwargs.get(EDIT))
        return output

    register_attention(name, attend, implementation)
    return name
