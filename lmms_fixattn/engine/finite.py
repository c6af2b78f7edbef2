"""Logits that are no numbers: noticed before a token is chosen of them, and traced to where they began.

A broken checkpoint, or an overflow in half precision under a strong amplification, gives NaN or infinite logits. Their
largest is token 0, or any, so that the answer would be made of nothing. What every step is looked at is one maximum for
each row; only when that is no number are the same tokens generated once more, with every layer watched.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from transformers import GenerationConfig, LogitsProcessor

from lmms_fixattn.engine.witness import EveryStep, Witness
from lmms_fixattn.models.family import Family, family_of_model
from lmms_fixattn.models.transformers_api import new_cache, with_cache

BROKEN_WEIGHT = "its weight"
"""What a place says where a weight is to blame."""
_IN_A_LAYER = {
    "input_layernorm": "norm before the attention",
    "self_attn": "attention",
    "post_attention_layernorm": "norm before the MLP",
    "mlp": "MLP",
}
"""The modules of a decoder layer, in the order in which they run."""


class NotFiniteError(RuntimeError):
    """An answer's logits are NaN or infinite. The message says which method, where it began and what to do.

    Attributes:
        prompt: the row of the batch that they are of.
    """

    def __init__(self, message: str, prompt: int) -> None:
        super().__init__(message)
        self.prompt = prompt


class NoTokenError(RuntimeError):
    """No token can be chosen in some rows: for whoever called ``generate``, to trace it.

    Attributes:
        ids: the prompt and the answer so far, [rows, columns].
        start: the prompt's length.
        rows: bool [rows].
    """

    def __init__(self, ids: torch.Tensor, start: int, rows: torch.Tensor) -> None:
        super().__init__("logits are NaN or infinite")
        self.ids = ids
        self.start = start
        self.rows = rows


class FiniteScores(EveryStep):
    """A logits processor that changes nothing, and sees to it that every row has a token to choose.

    Scores of -inf exclude tokens; a largest score of NaN, of infinity, or of -inf is no choice.

    Args:
        eos: returns the tokens that end an answer; what follows one is not part of it.
    """

    def __init__(self, eos: Callable[[], list[int]]) -> None:
        super().__init__()
        self.eos = eos

    def process(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores.

        Raises:
            NoTokenError: there is no token to choose in a row that has not ended.
        """
        largest = scores.amax(dim=-1)  # NaN, where there is one
        if bool(largest.isfinite().all()):
            return scores
        over = torch.isin(ids[:, self.start :], torch.tensor(self.eos(), device=ids.device)).any(dim=1)
        if bool((rows := ~largest.isfinite() & ~over).any()):
            raise NoTokenError(ids, self.start, rows)
        return scores.masked_fill(over[:, None], 0.0)


class Known(LogitsProcessor):  # type: ignore[misc]
    """A logits processor that lets an answer be generated once more, whatever the scores.

    Args:
        ids: the prompt and the answer, [rows, columns].
    """

    def __init__(self, ids: torch.Tensor) -> None:
        self.ids = ids

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        column = input_ids.shape[1]
        if column == self.ids.shape[1]:  # behind the last one any will do
            return torch.zeros_like(scores)
        return torch.full_like(scores, -torch.inf).scatter(1, self.ids[:, column : column + 1], 0.0)


class Block(Protocol):
    """What is asked of an ``intervene`` block: the model with a method, and how to take it out and put it back."""

    model: Any
    family: Family
    name: str
    acts: bool
    branching: bool
    guiding: Any
    witness: Witness | None

    def install(self) -> None: ...
    def remove(self) -> None: ...
    def forget(self) -> None: ...


