"""What must happen while an answer is made under a method, and what did: where they differ, there is no answer.

A method whose hook was passed by leaves the unmodified model's answer, which would be scored as the method's. So every
pass of the text model under an edit writes down what happened in which layer, and this is compared with what must have
happened when the pass is over. Both are strings: where a step is compiled they are constants of the trace, looked at
when the graph is made, which cost nothing when it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import LogitsProcessor

from lmms_fixattn.engine.edit import Edit
from lmms_fixattn.models.transformers_api import EngineError

KINDS = {
    "input": "the states that enter it were not shown to the method",
    "early": "the states that enter it were not kept for early-exit logits",
    "cache": "the contrastive branch's keys and values did not reach its KV cache",
    "attention": "its attention function was not called with the answer's edit",
    "edit": "its newest row was not edited",
    "branch": "the contrastive branch did not attend in it",
}
"""What can happen in a layer, in the order in which it does, and what it means where it does not."""


def must_happen(depth: int, layers: Mapping[str, Sequence[int]]) -> str:
    """Write down what must happen in one pass, as ``Edit.saw`` does.

    Args:
        depth: the number of layers.
        layers: by kind, those in which it happens; one that is there twice, twice.
    """
    saw = Edit((), torch.empty(0), torch.empty(0))
    for layer in range(depth):
        for kind in KINDS:
            for _ in range(list(layers[kind]).count(layer)):
                saw.saw(kind, layer)
    return saw.seen


def check_pass(edit: Edit, expected: str, name: str) -> None:
    """See to it that a pass did what it must, once it is over.

    Raises:
        EngineError: it did not; names the method, the first layer and what was missing there.
    """
    if edit.seen != expected:
        raise EngineError(f"{name}: {_difference(edit.seen, expected)}")
    edit.over, edit.seen = True, ""


def _difference(seen: str, expected: str) -> str:
    came, due = (text.removesuffix(", ").split(", ") for text in (seen, expected))
    lacking = [event for event in due if event not in came]
    if not lacking:
        return f"layers ran more than once, or out of order, in one forward pass: {seen}"
    kind, layer = lacking[0].split()
    layers = sum(event.startswith(kind) for event in lacking)
    return f"layer {layer}: {KINDS[kind]}; so in {layers} of {sum(event.startswith(kind) for event in due)} layers"


class EveryStep(LogitsProcessor):  # type: ignore[misc]
    """A logits processor that must be called for every token, and counts that it is (:func:`check_calls`).

    Attributes:
        start: the prompt's length, from the first token on.
        steps: tokens that were chosen, per row.
    """

    start: int

    def __init__(self) -> None:
        self.steps = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not self.steps:
            self.start = input_ids.shape[1]
        scores = self.process(input_ids, scores)
        self.steps += 1
        return scores

    def process(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores that the next token is chosen by, given prompts with answers, int64 [rows, columns]."""
        raise NotImplementedError


class Witness(EveryStep):
    """A logits processor that changes nothing, and sees to it that every token comes from a pass under the edit.

    Attributes:
        name: the method's, for errors.
        beams: the number of beams, between whose steps the contrastive branch's KV cache must be reordered as well.
        prompts: prompts that were read in this call of ``generate``.
        edit: of the prompt that was read.
    """

    def __init__(self, name: str, beams: int) -> None:
        super().__init__()
        self.name = name
        self.beams = beams
        self.prompts = 0
        self.edit: Edit | None = None

    def begins(self, edit: Edit) -> None:
        """Note that a prompt is read.

        Raises:
            EngineError: another one was, so that this is a step whose prompt's edit was lost.
        """
        self.prompts += 1
        self.edit = edit
        if self.prompts > 1:
            raise EngineError(
                f"{self.name}: a second prompt was read within one answer: a step came with a KV cache that its "
                "prompt was not read into"
            )

    def process(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.edit is None or not self.edit.over:
            which = "the first token" if not self.steps else f"token {self.steps + 1} of the answer"
            raise EngineError(f"{self.name}: {which} came from a forward pass that the method had no part in")
        branch = self.edit.branch
        if self.beams > 1 and branch is not None and branch.reordered != self.steps:
            raise EngineError(
                f"{self.name}: the contrastive branch's KV cache was reordered {branch.reordered} times "
                f"in {self.steps} steps of beam search"
            )
        self.edit.over = False
        return scores


def check_calls(name: str, processors: Sequence[EveryStep], output: Any) -> None:
    """See to it that ``generate`` called each of the method's logits processors for every token of its output.

    Args:
        output: what ``generate`` returned.

    Raises:
        EngineError: it did not.
    """
    sequences = output if isinstance(output, torch.Tensor) else output.sequences
    for processor in processors:
        tokens = sequences.shape[1] - (processor.start if processor.steps else 0)
        if processor.steps < tokens:
            raise EngineError(
                f"{name}: generate called {type(processor).__name__} for {processor.steps} of {tokens} tokens"
            )
