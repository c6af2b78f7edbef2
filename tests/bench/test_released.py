"""The rival answers as PAI does: it is a rival, and no straw man's answers are timed."""

from __future__ import annotations

import pytest
import tiny_families
import torch
from tiny_llava import batch, build_llava, make_prompt

from lmms_fixattn import intervene, make_method
from lmms_fixattn.bench.released import ReleasedLoop

pytestmark = pytest.mark.system


@pytest.mark.parametrize("key_heads", [3, 6])
@pytest.mark.parametrize("gamma", [1, 1.1, 1.7])
def test_the_loop_answers_as_pai_with_its_released_first_token(key_heads, gamma):
    model = build_llava(key_heads)
    loop = ReleasedLoop(model, alpha=0.6, gamma=gamma, start=1)
    method = make_method("pai", alpha=0.6, gamma=gamma, layers="1-", released_first_token=True)
    answers = set()
    for seed in range(3):
        inputs = make_prompt(seed).inputs()
        with loop.installed():
            theirs = loop.answer(inputs, 12)
        with intervene(model, method), torch.inference_mode():
            ours = model.generate(**inputs, do_sample=False, max_new_tokens=12, min_new_tokens=12)
        assert theirs.tolist() == ours.tolist()
        plain = model.generate(**inputs, do_sample=False, max_new_tokens=12, min_new_tokens=12)
        answers.add(plain.tolist() == ours.tolist())
    assert False in answers  # the edit is on


@pytest.mark.parametrize("gamma", [1, 1.7])
def test_the_loop_answers_as_pai_on_llava_next(gamma):
    model = tiny_families.build("llava_next")
    method = make_method("pai", alpha=0.6, gamma=gamma, layers="1-", released_first_token=True)
    loop = ReleasedLoop(model, alpha=0.6, gamma=gamma, start=1)
    changed = False
    for seed in range(3):
        inputs = tiny_families.make_prompt(model, seed).inputs()
        settings = {"do_sample": False, "max_new_tokens": 8, "min_new_tokens": 8, "eos_token_id": 1000}
        with loop.installed():
            theirs = loop.answer(inputs, 8, eos_token_id=1000)
        with intervene(model, method), torch.inference_mode():
            ours = model.generate(**inputs, **settings)
        assert theirs.tolist() == ours.tolist()
        changed |= model.generate(**inputs, **settings).tolist() != ours.tolist()
    assert changed


def test_the_loop_leaves_no_trace():
    model = build_llava()
    inputs = make_prompt(0).inputs()
    before, own = model(**inputs).logits, model.config.text_config._attn_implementation
    loop = ReleasedLoop(model, gamma=1, start=0)
    with pytest.raises(TypeError), loop.installed():
        loop.answer(inputs, "three")
    with loop.installed():
        loop.answer(inputs, 3)
    assert model.config.text_config._attn_implementation == own
    assert torch.equal(model(**inputs).logits, before)


def test_the_loop_takes_one_prompt_and_positions_in_one_dimension():
    model = build_llava()
    loop = ReleasedLoop(model)
    with loop.installed(), pytest.raises(ValueError, match="one prompt at a time, got 2"):
        loop.answer(batch([make_prompt(0), make_prompt(1)]), 3)
    model.model.language_model.config.rope_parameters["mrope_section"] = [2, 2, 3]
    with pytest.raises(ValueError, match="plain rotary attention"):
        ReleasedLoop(model)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_there_is_no_loop_for_models_whose_positions_have_axes(family):
    with pytest.raises(ValueError, match="plain rotary attention"):
        ReleasedLoop(tiny_families.build(family))
