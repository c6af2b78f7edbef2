"""What a run keeps of the model: its record in the result, and answers in the cache that are never another model's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.caching.response_cache import ResponseCache
from loguru import logger

from lmms_fixattn.engine.generation import Answer
from lmms_fixattn.harness import results
from lmms_fixattn.harness.results import KeyedCache


class Model:
    """A model that answers with its own setting, and counts what it was asked."""

    is_simple = False
    draws = False

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.asked = 0

    def record(self) -> dict[str, Any]:
        return {"method": self.settings}

    def identity(self) -> dict[str, Any]:
        return {**self.record(), "version": "1"}

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        self.asked += len(requests)
        return [
            GenerationResult(
                Answer(f"{self.settings} {request.doc_id} ", request.doc_id % 2 == 0, 5), TokenCounts(3, 5)
            )
            for request in requests
        ]

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[list[str]]:
        self.asked += len(requests)
        return [[Answer(f"{self.settings}", True, 1), Answer(f"{request.doc_id}", False, 2)] for request in requests]


def ask(kind: str = "generate_until", **kwargs: Any) -> list[Instance]:
    return [
        Instance(kind, ("What?", print, kwargs, doc, "t", "s"), 0, {"task": "t", "doc_id": doc, "repeats": 1})
        for doc in range(5)
    ]


def run(folder: Path, model: Model, kind: str = "generate_until", **kwargs: Any) -> list[Any]:
    """One run of lmms-eval with its own cache, whose arguments are the same every time."""
    cache = ResponseCache.create(str(folder), model="llava_fixattn", model_args="pretrained=demo", task_dict={})
    try:
        return KeyedCache(cache, model).execute(model, kind, ask(kind, **kwargs))
    finally:
        cache.finalize(success=True)


def facts(answers: Sequence[Answer]) -> list[tuple[str, bool, int]]:
    return [(str(answer), answer.terminated, answer.tokens) for answer in answers]


def test_second_run_takes_its_answers_from_the_cache_with_counts_and_ends(tmp_path: Path) -> None:
    first, again = Model(alpha=1), Model(alpha=1)
    before, after = run(tmp_path, first), run(tmp_path, again)
    assert (first.asked, again.asked) == (5, 0)
    assert after == before == first.generate_until(ask())
    assert facts([result.text for result in after]) == facts([result.text for result in before])


def test_rounds_come_back_from_the_cache_as_they_were(tmp_path: Path) -> None:
    kind = "generate_until_multi_round"
    first, again = Model(alpha=1), Model(alpha=1)
    before, after = run(tmp_path, first, kind), run(tmp_path, again, kind)
    assert again.asked == 0
    assert [facts(answers) for answers in after] == [facts(answers) for answers in before]


def test_answers_of_another_model_are_not_taken(tmp_path: Path) -> None:
    run(tmp_path, Model(alpha=1))
    other = Model(alpha=2)
    assert run(tmp_path, other) == other.generate_until(ask())


def test_answers_of_another_version_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, Model(alpha=1))
    monkeypatch.setattr(Model, "identity", lambda self: {**self.record(), "version": "2"})
    newer = Model(alpha=1)
    run(tmp_path, newer)
    assert newer.asked == 5


def test_sampled_answers_are_drawn_again(tmp_path: Path) -> None:
    model = Model(alpha=1)
    run(tmp_path, model, temperature=0.7)
    run(tmp_path, model, temperature=0.7)
    assert model.asked == 10


def test_answers_that_the_method_draws_are_neither_kept_nor_taken(tmp_path: Path, said: list[str]) -> None:
    run(tmp_path, Model(alpha=1))
    model = Model(alpha=1)
    model.draws = True
    for _ in range(2):
        assert run(tmp_path, model) == Model(alpha=1).generate_until(ask())
    assert model.asked == 10
    assert sum("--use_cache is not used: this method draws" in line for line in said) == 2


def test_a_cache_with_another_kind_of_key_is_refused() -> None:
    with pytest.raises(RuntimeError, match="answers of different settings could be mixed"):
        KeyedCache(SimpleNamespace(execute=None), Model())


def test_result_states_the_model_once_wrapped_and_others_stay_as_they_are() -> None:
    def evaluate(lm: Any, task_dict: Any, response_cache: Any = None) -> Any:
        return None if task_dict is None else {"results": task_dict, "cache": response_cache}

    evaluator = SimpleNamespace(evaluate=evaluate)
    results._wrap_evaluate(evaluator)
    wrapped = evaluator.evaluate
    results._wrap_evaluate(evaluator)
    assert evaluator.evaluate is wrapped
    stated = wrapped(lm=Model(alpha=1), task_dict={}, response_cache=None)
    assert stated == {"results": {}, "cache": None, "lmms_fixattn": {"method": {"alpha": 1}}}
    assert wrapped(Model(), None) is None
    assert wrapped(object(), {}) == {"results": {}, "cache": None}


def arguments(**given: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"output_path": None, "log_samples": False, "model_args": "", **given})


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What is logged."""
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{level}: {message}")
    yield lines
    logger.remove(sink)


def test_a_run_says_at_its_start_what_it_will_not_keep(said: list[str], tmp_path: Path) -> None:
    results.check_what_is_kept(arguments())
    results.check_what_is_kept(arguments(output_path=str(tmp_path / "a")))
    results.check_what_is_kept(arguments(output_path=str(tmp_path / "b"), log_samples=True))
    without, figures_only = said
    assert without.startswith("WARNING: ")
    assert "will not be kept" in without
    assert "--output_path DIR --log_samples" in without
    assert figures_only.startswith("WARNING: ")
    assert "add --log_samples" in figures_only
    assert list((tmp_path / "b").iterdir()) == []


def test_only_the_first_process_says_so(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    results.check_what_is_kept(arguments())
    assert said == []


def test_an_output_path_that_cannot_be_written_stops_the_run_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"--output_path .*file/below: nothing can be written there"):
        results.check_what_is_kept(arguments(output_path=str(tmp_path / "file" / "below")))


@pytest.mark.parametrize(
    ("default", "given", "shown"),
    [
        (True, "", "method=fixattn"),
        (True, "pretrained=demo", "method=fixattn,pretrained=demo"),
        (False, "method=fixattn", "method=fixattn"),
    ],
)
def test_the_line_above_the_table_names_the_default_method(default: bool, given: str, shown: str) -> None:
    model, cli_args = Model(), arguments(model_args=given)
    model.method, model.method_is_default = SimpleNamespace(name="fixattn"), default  # type: ignore[attr-defined]
    results.show_method(cli_args, model)
    assert cli_args.model_args == shown
