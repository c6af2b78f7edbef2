"""The engine against LLaVA written out by hand, and the promises of an intervene block."""

from __future__ import annotations

import copy
import dataclasses
from itertools import product

import naive_methods as naive
import pytest
import torch
from covering import covering, in_the_system_run
from method_cases import METHOD_CASES, Reader, formula
from naive_llava import Fix
from naive_llava import generate as naive_generate
from statistics_files import statistics_file
from steps import assert_same_steps
from tiny_llava import IMAGE, PAD, PATCHES, WordTokenizer, batch, build_llava, make_prompt
from transformers import DynamicCache, LlavaForConditionalGeneration

from lmms_fixattn import intervene, make_method
from lmms_fixattn.methods.icd import DISTURBANCE
from lmms_fixattn.methods.text_model import TextModel
from lmms_fixattn.models.llava import Llava
from lmms_fixattn.models.transformers_api import cache_name, with_cache

STEPS = 4
WORDS = WordTokenizer()(DISTURBANCE)["input_ids"][0].tolist()
READER = Reader(5, WORDS)
CASES = {
    case: (method, formula(method, READER))
    for name, cases in METHOD_CASES.items()
    for case, settings in cases.by_hand.items()
    for method in [make_method(name, **settings)]
}
CASES["vcd+dola"] = (
    make_method("vcd+dola", **{"vcd.alpha": 0.8, "dola.alpha": 0.5}),
    naive.in_turn(naive.vcd(0.8, 0.1, 500, 42), naive.dola(0.5, 0.1, (0, 2, 4))),
)


def fitted(method, model):
    """Return the method with the same statistics, filed as this model's, where it has any."""
    if method.name != "adaiat":
        return method
    return dataclasses.replace(method, statistics=statistics_file(TextModel.of(model.config.text_config)))


def run(model, prompts, method, steps=STEPS, **settings):
    """Return new tokens [prompts, steps], and per step raw logits and final scores [steps, rows, vocabulary]."""
    inputs = batch(prompts)
    with intervene(model, method, WordTokenizer()):
        out = model.generate(
            **inputs, max_new_tokens=steps, eos_token_id=1000, do_sample=False, output_logits=True,
            output_scores=True, return_dict_in_generate=True, **settings,
        )  # fmt: skip
    return out.sequences[:, inputs["input_ids"].shape[1] :], torch.stack(out.logits), torch.stack(out.scores)


@pytest.mark.parametrize(("case", "grouped"), covering(CASES, [False, True]))
def test_every_step_equals_the_model_written_out_by_hand(llava, grouped_llava, case, grouped):
    model = grouped_llava if grouped else llava
    method, fix = CASES[case]
    prompt = make_prompt(seed=len(case), images=1 + grouped)
    tokens, logits, scores = run(model, [prompt], fitted(method, model))
    _, naive_logits, naive_scores = naive_generate(
        model, prompt.ids, prompt.pixel_values, fix, STEPS, forced=tokens[0].tolist()
    )
    assert_same_steps(logits, scores, naive_logits, naive_scores)
    assert naive_logits.std() > 0.5


PADDED = [
    *product(["fixattn", "var", "vcd+dola"], ["dynamic", "static"]),
    *product(["pai-refined", "spin", "adaiat", "icd", "deco"], ["dynamic"]),
]
"""One of each kind of edit, of branch and of early layers."""


