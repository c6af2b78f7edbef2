"""Run a model with a method: install it, yield, and leave no trace."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from typing import Any

import torch
from transformers import Cache, DynamicCache, LlavaForConditionalGeneration

from lmms_fixattn.attention import EDIT, Edit, attention_over, kept_keys
from lmms_fixattn.guidance import ImageFreeBranch, Prompt
from lmms_fixattn.image_span import Columns
from lmms_fixattn.methods.base import Method
from lmms_fixattn.text_model import TextModel
from lmms_fixattn.vision import VisionWatch, watch_vision

_active: dict[int, list[_Intervention]] = {}
"""The blocks that a model is in, outermost first, by the model's id; a model outside all blocks has no entry."""


@contextmanager
def intervene(model: Any, method: Method) -> Iterator[Any]:
    """Run ``model`` with ``method`` inside the block.

    >>> with intervene(model, make_method("fixattn", alpha=0.5)):
    ...     model.generate(**inputs)

    One block serves many calls: single prompts and left-padded batches, no image, one or several in a prompt, greedy
    search, sampling and beams. A block inside another replaces the outer method until it ends. Bare forward passes
    work too, except with a logits refine, which belongs to ``generate``.

    Args:
        model: a LlavaForConditionalGeneration.
        method: what :func:`lmms_fixattn.make_method` returned.

    Raises:
        ValueError: no LLaVA model, layers outside it, or a vision tower without what the method needs.
    """
    intervention = _Intervention(model, method)
    blocks = _active.setdefault(id(model), [])
    if blocks:
        blocks[-1].remove()
    blocks.append(intervention)
    try:
        intervention.install()
        yield model
    finally:
        intervention.remove()
        blocks.pop()
        if blocks:
            blocks[-1].install()
        else:
            del _active[id(model)]


