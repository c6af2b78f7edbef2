"""The one way from prompts to answers: a loaded model with its encoder, under whatever method is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from lmms_fixattn.engine.generation import Answer, Settings, StopAtStrings, end_tokens, finish
from lmms_fixattn.models.encoding import PromptEncoder
from lmms_fixattn.models.family import to_model

Batch = dict[str, torch.Tensor]
"""A left-padded batch of prompts: ``PromptEncoder.batch``."""

Generating = Callable[..., torch.Tensor]
"""Generates from (model, inputs, configuration, **others of generate): token ids [rows, prompt and answer]."""


def plainly(model: Any, inputs: Batch, config: Any, **others: Any) -> torch.Tensor:
    """Generate as transformers does by itself."""
    sequences: torch.Tensor = model.generate(**inputs, generation_config=config, **others)
    return sequences


class Runner:
    """A loaded model that answers batches of prompts.

    Args:
        model: a model of a known family, with its weights.
        encoder: of the same checkpoint.
    """

    def __init__(self, model: Any, encoder: PromptEncoder) -> None:
        self.model = model
        self.encoder = encoder
        self.end_tokens = end_tokens(model, encoder.tokenizer)

    def greedy(self, batch: Batch, new_tokens: int) -> Settings:
        """Return greedy settings of at most so many tokens, and of no more than the model has positions for."""
        room = self.encoder.family.positions - batch["input_ids"].shape[1]
        return Settings.of({"max_new_tokens": min(new_tokens, room)})[0]

    def inputs(self, batch: Batch) -> Batch:
        """Return a batch on the model's device, pixels in its data type."""
        return to_model(self.model, batch)

    def generate(
        self, batch: Batch, settings: Settings, generating: Generating = plainly, **others: Any
    ) -> list[list[int]]:
        """Return the tokens of each answer, padding behind them.

        Args:
            generating: what calls ``model.generate``.
            others: further arguments of ``generate``.
        """
        inputs = self.inputs(batch)
        start = inputs["input_ids"].shape[1]
        special = {"eos_token_id": self.end_tokens, "pad_token_id": self.encoder.tokenizer.pad_token_id}
        if settings.stops:
            others["stopping_criteria"] = [StopAtStrings(settings.stops, start, self.encoder.decode)]
        with torch.inference_mode():
            rows = generating(self.model, inputs, settings.config(special), **others)
        return rows[:, start:].tolist()

    def answer(self, batch: Batch, settings: Settings, generating: Generating = plainly) -> list[Answer]:
        """Return the answers, each cut where it ends."""
        return [self.finish(row, settings.stops) for row in self.generate(batch, settings, generating)]

    def finish(self, row: Sequence[int], stops: Sequence[str] = ()) -> Answer:
        """Cut an answer out of its tokens, at its end or before the first stop string."""
        return finish(row, self.end_tokens, stops, self.encoder.decode)
