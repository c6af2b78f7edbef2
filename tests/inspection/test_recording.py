"""What is recorded is what the softmax gave, and recording changes nothing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from covering import covering
from tiny_llava import IMAGE, batch, build_llava, make_prompt

from lmms_fixattn import intervene, make_method
from lmms_fixattn.inspection.recording import SEGMENTS, record_attention

pytestmark = pytest.mark.system

STEPS = 4
FITTED = {
    "hgai": {"layers": "1-4"},
    "vaf": {"layers": "1-4"},
    "adhh": {"heads": "[1:4,1:2,4:0,4:3]", "threshold": 0.1},
    "var": {"sink_dims": "[6,23]", "tau": 1.6},
    "iat": {"layers": "1-4"},
}
"""What a method needs to fit a model of five layers and six heads."""
NAMES = ["vanilla", "pai", "fixattn", "spin", *FITTED]
SYSTEM, PICTURE, QUESTION, ANSWER = range(len(SEGMENTS))


def method_of(name, **settings):
    return make_method(name, **FITTED.get(name, {}) | settings)


def generate(model, prompt, **settings):
    return model.generate(
        **prompt.inputs(), max_new_tokens=STEPS, min_new_tokens=STEPS, do_sample=False, output_logits=True,
        return_dict_in_generate=True, **settings,
    )  # fmt: skip


def record(model, prompt, method, **settings):
    with intervene(model, method), record_attention(model) as recorder:
        out = generate(model, prompt, **settings)
    return recorder.recording(), out


def naive_sums(attentions, ids):
    """Sum transformers' own eager weights, [steps][layers] of [1, heads, queries, keys], position by position."""
    first = ids.index(IMAGE)
    sums = np.zeros((len(attentions), len(attentions[0]), attentions[0][0].shape[1], len(SEGMENTS)))
    for step, layers in enumerate(attentions):
        for layer, weights in enumerate(layers):
            for head in range(weights.shape[1]):
                for key, weight in enumerate(weights[0, head, -1].tolist()):
                    if key >= len(ids):
                        segment = ANSWER
                    elif ids[key] == IMAGE:
                        segment = PICTURE
                    else:
                        segment = SYSTEM if key < first else QUESTION
                    sums[step, layer, head, segment] += weight
    return sums


@pytest.mark.parametrize(("name", "images"), covering(NAMES, [1, 2]))
def test_sums_equal_those_of_the_weights_that_eager_attention_returns(name, images):
    model = build_llava(key_heads=3, seed=1)
    model.set_attn_implementation("eager")
    prompt = make_prompt(seed=60 + images, images=images)
    recording, out = record(model, prompt, method_of(name), output_attentions=True)
    np.testing.assert_allclose(recording.after, naive_sums(out.attentions, prompt.ids), atol=2e-6)


@pytest.mark.parametrize(("name", "dtype"), covering(NAMES, [torch.float32, torch.bfloat16]))
def test_recording_leaves_the_answer_to_the_bit(name, dtype):
    model = build_llava().to(dtype)
    prompt = make_prompt(seed=63)
    prompt.pixel_values = prompt.pixel_values.to(dtype)
    with intervene(model, method_of(name)):
        plain = generate(model, prompt)
    recording, out = record(model, prompt, method_of(name))
    assert torch.equal(out.sequences, plain.sequences)
    assert torch.equal(torch.stack(out.logits), torch.stack(plain.logits))
    assert recording.after.shape == (STEPS, 5, 6, len(SEGMENTS))  # the refine's branch is not among the steps


@pytest.mark.parametrize("name", ["vanilla", "pai", "fixattn", "hgai", "vaf", "iat"])
def test_what_the_softmax_gave_sums_to_one(llava, name):
    recording, _ = record(llava, make_prompt(seed=64), method_of(name))
    for sums in (recording.before, recording.after):
        np.testing.assert_allclose(sums.sum(axis=-1), 1, atol=1e-5)
    assert (recording.after[0, ..., ANSWER] == 0).all()
    assert (recording.after[1:, ..., ANSWER] > 0).all()


def test_vanilla_is_recorded_as_the_untouched_model(llava):
    prompt = make_prompt(seed=65)
    with record_attention(llava) as recorder:
        out = generate(llava, prompt)
    untouched = recorder.recording()
    recording, under = record(llava, prompt, make_method("vanilla"))
    assert torch.equal(out.sequences, under.sequences)
    np.testing.assert_array_equal(recording.after, untouched.after)
    np.testing.assert_array_equal(recording.before, recording.after)


def test_amplified_layers_look_more_at_the_image_the_larger_alpha_is(llava):
    prompt = make_prompt(seed=66)
    shares = []
    for alpha in (0, 0.5, 1.5, 4):
        recording, _ = record(llava, prompt, make_method("pai", alpha=alpha, gamma=1, layers="2-3"))
        # From one step on the answers may differ; the first layer edited at prefill reads the same for every alpha.
        shares.append(recording.after[0, 2, :, PICTURE])
        np.testing.assert_array_equal(recording.before[:, [0, 1, 3, 4]], recording.after[:, [0, 1, 3, 4]])
        np.testing.assert_allclose(recording.before[0, 2, :, PICTURE], shares[0], atol=1e-6)
    for less, more in pairwise(shares):
        assert (more > less).all()


def test_a_released_first_token_is_recorded_unamplified(llava):
    settings = {"alpha": 2.0, "gamma": 1.2, "layers": "2-"}
    released, _ = record(llava, make_prompt(seed=67), make_method("pai", released_first_token=True, **settings))
    np.testing.assert_array_equal(released.before[0], released.after[0])
    assert not np.array_equal(released.before[1, 2:], released.after[1, 2:])


def test_a_new_prompt_starts_anew_and_equals_itself_alone(llava):
    method = make_method("fixattn")
    first, second = make_prompt(seed=68), make_prompt(seed=69)
    with intervene(llava, method), record_attention(llava) as recorder:
        generate(llava, first)
        generate(llava, second)
    np.testing.assert_array_equal(recorder.recording().after, record(llava, second, method)[0].after)


@pytest.mark.parametrize("prompts", [[make_prompt(70), make_prompt(71)], [make_prompt(72, images=0)]])
def test_only_one_prompt_with_an_image_is_recorded_and_no_trace_is_left(llava, prompts):
    text = llava.model.language_model
    before = text.config._attn_implementation, len(llava._forward_pre_hooks)
    with pytest.raises(ValueError, match="one prompt with an image at a time"), record_attention(llava):
        llava.generate(**batch(prompts), max_new_tokens=1)
    assert (text.config._attn_implementation, len(llava._forward_pre_hooks)) == before


def test_a_recording_of_nothing_is_refused(llava):
    with record_attention(llava) as recorder:
        pass
    with pytest.raises(ValueError, match="nothing was recorded"):
        recorder.recording()