class _Intervention:
    def __init__(self, model: Any, method: Method) -> None:
        if not isinstance(model, LlavaForConditionalGeneration):
            raise ValueError(
                "expected a LlavaForConditionalGeneration (any llava-hf/llava-1.5 checkpoint), "
                f"got {type(model).__name__}"
            )
        self.model = model
        self.method = method = method.for_model(TextModel.of(model.config.text_config))
        self.layers = _layers_in(model, method)
        self.installed = ExitStack()
        self.watch: VisionWatch | None = None
        # What belongs to an answer lives beside its cache and dies with it; a guiding branch's cache maps to None.
        self.edits: weakref.WeakKeyDictionary[Cache, Edit | None] = weakref.WeakKeyDictionary()
        self.inputs: tuple[Any, Any] = None, None  # input_ids and attention_mask of the running forward pass
        self.prompt: Prompt  # of the latest prefill, for the guiding branch that starts right after it
        self.generating = False

    def install(self) -> None:
        with ExitStack() as stack:
            text = self.model.model.language_model
            if self.layers or self.method.guides:
                hook = self.model.model.register_forward_pre_hook(self._note_inputs, with_kwargs=True)
                stack.callback(hook.remove)
                hook = text.register_forward_pre_hook(self._pass_edit, with_kwargs=True)
                stack.callback(hook.remove)
            if self.layers:
                tower, config = self.model.model.vision_tower, self.model.config
                keeps_class_token = config.vision_feature_select_strategy == "full"
                watching = watch_vision(tower, self.method.vision_parts, keeps_class_token)
                self.watch = stack.enter_context(watching)
                own = text.config._attn_implementation
                stack.callback(self.model.set_attn_implementation, {"text_config": own})
                self.model.set_attn_implementation({"text_config": attention_over(own)})
            for layer in self.layers if self.method.reads_inputs else ():
                note = partial(self._note_layer_input, layer)
                hook = text.layers[layer].register_forward_pre_hook(note, with_kwargs=True)
                stack.callback(hook.remove)
            if self.method.guides:
                stack.enter_context(self._guided_generate())
            self.installed = stack.pop_all()

    def remove(self) -> None:
        self.installed.close()
        self.edits.clear()
        self.inputs = None, None

    def _note_inputs(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.inputs = kwargs.get("input_ids", args[0] if args else None), kwargs.get("attention_mask")

    def _pass_edit(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Give this forward pass of the text model its edit."""
        past = kwargs.get("past_key_values")
        if past in self.edits:
            edit = self.edits[past]
            if edit is None:
                return None
            if kwargs["inputs_embeds"].shape[1] != 1:
                raise ValueError(
                    "several new tokens in one step on a filled cache (assisted decoding, chunked prefill): "
                    "each row would need its own edit; generate token by token"
                )
            edit.prefill = False
        else:
            if kwargs.get("use_cache") is False:
                raise ValueError("use_cache=False recomputes edited rows without their edit; leave the cache on")
            if past is None:
                past = kwargs["past_key_values"] = DynamicCache(config=module.config)
            if int(past.get_seq_length()):
                raise ValueError("the cache was filled outside this intervene block; start from an empty one")
            edit = self.edits[past] = self._edit()
        return args, {**kwargs, EDIT: edit} if self.layers else kwargs

    def _note_layer_input(self, layer: int, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        edit: Edit | None = kwargs.get(EDIT)
        if edit is not None and edit.prefill:
            hidden = args[0] if args else kwargs["hidden_states"]
            edit.memory[layer] = self.method.note_input(layer, hidden)

    def _edit(self) -> Edit:
        """Build an answer's edit from the prompt and from what the vision tower just told."""
        if self.method.guides and not self.generating:
            raise ValueError(f"{self.method.name} refines logits inside generate; for bare forward passes set gamma=1")
        ids, mask = self.inputs
        if ids is None or ids.shape[1] == 0:
            raise ValueError("expected input_ids, got inputs_embeds: the image tokens cannot be found without ids")
        is_image = ids == self.model.config.image_token_id
        newest = kept_keys(mask, ids.shape[1])
        kept = torch.ones_like(is_image) if newest is None else newest[:, 0]
        self.prompt = ids, kept, is_image
        if not bool(kept[:, -1].all()):
            raise ValueError(
                'the batch is padded on the right; pad on the left (processor.tokenizer.padding_side="left")'
            )
        vision = self.watch.take() if self.watch else None
        gains: Any = 0.0
        if self.layers and is_image.any():
            if vision is None and self.method.vision_parts:
                raise ValueError(
                    f"{self.method.name} selects image tokens in the vision tower, which did not run; pass pixel_values"
                )
            gains = self.method.select(vision)  # type: ignore[arg-type]
        return Edit(self.method, self.layers, Columns.lay_out(is_image, gains))

    @contextmanager
    def _guided_generate(self) -> Iterator[None]:
        """Put the method's guiding branch into every call of ``model.generate``, behind the other processors."""
        before = self.model.__dict__.get("generate")
        generate = self.model.generate

        @wraps(generate)
        def guided(*args: Any, logits_processor: Any = None, **kwargs: Any) -> Any:
            cache = DynamicCache(config=self.model.config.text_config)
            self.edits[cache] = None
            branch = ImageFreeBranch(self.method.guide, self.model, cache, lambda: self.prompt)
            self.generating = True
            try:
                return generate(*args, logits_processor=[*(logits_processor or []), branch], **kwargs)
            finally:
                self.generating = False

        self.model.generate = guided
        try:
            yield
        finally:
            if before is None:
                del self.model.generate
            else:
                self.model.generate = before


def _layers_in(model: Any, method: Method) -> Collection[int]:
    layers = method.edited_layers
    if layers is None:
        return ()
    depth = model.config.text_config.num_hidden_layers
    if isinstance(layers, frozenset):
        if outside := sorted(layer for layer in layers if layer >= depth):
            raise ValueError(f"{method.name}: layer {outside[0]} lies outside the model, which has {depth} layers")
        return layers
    start, end = layers
    if start >= depth or (end or depth) > depth:
        raise ValueError(
            f"layers {start}-{end or ''} lie outside the model, which has {depth} layers: "
            f"use {min(start, depth - 1)}- for all from there to the last, or an end of at most {depth}"
        )
    return range(start, end or depth)
