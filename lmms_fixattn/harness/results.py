"""What lmms-eval's run must know of a model: the record for its result, and the key of its answers in the cache.

lmms-eval 0.7.3 keeps of a model only the string of --model_args: defaults, library versions and the data type that
"auto" came to are in neither the result file nor the key of --use_cache, so that answers of two package versions would
be mixed. It has no hook for either. `evaluate`, which every run goes through, is therefore wrapped once: it is given a
cache that keys on the model's identity, and its result takes the model's record in under "lmms_fixattn", with further
figures of lmms-eval's own `pope`. Before the first answer it says what will not be kept.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from accelerate.utils import gather_object
from loguru import logger

from lmms_fixattn.engine.generation import Answer
from lmms_fixattn.errors import stop_signal, stoppable
from lmms_fixattn.harness.flags import check_flags
from lmms_fixattn.plugin import after_import


class Recorded(Protocol):
    """A model that describes itself."""

    def record(self) -> dict[str, Any]:
        """What a result states of the model, ready for JSON."""

    def identity(self) -> dict[str, Any]:
        """What the answers depend on besides the request, ready for JSON."""

    @property
    def draws(self) -> bool:
        """Whether the answers are drawn at random even where a request does not ask for it."""


def record_runs() -> None:
    """Wrap `lmms_eval.evaluator.evaluate`, now or when it is imported; a second call changes nothing."""
    after_import("lmms_eval.evaluator", _wrap_evaluate)


def _wrap_evaluate(evaluator: Any) -> None:
    evaluate = evaluator.evaluate
    if getattr(evaluate, "records_lmms_fixattn", False):
        return

    @functools.wraps(evaluate)
    def recording_evaluate(lm: Any, task_dict: Any, *args: Any, **kwargs: Any) -> Any:
        if not (hasattr(lm, "record") and hasattr(lm, "identity")):
            return evaluate(lm, task_dict, *args, **kwargs)
        from lmms_fixattn.harness.tasks import lmms_pope

        check_flags(lm, task_dict or {}, kwargs, kwargs.get("cli_args"))
        if kwargs.get("cli_args") is not None:
            check_what_is_kept(kwargs["cli_args"])
            show_method(kwargs["cli_args"], lm)
            evaluate_once = partial(_stopped_in_one_line, evaluate)
        else:
            evaluate_once = evaluate
        if kwargs.get("response_cache") is not None:
            kwargs["response_cache"] = KeyedCache(kwargs["response_cache"], lm)
        with lmms_pope.answers_kept(task_dict or {}) as answers:
            results = evaluate_once(lm, task_dict, *args, **kwargs)
        # Every process holds the answers that it gave, and results are those of the first one.
        official = {task: lmms_pope.figures(gather_object(rows)) for task, rows in answers.items()}
        if results is not None:
            results["lmms_fixattn"] = lm.record()
            if official:
                results["lmms_fixattn"]["pope"] = official
                for task, figures in official.items():
                    logger.info(f"{task} {lmms_pope.in_words(figures)}")
        return results

    recording_evaluate.records_lmms_fixattn = True  # type: ignore[attr-defined]
    evaluator.evaluate = recording_evaluate


def _stopped_in_one_line(evaluate: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Evaluate; where the user or the system stops that, say in one line what was kept, and exit with 130 or 143."""
    try:
        with stoppable():
            return evaluate(*args, **kwargs)
    except KeyboardInterrupt as stop:
        cache = getattr(kwargs["cli_args"], "use_cache", None)
        kept = (
            f"what was answered is kept in {cache}, and the same command goes on from there"
            if cache
            else "nothing of it is kept; with --use_cache DIR, the same command would go on from here"
        )
        logger.critical(f"llava_fixattn stopped by {stop_signal(stop).name}: {kept}")
        raise SystemExit(128 + stop_signal(stop)) from None


def check_what_is_kept(cli_args: Any) -> None:
    """Say which of a run's answers lmms-eval will not keep, and see to it that it can write what it will.

    Args:
        cli_args: those of lmms-eval's command line.

    Raises:
        ValueError: --output_path cannot be written to, of which lmms-eval only warns, after the run.
    """
    output = getattr(cli_args, "output_path", None)
    if int(os.environ.get("RANK", 0)):
        return
    if not output:
        logger.warning(
            "llava_fixattn: captions and answers of this run will not be kept, only its table on the screen; "
            "to keep them give --output_path DIR --log_samples"
        )
        return
    if not getattr(cli_args, "log_samples", False):
        logger.warning(
            f"llava_fixattn: figures go to {output}, captions and answers will not be kept; to keep them, as "
            "lmms-fixattn compare needs, add --log_samples"
        )
    try:
        Path(output).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise ValueError(f"--output_path {output}: nothing can be written there ({error.strerror or error})") from error


def show_method(cli_args: Any, lm: Any) -> None:
    """Let the line above lmms-eval's table, which repeats --model_args, name a method that was left to the default."""
    given = getattr(cli_args, "model_args", None)
    if getattr(lm, "method_is_default", False) and isinstance(given, str):
        cli_args.model_args = f"method={lm.method.name}{',' if given else ''}{given}"


class KeyedCache:
    """lmms-eval's ResponseCache for one model: keyed on what its answers depend on, and keeping how they ended.

    The cache itself stores bare texts, which lose token counts and termination; it is handed JSON objects instead.
    lmms-eval keeps answers out of it that a request asks to be drawn; those that the method draws are kept out here,
    as what is drawn depends on the seed and on the batch.
    """

    def __init__(self, cache: Any, model: Recorded) -> None:
        if not hasattr(cache, "_model_fingerprint_hash"):
            raise RuntimeError(
                "--use_cache: this lmms-eval keys its cache in an unknown way, so answers of different settings could "
                "be mixed; run without --use_cache, or with lmms-eval 0.7.3"
            )
        identity = json.dumps(model.identity(), sort_keys=True)
        cache._model_fingerprint_hash = _digest(f"{cache.model_fingerprint}|{identity}")
        from lmms_fixattn.harness.resume import free_merge_lock

        free_merge_lock(cache)
        self._cache = cache
        self._draws = model.draws
        if self._draws:
            logger.warning("llava_fixattn: --use_cache is not used: this method draws its answers, by --seed")

    def execute(self, lm: Any, request_type: str, requests: Sequence[Any]) -> list[Any]:
        """Answer requests from the cache, the others by the model."""
        if self._draws:
            answers: list[Any] = getattr(lm, request_type)(requests)
            return answers
        from lmms_fixattn.harness.resume import resumable

        with resumable(self._cache, lm, request_type, requests):
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
