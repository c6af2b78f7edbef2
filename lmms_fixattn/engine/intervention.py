"""Run a model with a method: install it, yield, and leave no trace."""

from __future__ import annotations

import copy
import inspect
import threading
import warnings
import weakref
from collections.abc import Collection
from contextlib import AbstractContextManager, ExitStack
from functools import partial, wraps
from typing import Any

import torch
from transformers import Cache

from lmms_fixattn.engine.attention import EDIT, OURS, UNEDITED, attention_over, visible_keys
from lmms_fixattn.engine.contrastive_branch import ContrastiveBranch, EndWhen, Guidance
from lmms_fixattn.engine.edit import Edit, LayerEdit
from lmms_fixattn.engine.finite import FiniteScores, NoTokenError, traced
from lmms_fixattn.engine.witness import Witness, check_calls, check_pass, must_happen
from lmms_fixattn.methods.base import Layers, Method
from lmms_fixattn.methods.formulas.branches import Inputs, Prefill, counted
from lmms_fixattn.methods.views import Columns, Step
from lmms_fixattn.models.family import family_of_model
from lmms_fixattn.models.transformers_api import (
    EngineError,
    attention_in_use,
    cache_among,
    cache_name,
    check_cache,
    full_attention,
    length_of,
    new_cache,
    replaced,
)
from lmms_fixattn.models.vision_watch import VisionWatch
from lmms_fixattn.versions import check_versions

_active: dict[int, list[_Intervention]] = {}
"""The blocks that a model is in, outermost first, by the model's id; a model outside all blocks has no entry."""
_changing = threading.RLock()
"""Held while a block is entered or left."""
_EDIT = "_lmms_fixattn_edit"
"""The attribute of a cache that holds its answer's edit: what belongs to an answer dies with its cache."""


def intervene(model: Any, method: Method, tokenizer: Any = None) -> AbstractContextManager[Any]:
    """Run ``model`` with ``method`` inside the block.

    >>> with intervene(model, make_method("fixattn", alpha=0.5)):
    ...     model.generate(**inputs)

    One block serves many calls: single prompts and left-padded batches, no image, one or several in a prompt, greedy
    search, sampling, beams and streamers. A block inside another replaces the outer method until it ends; the same one
    may be entered again. Bare forward passes work too, except with a method that guides the choice of tokens, which
    belongs to ``generate``. A model is in the blocks of one thread at a time; in them, any thread may call it, and
    what two threads ask of it at the same time is refused.

    Every pass of the text model is checked for what the method must have done in it. Where transformers does something
    else than the engine knows, there is an error and no answer.

    Args:
        model: a vision-language model of transformers, of a family in :data:`lmms_fixattn.models.family.FAMILIES`.
        method: what :func:`lmms_fixattn.make_method` returned; one object may serve several models.
        tokenizer: the model's; only methods that read or write text need it, and say so.

    Raises:
        ValueError: no model of a known family, layers outside it, a vision tower without what the method needs, or no
            tokenizer where one is needed.
        RuntimeError: a library's version lies outside this package's bounds, and nobody insists
            (:func:`lmms_fixattn.versions.check_versions`); the model is in a block of another thread; inside the block,
            two threads use it at once.
        EngineError: transformers has not what the engine needs, or, inside the block, did not do what it must.
        NotFiniteError: inside the block, logits of an answer are NaN or infinite.
    """
    return _Block(model, method, tokenizer)


class _Block(AbstractContextManager[Any]):
    """What :func:`intervene` returns."""

    def __init__(self, model: Any, method: Method, tokenizer: Any) -> None:
        self._asked = model, method, tokenizer
        self._entered: list[_Intervention] = []

    def __enter__(self) -> Any:
        for remark in check_versions():
            warnings.warn(remark, stacklevel=2)
        intervention = _Intervention(*self._asked)
        model = intervention.model
        with _changing:
            blocks = _active.setdefault(id(model), [])
            if blocks:
                outer = blocks[-1]
                if outer.thread is not threading.current_thread() and outer.thread.is_alive():
                    raise RuntimeError(
                        f"{intervention.name}: the model is in an intervene block with {outer.name} of another thread, "
                        f"{outer.thread.name}; wait until that has ended, or load the model once more for this thread"
                    )
                outer.remove()
            blocks.append(intervention)
            try:
                intervention.install()
            except BaseException:
                self._leave(intervention)
                raise
        self._entered.append(intervention)
        return model

    def __exit__(self, *_: object) -> None:
        with _changing:
            self._leave(self._entered.pop())

    @staticmethod
    def _leave(intervention: _Intervention) -> None:
        blocks = _active[id(intervention.model)]
        innermost = blocks[-1] is intervention
        intervention.remove()
        blocks.remove(intervention)
        if not blocks:
            del _active[id(intervention.model)]
        elif innermost:  # and not one that a generator, say, kept open beyond the block around it
            blocks[-1].install()


