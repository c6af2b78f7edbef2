"""Flags of lmms-eval that this model cannot honour: refused before anything is answered, never recorded and unused.

docs/flags.md goes through all flags of lmms-eval 0.7.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loguru import logger

from lmms_fixattn.engine.generation import GENERATION_NAMES, SAMPLING_NAMES, Settings
from lmms_fixattn.errors import did_you_mean
from lmms_fixattn.harness.tasks.tree import leaves

_REFUSED = {
    "system_instruction": "prompts of this model take none; conversation=llava_v1 in --model_args writes LLaVA-1.5's "
    "own system prompt, and a task's doc_to_messages may write another",
    "apply_chat_template": "llava_fixattn always writes chat prompts, see conversation=; leave it out",
    "fewshot_as_multiturn": "a task of pictures is asked without examples; leave it out",
    "cache_requests": "lmms-eval drops from its cache of requests how a task writes its messages; leave it out "
    "(--use_cache, which keeps answers, works)",
}
"""Flags that no answer would follow, and why."""


def check_flags(lm: Any, task_dict: Mapping[Any, Any], flags: Mapping[str, Any], cli_args: Any) -> None:
    """Refuse what was asked of a run of this model and would change nothing.

    Args:
        task_dict: the run's tasks, in groups or not.
        flags: the keyword arguments of lmms-eval's ``evaluate``.
        cli_args: those of its command line, None where it was not used.

    Raises:
        ValueError: names the flag, why it cannot be honoured, and what to do.
    """
    for name, why in _REFUSED.items():
        if flags.get(name):
            raise ValueError(f"--{name}: {why}")
    if getattr(cli_args, "max_tokens", None) is not None:
        raise ValueError("--max_tokens: lmms-eval counts tokens of models behind an API alone; use --limit")
    _check_examples(lm, task_dict, getattr(cli_args, "num_fewshot", None))
    if text := getattr(cli_args, "gen_kwargs", None):
        from lmms_eval.utils import simple_parse_args_string

        check_gen_kwargs(simple_parse_args_string(text), getattr(lm, "method", None))


def check_gen_kwargs(given: Mapping[str, Any], method: Any = None) -> None:
    """Refuse settings of --gen_kwargs that no answer would follow.

    Args:
        method: the model's, whose own settings of the generation win.

    Raises:
        ValueError: an unknown name, a value that cannot be meant, or a setting of the method.
    """
    for name in given:
        if name not in GENERATION_NAMES:
            raise ValueError(
                f"--gen_kwargs: unknown setting {name!r}{did_you_mean(name, GENERATION_NAMES)}; expected some of "
                f"{', '.join(GENERATION_NAMES)}"
            )
        if method is not None and name in method.generation:
            raise ValueError(
                f"--gen_kwargs {name}: method={method.name} sets it to {method.generation[name]}; leave it out, and "
                "set the method's own arguments in --model_args (lmms-fixattn methods lists them)"
            )
    try:
        settings, _ = Settings.of(given)
    except ValueError as error:
        raise ValueError(f"--gen_kwargs: {error}") from error
    unused = [name for name in SAMPLING_NAMES if name in given]
    if unused and settings.temperature is None:
        logger.warning(
            f"llava_fixattn: --gen_kwargs {', '.join(unused)} counts only when sampling; set temperature as well"
        )


def _check_examples(lm: Any, task_dict: Mapping[Any, Any], asked: int | None) -> None:
    for task in leaves(task_dict):
        shots = task.config.num_fewshot or 0
        name = task.config.task
        if asked and shots != asked:
            raise ValueError(f"--num_fewshot {asked}: task {name} is asked with {shots} examples, whatever is given")
        of_pictures = task.config.doc_to_visual is not None or callable(task.config.doc_to_messages)
        if shots and of_pictures and not lm.is_simple:
            where = f"--num_fewshot {asked}" if asked else f"num_fewshot: {shots} of task {name}"
            raise ValueError(
                f"{where}: lmms-eval writes no examples into the messages of {name}, so that it would be asked without "
                "any; leave it out, or set num_fewshot: 0 in the task"
            )
