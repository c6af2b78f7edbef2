"""Guide the choice of the next token: by a contrastive branch, and by layers before the last.

The branch has its own cache, left padding and positions. Its prompt is read right after the answer's own prefill; from
then on its rows follow the answer's in the same batch, so that a step reads the model's weights once, and each half
attends to its own cache. Beams and sampling move both alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from transformers import Cache, StaticCache

from lmms_fixattn.engine.attention import EDIT, UNEDITED
from lmms_fixattn.engine.kv_cache import FixedCache, fixed_cache, reserved_cache
from lmms_fixattn.engine.witness import EveryStep
from lmms_fixattn.models.transformers_api import CausalMask, EngineError, length_of, with_cache

if TYPE_CHECKING:
    from lmms_fixattn.engine.edit import Edit
    from lmms_fixattn.methods.base import Method
    from lmms_fixattn.methods.formulas.branches import Inputs
    from lmms_fixattn.methods.views import Step


class ContrastiveBranch:
    """A branch's cache and state beside an answer's.

    Args:
        text: the text model.
        inputs: what the branch reads as its prompt.
        added: the argument of the text model by which it takes ``inputs.added``, from the family of the model.
        main: the answer's cache, filled by its prefill; until :meth:`detach` its layers pass the branch's rows on.
    """

    def __init__(self, text: Any, inputs: Inputs, added: dict[str, Any], main: Cache) -> None:
        embeds, positions = inputs.embeds, inputs.positions
        self.mask = inputs.mask.long()
        self.config = text.config
        self._causal_mask = CausalMask(text.config)
        self.main = main
        self.cache = self._new_cache(*embeds.shape[:2])
        self.hidden: torch.Tensor = text(
            inputs_embeds=embeds,
            attention_mask=self.mask,
            position_ids=positions,
            use_cache=True,
            **added,
            **with_cache(text, self.cache),
            **{EDIT: UNEDITED},
        ).last_hidden_state[:, -1]
        """The newest state of each row, [rows, hidden size]."""
        self.position = positions[..., -1:].clone()
        self._fixed = length_of(self.cache)
        if self._fixed is not None:
            # What lies behind the newest token is hidden by its place: the mask can be whole, and of one shape.
            self.mask = torch.nn.functional.pad(self.mask, (0, self._fixed - self.mask.shape[1]), value=1)
            torch._dynamo.mark_static_address(self.position)
        if isinstance(self.cache, FixedCache):  # compiled steps may have been recorded for an earlier one's place
            if self.cache.position is not None:
                self.position = self.cache.position.copy_(self.position)
            self.cache.position = self.position
        if int(self.cache.get_seq_length()) != embeds.shape[1]:
            raise EngineError(
                f"the contrastive branch's KV cache holds {int(self.cache.get_seq_length())} positions after a prompt "
                f"of {embeds.shape[1]}"
            )
        self.edit: Edit | None = None  # while a step runs
        self.reordered = 0
        for layer, (mine, theirs) in enumerate(zip(main.layers, self.cache.layers, strict=True)):
            self._join(layer, mine, theirs)

    def detach(self) -> None:
        """Give the answer's cache back as it was."""
        for layer in self.main.layers:
            for name in ("update", "reorder_cache"):
                vars(layer).pop(name, None)

    def with_branch_rows(self, kwargs: dict[str, Any], edit: Edit) -> dict[str, Any]:
        """Return a step's arguments of the text model with the branch's rows behind the answer's."""
        self.edit = edit
        embeds = kwargs["inputs_embeds"]
        rows = len(embeds)
        own = kwargs.get("position_ids")
        if own is None:
            own = torch.as_tensor(self.main.get_seq_length(), device=embeds.device).view(1, 1)
        own = own.expand_as(self.position)
        self.position.add_(1)
        if self._fixed is None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(rows, 1)], dim=1)
        self._attended = self._causal_mask(embeds, self.mask, self.cache, self.position.view(-1, rows, 1)[0])
        return {
            **kwargs,
            "inputs_embeds": torch.cat([embeds, embeds]),
            "position_ids": torch.cat([own, self.position], dim=-2),
            "attention_mask": _twice(kwargs.get("attention_mask")),
        }

    def split_branch_rows(self, output: Any) -> Any:
        """Keep the branch's rows of the text model's output, and return the answer's."""
        states = output.last_hidden_state
        rows = len(states) // 2
        self.hidden = states[rows:, -1]
        self.edit = None
        output.last_hidden_state = states[:rows]
        if output.hidden_states is not None:
            output.hidden_states = tuple(state[:rows] for state in output.hidden_states)
        return output

    def attend(self, own: Callable[..., Any], module: Any, query: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor:
        """Attend from the branch's rows of a step to its own cache: [rows, 1, heads, head size]."""
        layer = self.cache.layers[module.layer_idx]
        output, _ = own(module, query, layer.keys, layer.values, self._attended, **kwargs)
        self._saw("branch", module.layer_idx)
        return output  # type: ignore[no-any-return]

    def _saw(self, kind: str, layer: int) -> None:
        if self.edit is not None:
            self.edit.saw(kind, layer)

    def _join(self, number: int, mine: Any, theirs: Any) -> None:
        """Let a layer of the answer's cache hand the rows behind its own to a layer of the branch's."""
        update, reorder = mine.update, mine.reorder_cache

        def update_both(keys: torch.Tensor, values: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            rows = mine.keys.shape[0]
            theirs.update(keys[rows:], values[rows:], *args, **kwargs)
            self._saw("cache", number)
            return update(keys[:rows], values[:rows], *args, **kwargs)

        def reorder_both(beams: torch.Tensor) -> None:
            # The beams of a prompt share its padding and positions, so only keys and values move.
            reorder(beams)
            theirs.reorder_cache(beams)
            self.reordered += number == 0

        mine.update, mine.reorder_cache = update_both, reorder_both

    def _new_cache(self, rows: int, prompt: int) -> Cache:
        before = int(self.main.get_seq_length())
        if isinstance(self.main, FixedCache):
            needed = prompt + self.main.needed - before
            self.main.beside = fixed_cache(self.config, rows, needed, self.main.beside)
            return self.main.beside
        if isinstance(self.main, StaticCache):
            return StaticCache(config=self.config, max_cache_len=prompt + (length_of(self.main) or 0) - before)
        return reserved_cache(self.config)


def _twice(mask: Any) -> Any:
    if isinstance(mask, dict):
        return {kind: _twice(one) for kind, one in mask.items()}
    return None if mask is None else torch.cat([mask, mask])


class Guidance(EveryStep):
    """A logits processor that lets each guiding method choose new scores, in order.

    Prompts without image have nothing to contrast: their scores stay as a method with a branch found them.

    Args:
        methods: those that guide.
        view: returns the running step as a method sees it, and which rows have an image, bool [rows, 1], given the
            step's number.
    """

    def __init__(self, methods: list[Method], view: Callable[[int, Method], tuple[Step, torch.Tensor]]) -> None:
        super().__init__()
        self.methods = methods
        self.view = view

    def process(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        for method in self.methods:
            step, has_image = self.view(ids.shape[1] - self.start, method)
            if method.branch is None:
                scores = method.guide(scores, step).to(scores.dtype)
            elif step.branch is not None:
                scores = torch.where(has_image, method.guide(scores, step).to(scores.dtype), scores)
        return scores


class EndWhen(EveryStep):
    """A logits processor that leaves a row nothing but the end-of-sequence token once its answer is to end.

    Args:
        ends: says of an answer so far whether it is to end.
        decode: from generated tokens, their text.
        eos: the tokens that end an answer.
    """

    def __init__(self, ends: Callable[[str], bool], decode: Callable[[list[int]], str], eos: list[int]) -> None:
        super().__init__()
        self.ends = ends
        self.decode = decode
        self.eos = eos

    def process(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        over = [self.ends(self.decode(row)) for row in ids[:, self.start :].tolist()]
        final = torch.full_like(scores, -torch.inf)
        final[:, self.eos] = 0.0
        return torch.where(torch.tensor(over, device=scores.device)[:, None], final, scores)