def traced(
    block: Block, found: NoTokenError, generate: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> NotFiniteError:
    """Return the error of an answer whose logits are no numbers: where that began and what to do.

    Args:
        generate, args, kwargs: the call that found it.
    """
    ids = args[0] if args else kwargs.get("input_ids", kwargs.get("inputs"))
    prompts = len(found.rows) if ids is None else len(ids)
    rows = found.rows.view(prompts, -1)  # [prompts, beams]
    which = rows.any(dim=1).nonzero().flatten().tolist()
    known = found.ids.view(*rows.shape, -1)[torch.arange(prompts), rows.long().argmax(dim=1)]
    given = ("attention_mask", *block.family.picture_inputs, *block.family.beside(known))
    inputs: dict[str, Any] = {name: kwargs[name] for name in given if name in kwargs}
    inputs["input_ids"] = known[:, : found.start]
    try:
        with torch.no_grad():
            where = _where(block, generate, known, inputs, which)
            if BROKEN_WEIGHT in where:
                advice = "get the checkpoint again"
            elif where:
                advice = _advice(block, known, inputs, which)
            elif block.guiding:
                where = f"all layers are finite, and what {block.guiding[-1].name} made of the logits is not"
                advice = "lower the method's strength"
            else:
                where = "all layers are finite when it is generated once more, on plain steps"
                advice = "run with compile=false, and without logits processors of your own"
    except Exception as error:  # what was found is said all the same
        where = f"where it began could not be traced ({type(error).__name__}: {error})"
        advice = "lower the method's strength, or load the model with a wider dtype="
    token = f"token {known.shape[1] - found.start + 1} of the answer"
    return NotFiniteError(f"{block.name}: no number to choose {token} by: {where}; {advice}", which[0])


def _where(
    block: Block, generate: Callable[..., Any], known: torch.Tensor, inputs: dict[str, Any], which: Collection[int]
) -> str:
    """Generate an answer once more, token by token as it was; say where the first thing that is no number was."""
    block.forget()
    config = GenerationConfig(
        max_new_tokens=known.shape[1] - inputs["input_ids"].shape[1] + 1,
        do_sample=False,
        num_beams=1,
        pad_token_id=0,
        disable_compile=True,
    )
    tracing = Tracing(block.model, len(known), which, lambda: block.branching)
    block.witness = Witness(block.name, 1) if block.acts else None
    processors = [*([block.witness] if block.witness else []), Known(known)]
    past = with_cache(block.model, new_cache(block.family.text(block.model)))
    try:
        with tracing.watching():
            generate(**inputs, generation_config=config, logits_processor=processors, **past)
    except FoundError as found:
        return str(found)
    finally:
        block.witness = None
        block.forget()
    return ""


def _advice(block: Block, known: torch.Tensor, inputs: dict[str, Any], which: list[int]) -> str:
    """Say what to do: whether the unmodified model has the same trouble decides it."""
    dtype = str(block.model.dtype).removeprefix("torch.")
    mask = inputs.get("attention_mask")
    if mask is not None:
        mask = torch.nn.functional.pad(mask, (0, known.shape[1] - mask.shape[1]), value=1)
    block.remove()
    try:
        plain = {**inputs, "input_ids": known, "attention_mask": mask}
        logits = block.model(**plain, use_cache=False, logits_to_keep=1).logits[which, -1]
    finally:
        block.install()
    if bool(logits.isfinite().all()):
        wider = "" if dtype == "float32" else ", or load the model with dtype=float32"
        return f"the unmodified model is finite there: lower the method's strength{wider}"
    again = (
        "get the checkpoint again" if dtype == "float32" else "load it with dtype=float32, or get the checkpoint again"
    )
    return f"the unmodified model is not finite there either: its weights are broken or overflow {dtype}: {again}"


class FoundError(Exception):
    """Something was no number: where, in words."""


class Tracing:
    """Watch every layer while an answer is generated once more.

    Args:
        model: a model of a known family.
        prompts: how many prompts the batch has; rows behind them are a contrastive branch's.
        rows: those prompts that are to be watched.
        in_branch: says whether a contrastive branch reads its prompt right now.
    """

    def __init__(self, model: Any, prompts: int, rows: Collection[int], in_branch: Callable[[], bool]) -> None:
        self._model = model
        self._prompts = prompts
        self._rows = sorted(rows)
        self._in_branch = in_branch
        self._steps = 0
        self._mask: torch.Tensor | None = None
        self._in_tower = ""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch inside the block.

        Raises:
            FoundError: at the first output that is no number.
        """
        family = family_of_model(self._model)
        text, tower = family.text(self._model), family.tower(self._model)
        handles = [text.register_forward_pre_hook(self._begin, with_kwargs=True)]

        def watch(module: Any, place: str, look: Any = self._look) -> None:
            handles.append(module.register_forward_hook(partial(look, place)))

        for number, layer in enumerate(family.tower_layers(self._model)):
            watch(layer, f"layer {number} of the vision tower", self._note)
        watch(tower, "the vision tower", self._note)
        watch(family.projector(self._model), "the projection of the image's features", self._projected)
        for number, layer in enumerate(text.layers):
            for name, place in _IN_A_LAYER.items():
                if (module := getattr(layer, name, None)) is not None:
                    watch(module, f"the {place} of layer {number}")
            watch(layer, f"layer {number}")
        watch(text.norm, "the norm behind the last layer")
        watch(self._model.lm_head, "the logits")
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _begin(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        mask = kwargs.get("attention_mask")
        self._mask = mask if isinstance(mask, torch.Tensor) and mask.dim() == 2 else None
        if not self._in_branch():
            self._steps += 1
        embeds = kwargs.get("inputs_embeds")
        if embeds is not None:
            self._look("the embeddings", module, args, embeds)

    def _note(self, place: str, module: Any, args: tuple[Any, ...], output: Any) -> None:
        # Only its second-last layer is used as a rule: what the projection makes of it decides.
        if not self._in_tower and not all(bool(one.isfinite().all()) for one in _states(output)):
            self._in_tower = place + _weights(module)

    def _projected(self, place: str, module: Any, args: tuple[Any, ...], output: Any) -> None:
        for states in _states(output):
            if not bool(states.isfinite().all()):
                raise FoundError(f"{kind(states)} in {self._in_tower or place + _weights(module)}")
        self._in_tower = ""

    def _look(self, place: str, module: Any, args: tuple[Any, ...], output: Any) -> None:
        states = _states(output)[0]
        if states.dim() != 3:
            return
        finite = states.isfinite().all(dim=-1)
        if self._mask is not None and self._mask.shape[0] == finite.shape[0] and self._mask.shape[1] >= finite.shape[1]:
            finite = finite | ~self._mask[:, -finite.shape[1] :].bool().to(finite.device)
        rows = (~finite.all(dim=1)).nonzero().flatten().tolist()
        rows = [row for row in rows if row % self._prompts in self._rows]
        if rows:
            branch = " of the contrastive branch" if self._in_branch() or rows[0] >= self._prompts else ""
            phase = "reading the prompt" if self._steps <= 1 else f"token {self._steps} of the answer"
            raise FoundError(f"{kind(states[rows[0]])} in {place}{branch}, {phase}{_weights(module)}")


def kind(values: torch.Tensor) -> str:
    """Say what is no number among values."""
    return "NaN" if bool(values.isnan().any()) else "infinity"


def _states(output: Any) -> list[torch.Tensor]:
    """Return the states among what a module gave."""
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, tuple | list):
        return [one for one in output[:1] if isinstance(one, torch.Tensor)]
    states = getattr(output, "last_hidden_state", None)
    return [states] if isinstance(states, torch.Tensor) else []


def _weights(module: Any) -> str:
    """Name a weight of a module that is no number."""
    for name, weight in module.named_parameters():
        if weight.is_floating_point() and not bool(weight.isfinite().all()):
            return f" ({BROKEN_WEIGHT} {name} holds {kind(weight)})"
    return ""
