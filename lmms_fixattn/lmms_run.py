"""What lmms-eval's run must know of a model: the record for its result, and the key of its answers in the cache.

lmms-eval 0.7.3 keeps of a model only the string of --model_args: defaults, library versions and the data type that
"auto" came to are in neither the result file nor the key of --use_cache, so that answers of two package versions would
be mixed. It has no hook for either. `evaluate`, which every run goes through, is therefore wrapped once: it is given a
cache that keys on the model's identity, and its result takes the model's record in under "lmms_fixattn".
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Any, Protocol

from lmms_fixattn.generation import Answer
from lmms_fixattn.plugin import after_import


class Recorded(Protocol):
    """A model that describes itself."""

    def record(self) -> dict[str, Any]:
        """What a result states of the model, ready for JSON."""

    def identity(self) -> dict[str, Any]:
        """What the answers depend on besides the request, ready for JSON."""


def record_runs() -> None:
    """Wrap `lmms_eval.evaluator.evaluate`, now or when it is imported; a second call changes nothing."""
    after_import("lmms_eval.evaluator", _wrap_evaluate)


def _wrap_evaluate(evaluator: Any) -> None:
    evaluate = evaluator.evaluate
    if getattr(evaluate, "records_lmms_fixattn", False):
        return

    @functools.wraps(evaluate)
    def recording_evaluate(lm: Any, *args: Any, **kwargs: Any) -> Any:
        if not (hasattr(lm, "record") and hasattr(lm, "identity")):
            return evaluate(lm, *args, **kwargs)
        if kwargs.get("response_cache") is not None:
            kwargs["response_cache"] = KeyedCache(kwargs["response_cache"], lm)
        results = evaluate(lm, *args, **kwargs)
        if results is not None:
            results["lmms_fixattn"] = lm.record()
        return results

    recording_evaluate.records_lmms_fixattn = True  # type: ignore[attr-defined]
    evaluator.evaluate = recording_evaluate


class KeyedCache:
    """lmms-eval's ResponseCache for one model: keyed on what its answers depend on, and keeping how they ended.

    The cache itself stores bare texts, which lose token counts and termination; it is handed JSON objects instead.
    """

    def __init__(self, cache: Any, model: Recorded) -> None:
        if not hasattr(cache, "_model_fingerprint_hash"):
            raise RuntimeError(
                "--use_cache: this lmms-eval keys its cache in an unknown way, so answers of different settings could "
                "be mixed; run without --use_cache, or with lmms-eval 0.7.3"
            )
        identity = json.dumps(model.identity(), sort_keys=True)
        cache._model_fingerprint_hash = _digest(f"{cache.model_fingerprint}|{identity}")
        self._cache = cache

    def execute(self, lm: Any, request_type: str, requests: Sequence[Any]) -> list[Any]:
        """Answer requests from the cache, the others by the model."""
        stored = self._cache.execute(_Storable(lm), request_type, requests)
        return [from_json(response) for response in stored]


class _Storable:
    """The model, answering with JSON objects in place of lmms-eval's results."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        answer = getattr(self._model, name)
        return lambda requests: [to_json(response) for response in answer(requests)]


def to_json(response: Any) -> dict[str, Any]:
    """Return an answer, or the answers of a conversation, as JSON can hold it: text, how it ended, token counts."""
    if isinstance(response, list):
        return {"rounds": [_store_answer(answer) for answer in response]}
    counts = response.token_counts
    return {**_store_answer(response.text), "input_tokens": counts.input_tokens, "output_tokens": counts.output_tokens}


def _store_answer(answer: Answer) -> dict[str, Any]:
    return {"text": str(answer), "terminated": answer.terminated, "tokens": answer.tokens}


def from_json(stored: dict[str, Any]) -> Any:
    """Return what :func:`to_json` was given."""
    from lmms_eval.api.instance import GenerationResult, TokenCounts

    if "rounds" in stored:
        return [_revive_answer(answer) for answer in stored["rounds"]]
    counts = TokenCounts(input_tokens=stored["input_tokens"], output_tokens=stored["output_tokens"])
    return GenerationResult(text=_revive_answer(stored), token_counts=counts)


def _revive_answer(stored: dict[str, Any]) -> Answer:
    return Answer(stored["text"], stored["terminated"], stored["tokens"])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
