"""What lmms-eval's run must know of a model: the record for its result, and a cache of its answers.

lmms-eval 0.7.3 keeps of a model only the string of --model_args: defaults, library versions and the data type that
"auto" came to are in neither the result file nor the key of --use_cache, so that answers of two package versions would
be mixed. It has no hook for either. `evaluate`, which every run goes through, is therefore wrapped once: it is given
this package's cache, and its result takes the model's record in under "lmms_fixattn", with further figures of
lmms-eval's own `pope`. Before the first answer it says what will not be saved.
"""

from __future__ import annotations

import functools
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from loguru import logger

from lmms_fixattn.errors import stop_signal, stoppable
from lmms_fixattn.harness.answer_cache import AnswerCache
from lmms_fixattn.harness.flags import check_flags
from lmms_fixattn.plugin import after_import


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
        evaluate_once = evaluate
        if kwargs.get("cli_args") is not None:
            check_what_is_saved(kwargs["cli_args"])
            show_method(kwargs["cli_args"], lm)
            evaluate_once = partial(_stopped_in_one_line, evaluate)
        if kwargs.get("response_cache") is not None:
            kwargs["response_cache"] = AnswerCache(kwargs["response_cache"], task_dict or {})
        with lmms_pope.rows_recorded(task_dict or {}) as answers:
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
        rest = "nothing of it is kept; with --use_cache DIR, the same command would go on from here"
        if cache:
            rest = f"what was answered is kept in {cache}, and the same command goes on from there"
        logger.critical(f"llava_fixattn stopped by {stop_signal(stop).name}: {rest}")
        raise SystemExit(128 + stop_signal(stop)) from None


def check_what_is_saved(cli_args: Any) -> None:
    """Say which of a run's answers lmms-eval will not keep, and see to it that it can write what it will.

    Args:
        cli_args: those of lmms-eval's command line.

    Raises:
        ValueError: --output_path cannot be written to, of which lmms-eval only warns, after the run.
    """
    output = getattr(cli_args, "output_path", None)
    if int(os.environ.get("RANK", 0)):
        return
    if not (output and getattr(cli_args, "log_samples", False)):
        missing = "--log_samples" if output else "--output_path DIR --log_samples"
        logger.warning(
            "llava_fixattn: captions and answers of this run, which lmms-fixattn compare needs, will not be saved: "
            f"add {missing}"
        )
    if not output:
        return
    try:
        Path(output).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output).close()
    except OSError as error:
        raise ValueError(f"--output_path {output}: nothing can be written there ({error.strerror or error})") from error


def show_method(cli_args: Any, lm: Any) -> None:
    """Let the line above lmms-eval's table, which repeats --model_args, name a method that was left to the default."""
    given = getattr(cli_args, "model_args", None)
    if getattr(lm, "method_is_default", False) and isinstance(given, str):
        cli_args.model_args = f"method={lm.method.name}{',' if given else ''}{given}"
