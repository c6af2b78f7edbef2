"""Generation settings of lmms-eval tasks, and answers cut out of generated tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria

DEFAULT_NEW_TOKENS = 1024  # lmms-eval's llava_hf, for tasks that say nothing
_PASSED_ON = (
    "num_beams",
    "repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "min_new_tokens",
    "early_stopping",
)
SAMPLING_NAMES = ("top_p", "top_k", "min_p")
_RETURNED = ("n", "best_of", "num_return_sequences")
_CAPS = ("max_new_tokens", "max_gen_toks")
GENERATION_NAMES = ("until", *_CAPS, "temperature", "do_sample", *_PASSED_ON, *SAMPLING_NAMES, *_RETURNED)
"""All settings that :meth:`Settings.of` reads."""
Decode = Callable[[Sequence[int]], str]


class Answer(str):
    """A generated text that knows how it ended.

    Attributes:
        terminated: True when the model ended it (end-of-sequence token or a stop string of the task), False when it was
            cut at the token cap.
        tokens: generated tokens, the end-of-sequence token included.

    lmms-eval strips answers before it scores them; the stripped text still knows.
    """

    terminated: bool
    tokens: int

    def __new__(cls, text: str, terminated: bool, tokens: int) -> Answer:
        answer = super().__new__(cls, text)
        answer.terminated = terminated
        answer.tokens = tokens
        return answer

    def __getnewargs__(self) -> tuple[str, bool, int]:  # type: ignore[override]
        return str(self), self.terminated, self.tokens

    def strip(self, chars: str | None = None, /) -> Answer:
        return Answer(super().strip(chars), self.terminated, self.tokens)


@dataclass(frozen=True)
class Settings:
    """What a task's generation_kwargs ask for, read as lmms-eval's models read them.

    Temperature 0, or none, is greedy; above 0 it samples, unless do_sample is false. top_p, top_k and min_p count only
    when sampling. Requests with equal settings may share a batch.
    """

    max_new_tokens: int
    stops: tuple[str, ...]
    temperature: float | None  # None: do not sample
    others: tuple[tuple[str, Any], ...]  # named as transformers names them

    @classmethod
    def of(cls, kwargs: Mapping[str, Any]) -> tuple[Settings, tuple[str, ...]]:
        """Read a task's generation_kwargs; return the settings and the keys that this model has no use for.

        Raises:
            ValueError: a value that cannot be meant, or more than one answer a request.
        """
        given = {key: value for key, value in kwargs.items() if value is not None}
        stops = given.pop("until", [])
        stops = [stops] if isinstance(stops, str) else stops
        if not isinstance(stops, list | tuple) or not all(isinstance(stop, str) for stop in stops):
            raise ValueError(f"until must be a string or a list of strings, got {stops!r}")
        for key in _RETURNED:
            if given.pop(key, 1) != 1:
                raise ValueError(f"{key} must be 1: one answer a request; for several use --repeats")
        caps = [given.pop(key) for key in _CAPS if key in given]
        temperature = _number("temperature", given.pop("temperature", None), 0.0)
        do_sample = given.pop("do_sample", None)
        if temperature is None and do_sample:
            temperature = 1.0
        if not temperature or do_sample is False:
            temperature = None
        others = {key: given.pop(key) for key in _PASSED_ON if key in given}
        sampling = {key: given.pop(key) for key in SAMPLING_NAMES if key in given}
        if temperature is not None:
            others |= sampling
        for key, value in others.items():
            if not isinstance(value, int | float | str):
                raise ValueError(f"{key} must be a number, got {value!r}")
        settings = cls(
            max_new_tokens=_count("max_new_tokens", caps[0] if caps else DEFAULT_NEW_TOKENS),
            stops=tuple(stop for stop in stops if stop),
            temperature=temperature,
            others=tuple(sorted(others.items())),
        )
        return settings, tuple(sorted(given))

    @property
    def beams(self) -> int:
        """The number of beams; 1 is no beam search."""
        return int(dict(self.others).get("num_beams", 1))

    def positions(self, prompt: int) -> int:
        """Return the positions that a prompt of so many tokens takes with its longest answer, in all beams."""
        return (prompt + self.max_new_tokens) * self.beams

    def config(self, special: Mapping[str, Any]) -> GenerationConfig:
        """Return transformers' settings; ``special`` names the special tokens."""
        sampling = {} if self.temperature is None else {"temperature": self.temperature}
        return GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            do_sample=self.temperature is not None,
            remove_invalid_values=False,  # logits that are no numbers are an error, whatever the checkpoint says
            **sampling,
            **dict(self.others),
            **special,
        )


class StopAtStrings(StoppingCriteria):  # type: ignore[misc]
    """End a row once its generated text holds one of the stop strings.

    It only saves time: :func:`finish` cuts the text. Unlike transformers' own criterion it never looks at the prompt,
    and needs no table over the vocabulary.
    """

    def __init__(self, stops: Sequence[str], prompt_length: int, decode: Decode) -> None:
        self._stops = tuple(stops)
        self._start = prompt_length
        self._decode = decode
        # A character takes at most four byte tokens; a few more let a special token or a split character pass.
        self._window = 4 * max(map(len, stops)) + 8

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        rows = input_ids[:, self._start :].tolist()
        return torch.tensor([self._stopped(row) for row in rows], device=input_ids.device)

    def _stopped(self, row: list[int]) -> bool:
        tail = self._decode(row[-self._window :])
        return _holds(tail, self._stops) and _holds(self._decode(row), self._stops)


def finish(row: Sequence[int], eos: Sequence[int], stops: Sequence[str], decode: Decode) -> Answer:
    """Cut an answer out of one row of generated tokens, which may be followed by padding.

    It ends at the first end-of-sequence token, or before the first stop string. Its token count is of the tokens that
    the model needed to get there, so it does not depend on the batch.
    """
    ends = [index for index, token in enumerate(row) if token in eos]
    tokens = list(row[: ends[0] + 1] if ends else row)
    text = decode(tokens)
    found = [text.index(stop) for stop in stops if stop in text]
    if not found:
        return Answer(text, terminated=bool(ends), tokens=len(tokens))
    low, high = 1, len(tokens)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _holds(decode(tokens[:middle]), stops) else (middle + 1, high)
    return Answer(text[: min(found)], terminated=True, tokens=low)


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Return the ids of the tokens that end an answer: the checkpoint's, or the tokenizer's where it names none."""
    ids = model.generation_config.eos_token_id
    ids = tokenizer.eos_token_id if ids is None else ids
    return [ids] if isinstance(ids, int) else list(ids)


def _holds(text: str, stops: Sequence[str]) -> bool:
    return any(stop in text for stop in stops)


def _number(name: str, value: Any, low: float) -> float | None:
    try:
        number = None if value is None else float(value)
        if isinstance(value, bool) or (number is not None and not low <= number < float("inf")):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number of at least {low:g}, got {value!r}") from None
    return number


def _count(name: str, value: Any) -> int:
    number = _number(name, value, 1)
    if number is None or number != int(number):
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return int(number)
