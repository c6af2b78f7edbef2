"""Every method on every family of models, against the families written out by hand."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from functools import cache
from typing import Any

import pytest
import torch
from covering import covering
from method_cases import METHOD_CASES, Reader, formula
from naive_text import generate as naive_generate
from statistics_files import statistics_file
from steps import assert_same_steps
from tiny_families import FAMILIES, batch, build, make_prompt
from tiny_llava import WordTokenizer

from lmms_fixattn import intervene, make_method
from lmms_fixattn.engine.prefix_cache import PrefixCache
from lmms_fixattn.methods.icd import DISTURBANCE
from lmms_fixattn.models import qwen3_vl
from lmms_fixattn.models.family import family_of_model
from lmms_fixattn.models.transformers_api import EngineError

STEPS, DEPTH = 4, 4
READER = Reader(DEPTH, WordTokenizer()(DISTURBANCE)["input_ids"][0].tolist())
BY_HAND = {"adhh": {"heads": [(1, 4), (1, 2), (3, 0), (3, 5)], "threshold": 0.15}}
"""Settings in place of the table's, whose model has one layer more."""
CASES = {
    case: make_method(name, **BY_HAND.get(case, settings))
    for name, cases in METHOD_CASES.items()
    for case, settings in cases.by_hand.items()
}
BRANCHES = ("pai-refined", "vcd", "icd", "m3id")

model_of = cache(build)


def fits(family: str, method: Any) -> bool:
    """Say whether models of the family have what the method needs."""
    return method.vision_parts <= family_of_model(model_of(family)).vision_parts


def run(model: Any, prompts: list[Any], method: Any, block: Any = nullcontext, **settings: Any) -> tuple[Any, Any, Any]:
    """Return new tokens [prompts, steps], and per step raw logits and final scores [steps, rows, vocabulary]."""
    if method.name == "adaiat":
        method = dataclasses.replace(method, statistics=statistics_file(family_of_model(model).text_model))
    inputs = batch(prompts)
    with intervene(model, method, WordTokenizer()), block(), torch.no_grad():
        out = model.generate(
            **inputs, max_new_tokens=STEPS, eos_token_id=1000, do_sample=False, output_logits=True,
            output_scores=True, return_dict_in_generate=True, **settings,
        )  # fmt: skip
    return out.sequences[:, inputs["input_ids"].shape[1] :], torch.stack(out.logits), torch.stack(out.scores)


def naive_fix(method: Any, model: Any) -> Any:
    if method.name == "adaiat":
        method = dataclasses.replace(method, statistics=statistics_file(family_of_model(model).text_model))
    return formula(method, READER)


@pytest.mark.parametrize(("case", "family"), covering(CASES, FAMILIES))
def test_every_step_equals_the_model_written_out_by_hand(family: str, case: str) -> None:
    model, method = model_of(family), CASES[case]
    if not fits(family, method):
        with pytest.raises(
            ValueError, match=r"fixattn selects image tokens by .* does not have: its tower has no class"
        ):
            run(model, [make_prompt(model, 1)], method)
        return
    prompt = make_prompt(model, seed=len(case) + len(family), images=1 + len(case) % 2)
    tokens, logits, scores = run(model, [prompt], method)
    _, naive_logits, naive_scores = naive_generate(
        model, prompt.ids, prompt.pictures, naive_fix(method, model), STEPS, forced=tokens[0].tolist()
    )
    assert_same_steps(logits, scores, naive_logits, naive_scores)


@pytest.mark.parametrize(("case", "family"), covering(CASES, FAMILIES))
def test_a_batch_gives_what_each_prompt_gives_alone(family: str, case: str) -> None:
    model, method = model_of(family), CASES[case]
    if not fits(family, method):
        return
    prompts = [make_prompt(model, seed, images) for seed, images in ((3, 1), (4, 0), (5, 2))]
    tokens, logits, scores = run(model, prompts, method)
    for row, prompt in enumerate(prompts):
        alone = run(model, [prompt], method)
        assert torch.equal(tokens[row], alone[0][0])
        torch.testing.assert_close(logits[:, row], alone[1][:, 0], atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(scores[:, row], alone[2][:, 0], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("case", "family"), covering([*BRANCHES, "dola", "var", "fixattn"], FAMILIES))
def test_a_static_cache_gives_what_a_growing_one_gives(family: str, case: str) -> None:
    model, method = model_of(family), CASES[case]
    if not fits(family, method):
        return
    prompts = [make_prompt(model, seed, images) for seed, images in ((3, 1), (5, 2))]
    growing, static = (run(model, prompts, method, **more) for more in ({}, {"cache_implementation": "static"}))
    torch.testing.assert_close(static[2], growing[2], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("case", "family"), covering([*BRANCHES, "var", "fixattn"], FAMILIES))
def test_prompts_that_begin_alike_are_read_once_where_the_family_can(family: str, case: str) -> None:
    model, method = model_of(family), CASES[case]
    if not fits(family, method):
        return
    first = make_prompt(model, 6, 1)
    other = dataclasses.replace(first, ids=[*first.ids[:-1], 7, 9])
    end = len(first.ids) - first.ids[::-1].index(model.config.image_token_id)
    expected = run(model, [first, other], method)
    prefixes = PrefixCache()
    found = run(model, [first, other], method, lambda: prefixes.shared(model, [("picture", end), ("picture", end)]))
    assert prefixes.computed == (1 if family_of_model(model).shares_prefixes else 2)
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[2], expected[2], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("case", "family"), covering([*BRANCHES, "dola", "fixattn-spatial"], FAMILIES))
def test_beams_score_their_sequence_as_greedy_steps_along_it_do(family: str, case: str) -> None:
    model, method = model_of(family), CASES[case]
    if not fits(family, method):
        return
    prompt = make_prompt(model, 8, 1)
    inputs = batch([prompt])
    with intervene(model, method, WordTokenizer()), torch.no_grad():
        out = model.generate(
            **inputs, max_new_tokens=STEPS, min_new_tokens=STEPS, num_beams=3, do_sample=False, length_penalty=0.0,
            output_scores=True, return_dict_in_generate=True, eos_token_id=1000,
        )  # fmt: skip
    answer, fix = out.sequences[0, len(prompt.ids) :].tolist(), naive_fix(method, model)
    _, _, scores = naive_generate(model, prompt.ids, prompt.pictures, fix, STEPS, forced=answer)
    if fix.gamma == 1:  # a refine stays as it is released, without normalising
        scores = scores.log_softmax(-1)
    total = sum(float(score[token]) for score, token in zip(scores, answer, strict=True))
    assert out.sequences_scores[0].item() == pytest.approx(total, abs=2e-3)


def test_a_branch_never_goes_without_what_deepstack_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("qwen3_vl")
    with monkeypatch.context() as renamed:
        renamed.setattr(qwen3_vl, "_ARGUMENTS", ("visual_pos_masks", "another_name"))
        with pytest.raises(EngineError, match=r"expected the text model of Qwen3-VL to take another_name="):
            run(model, [make_prompt(model, 1)], make_method("vcd"))
    model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {**kwargs, "deepstack_visual_embeds": None}), with_kwargs=True
    )
    with pytest.raises(EngineError, match=r"DeepStack's features of 2 layers beside an image, got 0"):
        run(model, [make_prompt(model, 1)], make_method("vcd"))
