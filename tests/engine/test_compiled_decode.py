"""Compiled decoding under lmms-eval: the same answers, and what becomes of it where compiling goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from shapes_task import make, requests
from tiny_llava import WordTokenizer, batch, build_llava, make_prompt
from transformers import CompileConfig, GenerationConfig

from lmms_fixattn import intervene, make_method
from lmms_fixattn.engine import compiled_decode, contrastive_branch
from lmms_fixattn.models import transformers_api

pytestmark = pytest.mark.system


@pytest.fixture(autouse=True)
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Compile into plain calls, which takes no compiler, and return a list that grows with every graph."""
    compiled: list[Any] = []

    def backend(graph: Any, example: Any) -> Any:
        compiled.append(graph)
        return graph

    monkeypatch.setattr(transformers_api, "CompileConfig", partial(CompileConfig, backend=backend, mode=None))
    yield compiled
    torch.compiler.reset()


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(compiled_decode.logger, "warning", said.append)
    return said


@pytest.mark.parametrize("settings", [{"method": "fixattn", "gamma": 1}, {"method": "spin"}])
def test_compiled_batches_give_the_plain_answers_on_one_graph(settings: dict[str, Any], graphs: list[Any]) -> None:
    plain, compiled = (make(**settings, batch_size=4, compile=compile) for compile in (False, True))
    expected = plain.generate_until(requests())
    assert not graphs
    answers = compiled.generate_until(requests())
    assert [(a.text, a.text.tokens) for a in answers] == [(a.text, a.text.tokens) for a in expected]
    assert len(graphs) == 1  # the last batch, of three, is filled up
    assert compiled.record()["compile"] is True
    assert plain.record()["compile"] is False


