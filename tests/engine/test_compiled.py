"""A compiled step on a cache of fixed length: the same answers, one graph, whatever the prompts' lengths."""

from __future__ import annotations

import pytest
import torch
from fitted_methods import fitted
from tiny_llava import WordTokenizer, batch, make_prompt
from transformers import CompileConfig

from lmms_fixattn import intervene

pytestmark = pytest.mark.system

LENGTH = 90


@pytest.fixture
def graphs(llava):
    """Return a list that grows by one with every graph that is compiled, and the settings that compile into it."""
    torch._dynamo.reset()
    compiled = []

    def backend(graph, example):
        compiled.append(graph)
        return graph

    settings = CompileConfig(fullgraph=True, backend=backend, mode=None)
    settings._compile_all_devices = True
    with torch._dynamo.config.patch(recompile_limit=64):
        yield compiled, settings
    torch._dynamo.reset()
    llava.__dict__.pop("_compiled_call", None)
    llava.__dict__.pop("_last_compile_config", None)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("fixattn", {}),
        ("fixattn", {"head_modulation": "proportional", "gamma": 1}),
        ("spin", {}),
        ("var", {}),
        ("adaiat", {}),
        ("vcd", {}),
        ("dola", {}),
    ],
)
def test_prompts_of_any_length_run_on_one_graph_and_are_answered_alike(llava, graphs, name, settings):
    compiled, config = graphs
    lengths = set()
    with intervene(llava, fitted(name, **settings), WordTokenizer()):
        for seed in (3, 2, 4, 7):
            inputs = batch([make_prompt(seed=seed), make_prompt(seed=seed + 10)])
            lengths.add(inputs["input_ids"].shape[1])
            plain = llava.generate(**inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False)
            fixed = llava.generate(
                **inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False, cache_implementation="static",
                max_cache_len=LENGTH, compile_config=config,
            )  # fmt: skip
            assert torch.equal(fixed, plain)
    assert len(lengths) > 1
    assert len(compiled) == 1


def test_a_graph_of_one_method_does_not_answer_for_another(llava, graphs):
    compiled, config = graphs
    settings = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "output_scores": True}
    fixed = {"cache_implementation": "static", "max_cache_len": LENGTH, "compile_config": config}
    for seed, name in enumerate(("vanilla", "hgai", "spin", "dola", "deco", "dola", "m3id", "hgai", "vanilla")):
        inputs = batch([make_prompt(seed=seed)])
        with intervene(llava, fitted(name), WordTokenizer()):
            plain = llava.generate(**inputs, **settings, return_dict_in_generate=True)
            again = llava.generate(**inputs, **settings, **fixed, return_dict_in_generate=True)
        assert torch.equal(again.sequences, plain.sequences)
        torch.testing.assert_close(torch.stack(again.scores), torch.stack(plain.scores), atol=1e-4, rtol=1e-4)
    assert compiled
