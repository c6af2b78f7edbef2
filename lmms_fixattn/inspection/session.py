"""Ask a checkpoint as the lmms-eval model does: the same loading, prompt and generation, one question at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor

from lmms_fixattn.engine.intervention import intervene
from lmms_fixattn.engine.runner import Runner
from lmms_fixattn.inspection.recording import Recording, record_attention
from lmms_fixattn.methods import Method, make_method
from lmms_fixattn.methods.views import VisionAttention
from lmms_fixattn.models import arguments
from lmms_fixattn.models.checkpoint import Checkpoint
from lmms_fixattn.models.encoding import Encoded, PromptEncoder
from lmms_fixattn.models.family import Picture, to_model
from lmms_fixattn.versions import installed


def read_methods(texts: Sequence[str]) -> dict[str, Method]:
    """Make methods of "NAME" or "NAME,key=value,...", as --model_args writes them; labelled "NAME key=value ...".

    Raises:
        ValueError: one given twice, an unknown method or hyper-parameter, or a value out of range.
    """
    methods: dict[str, Method] = {}
    for text in texts:
        name, _, others = text.partition(",")
        given = arguments.split_args(others)
        label = " ".join([name.strip(), *(f"{key}={value}" for key, value in given.items())])
        if label in methods:
            raise ValueError(f"method {label} is given twice")
        methods[label] = method = make_method(name.strip(), **given)
        if method.ask("question") != "question":
            raise ValueError(f"{label} asks another question; here every method answers the same one")
    return methods


@dataclass(frozen=True)
class Reply:
    """An answer as text and as the tokens that were generated, the end-of-sequence token included."""

    text: str
    tokens: tuple[int, ...]
    terminated: bool


class Session:
    """A loaded checkpoint that answers greedily, under any method.

    Args:
        pretrained: ``demo``, a local directory, or a hub id.
        conversation: the prompt's form, see :mod:`lmms_fixattn.models.prompts`.

    Raises:
        ValueError: no checkpoint of a known family there, or an unknown form.
    """

    def __init__(self, pretrained: str = "demo", conversation: str = "default") -> None:
        device = arguments.device(None)
        checkpoint = Checkpoint.find(pretrained, "main")
        dtype = arguments.dtype("auto", device, checkpoint.config.dtype)
        self.encoder = PromptEncoder(checkpoint.load_processor(), checkpoint.config, conversation)
        self.model = checkpoint.load_model(dtype, device, "", None)
        self.runner = Runner(self.model, self.encoder)
        self.record = {
            "pretrained": pretrained,
            "commit": checkpoint.commit,
            "conversation": conversation,
            "dtype": str(dtype).removeprefix("torch."),
            "versions": installed(),
        }

    def encode(self, image: Any, turns: Sequence[str]) -> Encoded:
        """Encode a conversation on a picture: question, answer, question, ...; the last one is to be answered."""
        messages: list[dict[str, Any]] = []
        for index, text in enumerate(turns):
            parts: list[dict[str, Any]] = [] if index else [{"type": "image", "url": image}]
            role = "assistant" if index % 2 else "user"
            messages.append({"role": role, "content": [*parts, {"type": "text", "text": text}]})
        return self.encoder.encode(messages)

    def answer(self, prompt: Encoded, method: Method, new_tokens: int) -> Reply:
        """Answer greedily under the method."""
        with intervene(self.model, method, self.encoder.tokenizer):
            tokens = self._run(prompt, new_tokens)
        answer = self.runner.finish(tokens)
        return Reply(answer.strip(), tuple(tokens[: answer.tokens]), answer.terminated)

    def read(self, prompt: Encoded, tokens: Sequence[int], method: Method) -> Recording:
        """Record the attention under the method while the model reads a given answer, token by token."""
        with intervene(self.model, method, self.encoder.tokenizer), record_attention(self.model) as recorder:
            self._run(prompt, len(tokens), _Follow(len(prompt.ids), tokens))
        return recorder.recording()

    def embeddings(self, prompt: Encoded) -> tuple[np.ndarray, np.ndarray]:
        """Return what the decoder reads of a prompt, float32 [positions, size], and which positions are the image's."""
        inputs = to_model(self.model, self.encoder.batch([prompt]))
        with torch.inference_mode():
            read = self.model(**inputs, output_hidden_states=True).hidden_states[0][0]
        return read.float().cpu().numpy(), np.array(prompt.ids) == self.encoder.family.image_token_id

    def vocabulary(self) -> np.ndarray:
        """Return the text embeddings of the whole vocabulary, float32 [tokens, size]."""
        weight = self.model.get_input_embeddings().weight.detach()
        return weight.float().cpu().numpy()  # type: ignore[no-any-return]

    def vision(self, prompt: Encoded, parts: frozenset[str]) -> VisionAttention:
        """Return what the vision tower's attention tells of the prompt's picture; ``parts`` as in ``Family.watch``."""
        family = self.encoder.family
        with torch.inference_mode(), family.watch(self.model, parts) as watch:
            self.model.get_image_features(**to_model(self.model, family.together([_picture(prompt)])))
        return watch.latest()

    def picture(self, prompt: Encoded) -> np.ndarray:
        """Return the prompt's picture as the model sees it, resized and cropped: float32 [height, width, 3] in 0..1."""
        return self.encoder.family.shown(_picture(prompt), self.encoder.processor.image_processor).numpy()

    def grid(self, prompt: Encoded) -> tuple[int, int]:
        """Return the rows and columns of patches of the prompt's picture."""
        return self.encoder.family.grid(_picture(prompt))

    def _run(self, prompt: Encoded, new_tokens: int, *processors: Any) -> list[int]:
        batch = self.encoder.batch([prompt])
        settings = self.runner.greedy(batch, new_tokens)
        return self.runner.generate(batch, settings, logits_processor=list(processors))[0]


class _Follow(LogitsProcessor):  # type: ignore[misc]
    """Leave only the next token of a given answer."""

    def __init__(self, start: int, tokens: Sequence[int]) -> None:
        self._start = start
        self._tokens = tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        token = self._tokens[input_ids.shape[1] - self._start]
        only = torch.full_like(scores, -torch.inf)
        only[:, token] = 0
        return only


def _picture(prompt: Encoded) -> Picture:
    if not prompt.images:
        raise ValueError("expected a prompt with a picture, got text alone")
    return prompt.images[0]