@pytest.mark.parametrize("method", ["fixattn", "vcd"])
def test_batches_share_their_caches_whose_addresses_a_graph_holds(
    method: str, graphs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[Any, list[Any]] = {}
    for module in (compiled_decode, contrastive_branch):

        def recorded(*args: Any, module: Any = module, own: Any = module.fixed_cache) -> Any:
            given.setdefault(module, []).append(own(*args))
            return given[module][-1]

        monkeypatch.setattr(module, "fixed_cache", recorded)
    lm = make(method=method, batch_size=2, compile=True)
    answers = [answer.text for answer in lm.generate_until(requests())]
    assert answers == [answer.text for answer in make(method=method, batch_size=2).generate_until(requests())]
    assert set(given) == {compiled_decode, contrastive_branch}
    for caches in given.values():
        assert len(caches) >= 6  # five batches with an image, and a check of the first
        assert len({id(cache) for cache in caches}) == 1
    assert len(graphs) == 2  # the batch without an image has no contrastive branch


def test_methods_in_turns_may_have_more_graphs_than_torch_allows_one_function(graphs: list[Any]) -> None:
    torch.compiler.reset()
    model, fixed = build_llava(), compiled_decode.FixedSteps(compiled=True)
    settings = GenerationConfig(do_sample=False, max_new_tokens=3, min_new_tokens=3)
    most = torch._dynamo.config.recompile_limit
    spans = [(start, end) for start in range(3) for end in range(start + 1, 6)]
    methods = [make_method("spin", layers=span) for span in spans[: most + 1]]
    for _ in range(2):
        for method in methods:
            with intervene(model, method):
                fixed.generate(model, batch([make_prompt(seed=3)]), settings)
        assert len(graphs) == len(methods) > most
    assert torch._dynamo.config.recompile_limit == most


@pytest.mark.parametrize("method", ["pai", "vcd"])
def test_a_block_goes_on_with_the_graph_of_the_one_before_it(method: str, graphs: list[Any]) -> None:
    torch.compiler.reset()
    model = build_llava()
    settings = GenerationConfig(do_sample=False, max_new_tokens=3, min_new_tokens=3)
    fixed = compiled_decode.FixedSteps(compiled=True)
    for _ in range(3):
        with intervene(model, make_method(method), WordTokenizer()):
            fixed.generate(model, batch([make_prompt(seed=3)]), settings)
    assert len(graphs) == 1


def test_a_cache_is_let_go_of_with_the_model_and_with_the_compiler() -> None:
    lm = make(method="vanilla", compile=True)
    lm.generate_until(requests([0, 1]))
    assert lm._compiled._fixed.cache is not None
    lm.clean()
    assert lm._compiled._fixed.cache is None


def test_an_error_of_the_compiler_ends_compiling_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    def broken(graph: Any, example: Any) -> Any:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(transformers_api, "CompileConfig", partial(CompileConfig, backend=broken, mode=None))
    lm = make(method="spin", compile=True)
    answers = [answer.text for answer in lm.generate_until(requests())]
    assert answers == [answer.text for answer in make(method="spin").generate_until(requests())]
    assert [("not compiled from here on" in line, "no compiler here" in line) for line in warnings] == [(True, True)]
    assert lm.record()["compile"] is False


def test_steps_that_compute_something_else_are_not_used(monkeypatch: pytest.MonkeyPatch, warnings: list[str]) -> None:
    def wrong(graph: Any, example: Any) -> Any:
        return lambda *args: tuple(
            -output if torch.is_tensor(output) and output.is_floating_point() else output for output in graph(*args)
        )

    monkeypatch.setattr(transformers_api, "CompileConfig", partial(CompileConfig, backend=wrong, mode=None))
    lm = make(method="hgai", layers="1-4", compile=True)
    answers = [answer.text for answer in lm.generate_until(requests([2, 3]))]
    assert answers == [a.text for a in make(method="hgai", layers="1-4").generate_until(requests([2, 3]))]
    assert len(warnings) == 1
    assert "compiled logits lie" in warnings[0]


def test_an_error_in_a_later_batch_ends_compiling_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    calls: list[int] = []

    def breaking(graph: Any, example: Any) -> Any:
        def run(*args: Any) -> Any:
            calls.append(0)
            if len(calls) > 20:
                raise RuntimeError("accessing an output that a later run has overwritten")
            return graph(*args)

        return run

    monkeypatch.setattr(transformers_api, "CompileConfig", partial(CompileConfig, backend=breaking, mode=None))
    lm = make(method="spin", compile=True, batch_size=2)
    answers = [answer.text for answer in lm.generate_until(requests())]
    assert answers == [answer.text for answer in make(method="spin", batch_size=2).generate_until(requests())]
    assert len(calls) == 21
    assert ["overwritten" in line for line in warnings] == [True]


def test_memory_that_runs_out_does_not_end_compiling(monkeypatch: pytest.MonkeyPatch, graphs: list[Any]) -> None:
    lm = make(method="spin", compile=True, batch_size=4)
    generate = lm._compiled._fixed.generate

    def narrow(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if len(inputs["input_ids"]) > 2:
            raise torch.OutOfMemoryError
        return generate(model, inputs, *args, **kwargs)

    monkeypatch.setattr(lm._compiled._fixed, "generate", narrow)
    answers = [answer.text for answer in lm.generate_until(requests())]
    assert answers == [answer.text for answer in make(method="spin").generate_until(requests())]
    assert lm.record()["compile"]
    assert lm.record()["largest_batch"] == 2
    assert graphs


def test_compiled_batches_draw_what_plain_ones_draw(graphs: list[Any]) -> None:
    drawn = []
    for compile in (False, True):
        torch.manual_seed(4)
        lm = make(method="vcd", compile=compile, batch_size=4)
        drawn.append([answer.text for answer in lm.generate_until(requests(temperature=1.5))])
    assert drawn[0] == drawn[1]
    assert graphs


def test_beams_are_not_compiled(graphs: list[Any]) -> None:
    lm = make(method="pai+beam", compile=True, beams=2)
    assert len(lm.generate_until(requests([0, 1]))) == 2
    assert not graphs


def test_steps_are_compiled_where_that_is_asked_for() -> None:
    assert [make(**{"compile": value} if value else {}).identity()["compile"] for value in ("", "on", "False")] == [
        *(False, True, False),
    ]
    with pytest.raises(ValueError, match="compile must be true or false, got 'auto'"):
        make(compile="auto")