@pytest.mark.parametrize(("case", "cache"), in_the_system_run(product(CASES, ["dynamic", "static"]), but=PADDED))
def test_a_left_padded_batch_equals_its_prompts_alone(llava, case, cache):
    method, _ = CASES[case]
    prompts = [make_prompt(seed=30 + n, images=n) for n in (1, 0, 2)]
    settings = {"cache_implementation": "static"} if cache == "static" else {}
    tokens, logits, scores = run(llava, prompts, method, **settings)
    for row, prompt in enumerate(prompts):
        alone, alone_logits, alone_scores = run(llava, [prompt], method)
        assert tokens[row].tolist() == alone[0].tolist()
        torch.testing.assert_close(logits[:, row], alone_logits[:, 0], atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(scores[:, row], alone_scores[:, 0], atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("case", ["pai", "fixattn-top-heads-refined", "vaf", "var"])
def test_the_untouched_rows_may_use_any_of_the_model_s_own_kernels(llava, attention, case):
    method, _ = CASES[case]
    prompts = [make_prompt(seed=5), make_prompt(seed=6)]
    expected = run(llava, prompts, method)
    other = copy.deepcopy(llava)
    other.set_attn_implementation(attention)
    tokens, logits, _ = run(other, prompts, method)
    assert torch.equal(tokens, expected[0])
    torch.testing.assert_close(logits, expected[1], atol=1e-3, rtol=1e-4)
    assert other.model.language_model.config._attn_implementation == attention


BEAMS = ["pai-refined", "fixattn-proportional", "fixattn", "var", "adaiat", "vcd", "icd", "m3id", "dola", "deco"]


@pytest.mark.parametrize(("case", "images"), covering(BEAMS, [1, 2]))
def test_beam_search_scores_its_sequence_as_the_naive_model_does(llava, case, images):
    if images > 1 and not Llava(llava.config).keeps_images_in_order_under_beams():
        pytest.skip("this transformers mixes up the images of a prompt under beam search, with or without a method")
    method, fix = CASES[case]
    prompts = [make_prompt(seed=41, images=images), make_prompt(seed=42)]
    inputs = batch(prompts)
    settings = {"num_beams": 3, "max_new_tokens": STEPS, "do_sample": False, "length_penalty": 0.0}
    with intervene(llava, method, WordTokenizer()):
        out = llava.generate(**inputs, **settings, return_dict_in_generate=True, output_scores=True, eos_token_id=1000)
    for row, prompt in enumerate(prompts):
        tokens = out.sequences[row, inputs["input_ids"].shape[1] :].tolist()
        _, _, scores = naive_generate(llava, prompt.ids, prompt.pixel_values, fix, STEPS, forced=tokens)
        if fix.gamma == 1:
            scores = scores.log_softmax(-1)
        total = sum(float(score[token]) for score, token in zip(scores, tokens, strict=True))
        assert out.sequences_scores[row].item() == pytest.approx(total, abs=5e-3)


@pytest.mark.parametrize("case", ["pai-refined", "vcd", "icd", "m3id", "dola", "deco"])
def test_sampling_chooses_among_the_guided_scores(llava, case):
    method, _ = CASES[case]
    prompts = [make_prompt(seed=seed) for seed in range(70, 78)]
    greedy, *_ = run(llava, prompts, method)
    with intervene(llava, method, WordTokenizer()):
        sampled = llava.generate(
            **batch(prompts), max_new_tokens=STEPS, eos_token_id=1000, do_sample=True, temperature=1e-3, top_k=0
        )
    assert torch.equal(sampled[:, -STEPS:], greedy)
    assert not torch.equal(greedy, run(llava, prompts, make_method("vanilla"))[0])


def test_sampling_from_one_token_is_greedy_search_and_copies_follow_their_own_text(llava):
    method = make_method("fixattn", layers="0-")
    inputs = make_prompt(seed=8).inputs()
    greedy, *_ = run(llava, [make_prompt(seed=8)], method)
    with intervene(llava, method):
        sampled = llava.generate(**inputs, do_sample=True, top_k=1, max_new_tokens=STEPS, min_new_tokens=STEPS)
        torch.manual_seed(0)
        copies = llava.generate(
            **inputs, do_sample=True, num_return_sequences=4, max_new_tokens=STEPS, min_new_tokens=STEPS,
            output_logits=True, return_dict_in_generate=True, temperature=3.0,
        )  # fmt: skip
    start = inputs["input_ids"].shape[1]
    assert sampled[:, start:].tolist() == greedy.tolist()
    assert len({tuple(row) for row in copies.sequences.tolist()}) > 1
    prompt = make_prompt(seed=8)
    fix = Fix(alpha=0.7, beta=0.4, local=0.25, layers=(0, 5), gamma=1.1, edit_prefill=False)
    for row in range(4):
        forced = copies.sequences[row, start:].tolist()
        _, naive_logits, _ = naive_generate(llava, prompt.ids, prompt.pixel_values, fix, STEPS, forced=forced)
        torch.testing.assert_close(torch.stack(copies.logits)[:, row], naive_logits, atol=2e-3, rtol=2e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_full_precision(llava, dtype):
    """The edit adds no error of its own: it moves half-precision logits as little as half precision itself does."""
    half = copy.deepcopy(llava).to(dtype)
    prompt = make_prompt(seed=12)
    inputs = batch([prompt, make_prompt(seed=13)])
    errors = {}
    for name in ("vanilla", "pai", "hgai", "vaf"):
        with torch.no_grad(), intervene(llava, CASES[name][0]):
            full = llava(**inputs).logits[:, -1]
        with torch.no_grad(), intervene(half, CASES[name][0]):
            low = half(**inputs | {"pixel_values": inputs["pixel_values"].to(dtype)}).logits[:, -1].float()
        errors[name] = float((low - full).norm() / full.norm())
    assert max(errors.values()) < 2 * errors["vanilla"] + 0.01


def test_bare_forward_passes_with_a_cache_are_edited_like_generate(llava):
    method = make_method("fixattn", gamma=1)
    prompt = make_prompt(seed=3)
    tokens, logits, _ = run(llava, [prompt], method)
    inputs = prompt.inputs()
    with torch.no_grad(), intervene(llava, method):
        out = llava(**inputs)
        steps = [out.logits[0, -1]]
        for token in tokens[0, :-1]:
            out = llava(input_ids=token.view(1, 1), **with_cache(llava, cache_in(out)))
            steps.append(out.logits[0, -1])
    torch.testing.assert_close(torch.stack(steps), logits[:, 0], atol=1e-4, rtol=1e-4)


def test_an_answer_does_not_depend_on_the_one_before_it(llava):
    method = make_method("fixattn", head_modulation="proportional", gamma=1.2)
    first, second = make_prompt(seed=21, images=2), make_prompt(seed=22)
    alone = run(llava, [second], method)
    with intervene(llava, method):
        for prompt in (first, second):
            inputs = prompt.inputs()
            out = llava.generate(**inputs, max_new_tokens=STEPS, min_new_tokens=STEPS, do_sample=False)
    assert out[:, inputs["input_ids"].shape[1] :].tolist() == alone[0].tolist()


def traces(model):
    hooks = sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())
    configs = (model.config.text_config, model.config.vision_config)
    return hooks, [c._attn_implementation for c in configs], sorted(model.__dict__)


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_left_after_the_block_nor_after_an_error_in_it(llava, case):
    method, _ = CASES[case]
    prompt = make_prompt(seed=2)
    before = traces(llava), run(llava, [prompt], make_method("vanilla"))[1]

    def fail_inside():
        with intervene(llava, method, WordTokenizer()):
            run_inside = llava.generate(**prompt.inputs(), max_new_tokens=2, do_sample=False)
            raise KeyError(run_inside.shape)

    with pytest.raises(KeyError):
        fail_inside()
    assert traces(llava) == before[0]
    assert torch.equal(run(llava, [prompt], make_method("vanilla"))[1], before[1])


@pytest.mark.parametrize("inner", ["vanilla", "fixattn-proportional", "pai-refined"])
def test_a_block_inside_another_replaces_it_and_gives_it_back(llava, inner):
    prompt = make_prompt(seed=4)
    outer_method, inner_method = CASES["fixattn-top-heads-refined"][0], CASES[inner][0]
    outer_alone, inner_alone = (run(llava, [prompt], method)[1] for method in (outer_method, inner_method))
    clean = traces(llava)

    def logits():
        out = llava.generate(
            **prompt.inputs(), max_new_tokens=STEPS, min_new_tokens=STEPS, do_sample=False,
            output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        return torch.stack(out.logits)

    with intervene(llava, outer_method):
        with intervene(llava, inner_method):
            assert torch.equal(logits(), inner_alone)
        assert torch.equal(logits(), outer_alone)
        with pytest.raises(ValueError, match="outside the model"), intervene(llava, make_method("pai", layers="2-6")):
            pass
        assert torch.equal(logits(), outer_alone)
    assert traces(llava) == clean


def test_the_vision_tower_runs_once_an_image_and_only_its_cls_rows_are_added(llava):
    calls, projected = [], []
    tower = llava.model.vision_tower
    hooks = [tower.register_forward_hook(lambda _m, args, kwargs, _o: calls.append(1), with_kwargs=True)]
    encoder = getattr(tower, "vision_model", tower).encoder
    for index, layer in enumerate(encoder.layers):
        hooks += [
            layer.self_attn.q_proj.register_forward_hook(
                lambda _m, _a, out, index=index: projected.append((index, out.shape[0] * out.shape[1]))
            )
        ]
    try:
        run(llava, [make_prompt(seed=1, images=2), make_prompt(seed=2)], make_method("fixattn"))
    finally:
        for hook in hooks:
            hook.remove()
    assert len(calls) == 1
    own = 3 * (PATCHES + 1)
    extra = [(index, rows) for index, rows in projected if rows != own]
    assert sorted(extra) == [(0, 3), (3, 3)]
    assert sorted(index for index, rows in projected if rows == own) == [0, 1, 2, 3, 4]


def test_a_class_token_among_the_image_tokens_is_never_selected(llava):
    model = build_llava(seed=5, vision_feature_select_strategy="full")
    ids = [1, 7, *[IMAGE] * (PATCHES + 1), 9, 11]
    pixels = make_prompt(seed=9).pixel_values
    method = make_method("fixattn", local_ratio=1.0, gamma=1, layers="0-")
    seen = []
    with intervene(model, method) as m:
        hook = m.model.language_model.register_forward_pre_hook(
            lambda _m, _a, kwargs: seen.append(kwargs["lmms_fixattn_edit"].parts[0].columns.gain), with_kwargs=True
        )
        m(input_ids=torch.tensor([ids]), pixel_values=pixels)
        hook.remove()
    gain = seen[0][0, 0]
    assert gain[2] == 0
    assert bool((gain[3 : 3 + PATCHES] > 0).all())
    assert gain.sum() == gain[3 : 3 + PATCHES].sum()


def test_no_image_means_no_change_but_by_what_guides_by_layers_alone(llava):
    prompt = make_prompt(seed=17, images=0)
    _, expected, expected_scores = run(llava, [prompt], make_method("vanilla"))
    for method in (m for m, _ in CASES.values() if all(part.early_layers is None for part in m.parts)):
        _, logits, scores = run(llava, [prompt], method)
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(scores, expected_scores, atol=1e-4, rtol=1e-4)


def cache_in(output):
    return output[cache_name(LlavaForConditionalGeneration.forward)]


def refused(model, method, message, call):
    with pytest.raises(ValueError, match=message), intervene(model, method), torch.no_grad():
        call()


def test_what_cannot_be_done_right_is_refused_with_a_reason(llava):
    plain, refined = make_method("pai", gamma=1), make_method("pai")
    prompt = make_prompt(seed=1)
    inputs = prompt.inputs()
    short = make_prompt(seed=2, images=0)
    refused(torch.nn.Linear(2, 3), plain, "expected a LlavaForConditionalGeneration.*got Linear", lambda: None)
    for layers in ("5-", "2-6", (7, 9)):
        refused(llava, make_method("pai", layers=layers), "outside the model, which has 5 layers", lambda: None)
    refused(llava, refined, "inside generate.*gamma=1", lambda: llava(**inputs))
    refused(llava, plain, "leave the cache on", lambda: llava(**inputs, use_cache=False))
    right = {key: value.flip(1) if key == "attention_mask" else value for key, value in batch([prompt, short]).items()}
    refused(llava, plain, "pad on the left", lambda: llava(**right))
    embeds = llava.get_input_embeddings()(short.inputs()["input_ids"])
    refused(llava, plain, "expected input_ids", lambda: llava(inputs_embeds=embeds))
    without_pixels = {key: value for key, value in inputs.items() if key != "pixel_values"}
    refused(llava, make_method("fixattn", gamma=1), "pass pixel_values", lambda: llava(**without_pixels))
    filled = DynamicCache(config=llava.config.text_config)
    with torch.no_grad():
        llava(**inputs, **with_cache(llava, filled))
    refused(llava, plain, "filled outside", lambda: llava(input_ids=torch.tensor([[5]]), **with_cache(llava, filled)))

    def two_tokens():
        out = llava(**inputs)
        llava(input_ids=torch.tensor([[5, 6]]), **with_cache(llava, cache_in(out)))

    refused(llava, plain, "several new tokens", two_tokens)
    image_only = {"input_ids": torch.full((1, PATCHES), IMAGE), "pixel_values": prompt.pixel_values}
    refused(llava, refined, "nothing but its image", lambda: llava.generate(**image_only, max_new_tokens=2))


def test_selection_needs_a_clip_tower():
    model = build_llava(vision_layers=5, seed=6)
    model.model.vision_tower.config.model_type = "siglip_vision_model"
    refused(model, make_method("fixattn"), "needs a CLIP vision tower", lambda: None)
    assert PAD not in run(model, [make_prompt(seed=1)], make_method("pai"))[0]
