"""Flags that would change nothing are refused, each with its name and what to do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from loguru import logger

from lmms_fixattn.harness.flags import check_flags, check_gen_kwargs
from lmms_fixattn.methods import make_method


def task(name: str = "t", shots: int | None = 0, **config: Any) -> Any:
    config = {"doc_to_visual": print, "doc_to_messages": None, **config}
    return SimpleNamespace(config=SimpleNamespace(task=name, num_fewshot=shots, **config))


def check(tasks: Any = None, simple: bool = False, method: str = "vanilla", cli: Any = None, **flags: Any) -> None:
    lm = SimpleNamespace(is_simple=simple, method=make_method(method))
    check_flags(lm, {"t": task()} if tasks is None else tasks, flags, SimpleNamespace(**(cli or {})))


def test_a_run_with_flags_left_alone_is_let_through() -> None:
    check(system_instruction=None, apply_chat_template=False, fewshot_as_multiturn=False, cache_requests=False)
    check(cli={"num_fewshot": None, "gen_kwargs": None, "max_tokens": None})
    check(cli={"num_fewshot": 0, "gen_kwargs": "temperature=0,max_new_tokens=7,until=[]"})


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("system_instruction", "Answer in French."),
        ("apply_chat_template", True),
        ("fewshot_as_multiturn", True),
        ("cache_requests", True),
    ],
)
def test_what_prompts_do_not_follow_is_refused(flag: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"--{flag}"):
        check(**{flag: value})


def test_a_budget_that_nobody_counts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--max_tokens: .*use --limit"):
        check(cli={"max_tokens": 5})


def test_examples_that_would_not_be_shown_are_refused_and_others_are_not() -> None:
    with pytest.raises(ValueError, match="--num_fewshot 2: lmms-eval writes no examples into the messages of t"):
        check({"group": {"t": task(shots=2)}}, cli={"num_fewshot": 2})
    with pytest.raises(ValueError, match="num_fewshot: 3 of task t: lmms-eval writes no examples"):
        check({"t": ("group", task(shots=3))})
    with pytest.raises(ValueError, match="--num_fewshot 2: task t is asked with 0 examples"):
        check({"t": task(shots=0)}, cli={"num_fewshot": 2})
    check({"t": task(shots=2, doc_to_visual=None)}, cli={"num_fewshot": 2})  # of text alone: its context has them
    check({"t": task(shots=2)}, simple=True, cli={"num_fewshot": 2})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_new_token=5", r"unknown setting 'max_new_token' \(did you mean 'max_new_tokens'\?\)"),
        ("max_new_tokens=0", "--gen_kwargs: max_new_tokens must be"),
        ("num_return_sequences=2", "num_return_sequences must be 1"),
    ],
)
def test_settings_of_the_generation_are_refused_by_name_before_anything_is_answered(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check(cli={"gen_kwargs": text})


def test_settings_that_the_method_sets_itself_are_refused() -> None:
    with pytest.raises(ValueError, match="--gen_kwargs num_beams: method=beam sets it to"):
        check(method="beam", cli={"gen_kwargs": "num_beams=3"})
    with pytest.raises(ValueError, match="--gen_kwargs temperature: method=nucleus sets it to"):
        check(method="nucleus", cli={"gen_kwargs": "temperature=0.5"})


def test_sampling_settings_without_sampling_are_said_to_count_for_nothing() -> None:
    said: list[str] = []
    sink = logger.add(lambda line: said.append(str(line)))
    check_gen_kwargs({"top_p": 0.9, "temperature": 0.7})
    assert said == []
    check_gen_kwargs({"top_p": 0.9})
    logger.remove(sink)
    assert "top_p counts only when sampling" in said[0]