class _Intervention:
    def __init__(self, model: Any, method: Method, tokenizer: Any) -> None:
        self.family = family_of_model(model)
        self.family.check(model)
        self.family.refuse(method)
        self.model = model
        self.thread = threading.current_thread()  # that entered the block
        self.turn = _Turn()
        self.text = self.family.text(model)
        self.cache_name = cache_name(type(self.text).forward)
        self.name = method.name
        self.methods = method.for_model(self.family.text_model).parts
        depth = len(self.text.layers)
        self.layers = {part: frozenset(_layers_in(depth, part.name, part.edited_layers)) for part in self.methods}
        self.edits_attention = any(self.layers.values())
        self.guiding = [part for part in self.methods if part.guides]
        self.branch = next((part.branch for part in self.methods if part.branch is not None), None)
        self.early = {part: _layers_in(depth, part.name, part.early_layers) for part in self.guiding}
        self.early_layers = sorted({layer for layers in self.early.values() for layer in layers})
        self.hooked = str(self.early_layers)
        self.acts = self.edits_attention or bool(self.guiding)
        self.expected = {
            (prefill, branching): self._expected(prefill, branching)
            for prefill, branching in ((True, False), (False, False), (False, True))
        }
        self.tokenizer = tokenizer
        if tokenizer is None and (needing := [part.name for part in self.methods if part.needs_tokenizer]):
            raise ValueError(f"{needing[0]} reads or writes text: give intervene(model, method, tokenizer) the model's")
        self.installed = ExitStack()
        self.watch: VisionWatch | None = None
        self.pictures: dict[str, Any] | None = None  # what image features were last made of
        self.prefill: dict[str, Any] | None = None  # the arguments of the latest prefill, for a branch
        self.caches: weakref.WeakSet[Cache] = weakref.WeakSet()  # that hold an edit of this block
        self.inputs: tuple[Any, Any] = None, None  # input_ids and attention_mask of the running forward pass
        self.latest: Edit  # of the latest prefill, for the guiding that starts right after it
        self.witness: Witness | None = None  # of the running call of generate
        self.branching = False  # while the branch reads its prompt

    def install(self) -> None:
        with ExitStack() as stack:
            if self.acts:
                self._hook(stack, self.model.model, self._keep_inputs)
                self._hook(stack, self.text, self._pass_edit)
                stack.callback(self.text.register_forward_hook(self._end_pass, with_kwargs=True).remove)
            if parts := frozenset().union(*(part.vision_parts for part in self.methods)):
                self.watch = stack.enter_context(self.family.watch(self.model, parts))
            if self.acts:
                own = attention_in_use(self.text)
                stack.callback(self.family.use_attention, self.model, own)
                self.family.use_attention(self.model, attention_over(own))
            for place, part in enumerate(self.methods):
                for layer in self.layers[part] if part.has("observe_input") else ():
                    self._hook(stack, self.text.layers[layer], partial(self._observe_input, place, layer))
            if self.branch or self.watch:
                stack.enter_context(self._keeping_pictures())
            for layer in self.early_layers:
                self._hook(stack, self.text.layers[layer], partial(self._keep_early_state, layer))
            stack.enter_context(self._own_generate())
            self.installed = stack.pop_all()

    def _expected(self, prefill: bool, branching: bool) -> str:
        """Return what must happen in a pass."""
        depth = range(len(self.text.layers))
        edited = {
            layer for part in self.methods if part.needs_row(prefill) for layer in depth if layer in self.layers[part]
        }
        reading = [part for part in self.methods if part.has("observe_input")] if prefill else []
        layers = {
            "input": [layer for part in reading for layer in self.layers[part]],
            "early": self.early_layers,
            "cache": depth if branching else (),
            "attention": depth,
            "edit": sorted(edited),
            "branch": depth if branching else (),
        }
        return must_happen(len(depth), layers)

    @staticmethod
    def _hook(stack: ExitStack, module: Any, function: Any) -> None:
        stack.callback(module.register_forward_pre_hook(function, with_kwargs=True).remove)

    def remove(self) -> None:
        self.installed.close()
        self.forget()
        self.inputs = None, None

    def forget(self) -> None:
        """Drop what was kept of answers, and give their caches back as they were."""
        for cache in self.caches:
            edit: Edit = vars(cache).pop(_EDIT)
            if edit.branch is not None:
                edit.branch.detach()
        self.caches.clear()
        self.pictures = self.prefill = None

    def _keep_inputs(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not torch.compiler.is_compiling():
            self.turn.take(self.name)
        self.inputs = kwargs.get("input_ids", args[0] if args else None), kwargs.get("attention_mask")

    def _keeping_pictures(self) -> AbstractContextManager[None]:
        """Keep what image features are made of, so that a branch can have them of other pixels."""
        inner = self.model.model
        features = inner.get_image_features
        names = list(inspect.signature(features).parameters)

        @wraps(features)
        def keeping(*args: Any, **kwargs: Any) -> Any:
            if not self.branching:
                self.pictures = {**dict(zip(names, args, strict=False)), **kwargs}
            return features(*args, **kwargs)

        return replaced(inner, "get_image_features", keeping)

    def _pass_edit(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Give this forward pass of the text model its edit, and from the second step on the branch's rows."""
        if kwargs.get(EDIT) is UNEDITED:
            return None
        if kwargs.get("inputs_embeds") is None:
            raise EngineError(f"{self.name}: expected the text model to be called with inputs_embeds=, it was not")
        if not (attention := attention_in_use(module)).startswith(OURS):
            raise EngineError(f"{self.name}: the attention implementation was set to {attention} inside the block")
        past = cache_among(kwargs, self.cache_name)
        edit: Edit | None = getattr(past, _EDIT, None)
        new = kwargs["inputs_embeds"].shape[1]
        if past is None or edit is None or (new > 1 and not int(past.get_seq_length())):
            if kwargs.get("use_cache") is False:
                raise ValueError("use_cache=False recomputes edited rows without their edit; leave the cache on")
            if past is None:
                past = new_cache(module)
            check_cache(past, 0, 0)
            if int(past.get_seq_length()):
                raise ValueError("the cache was filled outside this intervene block; start from an empty one")
            edit = self.latest = self._edit(new)
            if self.witness is not None:
                self.witness.begins(edit)
            setattr(past, _EDIT, edit)
            self.caches.add(past)
            self.prefill = kwargs if self.branch else None
            return args, {**kwargs, self.cache_name: past, EDIT: edit}
        if new != 1:
            raise ValueError(
                "several new tokens in one step on a filled cache (assisted decoding, chunked prefill): "
                "each row would need its own edit; generate token by token"
            )
        if edit.hooked != self.hooked:
            raise ValueError("the cache was filled inside another intervene block; start from an empty one")
        edit.seen = ""  # of a pass that broke off
        return args, {**(kwargs if edit.branch is None else edit.branch.with_branch_rows(kwargs, edit)), EDIT: edit}

    def _observe_input(
        self, place: int, layer: int, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        edit = kwargs.get(EDIT)
        if isinstance(edit, Edit) and edit.prefill:
            edit.saw("input", layer)
            hidden = args[0] if args else kwargs["hidden_states"]
            if edit.prefix is not None:
                hidden = edit.prefix.whole_input(layer, hidden)
            edit.parts[place].observed[layer] = self.methods[place].observe_input(layer, hidden)

    def _keep_early_state(self, layer: int, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        edit = kwargs.get(EDIT)
        if isinstance(edit, Edit):
            edit.saw("early", layer)
            states = args[0] if args else kwargs["hidden_states"]
            edit.states[layer] = states[:, -1].clone()  # a view would hold on to all rows of a prefill

    def _end_pass(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Let the branch read its prompt after the answer's own; later, split its rows from the answer's."""
        edit = kwargs.get(EDIT)
        if not isinstance(edit, Edit):
            return output
        check_pass(edit, self.expected[edit.prefill, edit.branch is not None], self.name)
        if self.witness is None and not torch.compiler.is_compiling():  # a pass of its own, not one of generate's
            self.turn.end()
        if not edit.prefill:
            return output if edit.branch is None else edit.branch.split_branch_rows(output)
        past = kwargs[self.cache_name]
        check_cache(past, len(module.layers), edit.is_image.shape[1])
        if self.branch is not None and bool(edit.has_image.any()):
            self._start_branch(edit, past)
        edit.prefill, edit.prefix = False, None
        if length := length_of(past):
            for part in edit.parts:
                part.settle(length)
        return output

    def _start_branch(self, edit: Edit, past: Cache) -> None:
        assert self.branch is not None
        assert self.prefill is not None
        family, kwargs, pictures, ids = self.family, self.prefill, self.pictures, self.inputs[0]
        positions = counted(edit.mask) if kwargs.get("position_ids") is None else kwargs["position_ids"]
        positions = positions.expand(*positions.shape[:-2], *edit.mask.shape)
        added = family.added(kwargs, edit.is_image)
        prompt = Prefill(
            Inputs(kwargs["inputs_embeds"], edit.mask, positions, edit.is_image, added),
            family.picture_columns(ids),
            family.instruction_start(ids, edit.mask),
            None if pictures is None else pictures["pixel_values"],
            lambda seed: family.noise(pictures or {}, torch.Generator().manual_seed(seed)),
            self._encode,
            self._embed,
        )
        self.branching = True
        try:
            inputs = self.branch.inputs(prompt)
            edit.branch = ContrastiveBranch(self.text, inputs, family.as_arguments(inputs), past)
        finally:
            self.branching = False
        self.pictures = self.prefill = None

    def _edit(self, new: int) -> Edit:
        """Build an answer's edit from the prompt and from what the vision tower just told.

        Args:
            new: the columns that the text model is given.
        """
        if self.guiding and self.witness is None:
            name = self.guiding[0].name
            off = " or turn that off (gamma=1)" if hasattr(self.guiding[0], "gamma") else ""
            raise ValueError(f"{name} guides the choice of tokens inside generate; call model.generate{off}")
        ids, mask = self.inputs[0], full_attention(self.inputs[1])
        if ids is None or ids.shape[1] == 0:
            raise ValueError("expected input_ids, got inputs_embeds: the image tokens cannot be found without ids")
        if ids.shape[1] != new or (mask is not None and mask.dim() == 2 and mask.shape[1] != new):
            raise EngineError(
                f"{self.name}: a step of {new} tokens came without the edit of its prompt: its ids have "
                f"{ids.shape[1]} columns, its attention mask {None if mask is None else mask.shape[-1]}"
            )
        is_image = ids == self.family.image_token_id
        newest = visible_keys(mask, ids.shape[1])
        attended = torch.ones_like(is_image) if newest is None else newest[:, 0]
        if not bool(attended[:, -1].all()):
            raise ValueError(
                'the batch is padded on the right; pad on the left (processor.tokenizer.padding_side="left")'
            )
        vision = self.watch.take() if self.watch else None
        if vision is not None and self.pictures is not None:
            vision.real = self.family.real_patches(self.pictures)
        parts = []
        for method in self.methods:
            gains = None
            if method.vision_parts and is_image.any():
                if vision is None or self.pictures is None:
                    raise ValueError(
                        f"{method.name} selects image tokens in the vision tower, which did not run; pass pixel_values"
                    )
                gains = self.family.per_token(method.select(vision), self.pictures)
            parts.append(LayerEdit(method, self.layers[method], Columns.lay_out(is_image, gains)))
        if self.branch is None:
            self.pictures = None
        return Edit(tuple(parts), is_image, attended, self.hooked)

    def _encode(self, pixels: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        given = {**(self.pictures or {}), "pixel_values": pixels, "return_dict": True}
        output = self.model.model.get_image_features(**given)
        if self.watch:
            self.watch.take()  # what the tower told of these pixels is not of the answer's image
        return torch.cat(list(output.pooler_output)), self.family.added_features(output)

    def _embed(self, text: str) -> torch.Tensor:
        ids = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"][0]
        embedding = self.model.get_input_embeddings()
        return embedding(ids.to(embedding.weight.device))  # type: ignore[no-any-return]

    def _step(self, index: int, method: Method) -> tuple[Step, torch.Tensor]:
        own, has_image = self.latest.branch, self.latest.has_image
        branch = None if own is None or method.branch is None else self.model.lm_head(own.hidden).float()
        states = [self.latest.states[layer][: len(has_image)] for layer in self.early[method]]
        stacked = torch.stack([state.to(states[0].device) for state in states]) if states else None
        return Step(index, branch, stacked, self.text.norm, self.model.lm_head), has_image

    def _own_generate(self) -> AbstractContextManager[None]:
        """Give every call of ``model.generate`` the methods' arguments, guidance and ends, and its witnesses."""
        arguments = {argument: value for part in self.methods for argument, value in part.generation.items()}
        ending = [part for part in self.methods if part.has("ends")]
        generate = self.model.generate

        @wraps(generate)
        def guided(*args: Any, logits_processor: Any = None, **kwargs: Any) -> Any:
            if both := [key for key in arguments if key in kwargs]:
                raise ValueError(f"the method sets {both[0]}={arguments[both[0]]!r}; leave it out of generate's own")
            if (config := kwargs.get("generation_config")) is not None:
                kwargs["generation_config"] = config = copy.deepcopy(config)
                if unknown := config.update(**arguments):
                    raise EngineError(f"{self.name}: generate's configuration knows no {', '.join(unknown)}")
            else:
                kwargs |= arguments
            beams = kwargs.get("num_beams") or getattr(config or self.model.generation_config, "num_beams", None)
            own: list[Any] = []
            if self.acts:
                self.turn.take(self.name)
                self.witness = Witness(self.name, int(beams or 1))
                own.append(self.witness)
            try:
                if self.guiding:
                    own.append(Guidance(self.guiding, self._step))
                own += [EndWhen(part.ends, self._decode, self._end_tokens(kwargs)) for part in ending]
                own.append(FiniteScores(lambda: self._end_tokens(kwargs)))
                output = generate(*args, logits_processor=[*(logits_processor or []), *own], **kwargs)
                check_calls(self.name, own, output)
                return output
            except NoTokenError as found:
                raise traced(self, found, generate, args, kwargs) from None
            finally:
                self.witness = None
                if self.guiding:
                    self.forget()
                self.turn.end()

        return replaced(self.model, "generate", guided)

    def _decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def _end_tokens(self, kwargs: dict[str, Any]) -> list[int]:
        config = kwargs.get("generation_config") or self.model.generation_config
        eos = kwargs.get("eos_token_id", config.eos_token_id)
        eos = self.tokenizer.eos_token_id if eos is None else eos
        return [eos] if isinstance(eos, int) else [int(token) for token in eos]


class _Turn:
    """Whose turn it is: an answer, or a bare pass, of one thread at a time, since a block's hooks are the model's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._whose: threading.Thread | None = None

    def take(self, name: str) -> None:
        """Let it be this thread's turn.

        Raises:
            RuntimeError: it is another thread's.
        """
        me = threading.current_thread()
        with self._lock:
            if self._whose not in (None, me) and self._whose.is_alive():
                raise RuntimeError(
                    f"{name}: thread {self._whose.name} is using the model in this intervene block, and {me.name} asks "
                    "it as well; answer one after the other, as one batch, or load the model once more"
                )
            self._whose = me

    def end(self) -> None:
        """Let it be nobody's turn."""
        self._whose = None


def _layers_in(depth: int, name: str, layers: Layers | frozenset[int] | None) -> Collection[int]:
    if layers is None:
        return ()
    if isinstance(layers, frozenset):
        if outside := sorted(layer for layer in layers if layer >= depth):
            raise ValueError(f"{name}: layer {outside[0]} lies outside the model, which has {depth} layers")
        return layers
    start, end = layers
    if start >= depth or (end or depth) > depth:
        raise ValueError(
            f"layers {start}-{end or ''} lie outside the model, which has {depth} layers: "
            f"use {min(start, depth - 1)}- for all from there to the last, or an end of at most {depth}"
        )
    return range(start, end or depth)
