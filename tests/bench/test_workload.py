"""The models that are measured."""

from __future__ import annotations

import pytest
import torch

from lmms_fixattn.bench.workload import SHAPES, TEXT_TOKENS, load
from lmms_fixattn.methods.text_model import LLAVA_7B, LLAVA_13B, TextModel
from lmms_fixattn.models.checkpoint import DEMO
from lmms_fixattn.models.family import family_of, family_of_model

pytestmark = pytest.mark.system

CPU = torch.device("cpu")
LARGE = {"llava-next-small": "7b-shape", "qwen2.5-vl-small": "7b-shape", "qwen3-vl-small": "8b-shape"}


def test_the_shapes_are_those_of_the_checkpoints():
    assert TextModel.of(SHAPES["llava-1.5-7b-shape"]().text_config) == LLAVA_7B
    assert TextModel.of(SHAPES["llava-1.5-13b-shape"]().text_config) == LLAVA_13B
    with torch.device("meta"):
        from transformers import LlavaForConditionalGeneration

        model = LlavaForConditionalGeneration(SHAPES["llava-1.5-7b-shape"]())
    # llava-hf/llava-1.5-7b-hf has 7,063,427,072 weights.
    assert sum(parameter.numel() for parameter in model.parameters()) == 7_063_427_072


@pytest.mark.parametrize(
    ("name", "parameters", "image_tokens"),
    [
        ("llava-next-7b-shape", 7_063_427_072 + 4096, 576 + 48 * 49),  # LLaVA-1.5-7B's weights, and a newline's
        ("qwen2.5-vl-7b-shape", 8_292_166_656, 17 * 23),
        ("qwen3-vl-8b-shape", 8_767_123_696, 15 * 20),
    ],
)
def test_the_shapes_of_other_families_have_as_many_weights_as_their_checkpoints(name, parameters, image_tokens):
    family = family_of(SHAPES[name]())
    with torch.device("meta"):
        model = family.model_class(family.config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert family.image_tokens(family.random_picture(torch.Generator())) == image_tokens


@pytest.mark.parametrize("name", ["llava-next-small", "qwen2.5-vl-small", "qwen3-vl-small"])
def test_a_small_shape_has_its_family_s_layout_and_prompts_that_fit_it(name):
    workload, large = load(name, torch.float32, CPU), SHAPES[f"{name.removesuffix('small')}{LARGE[name]}"]()
    model, inputs = workload.model, workload.prompts(2)
    assert (type(model.config), model.config.text_config.num_hidden_layers) == (type(large), 4)
    family, ids = family_of_model(model), inputs["input_ids"]
    assert (ids == family.image_token_id).sum(dim=1).tolist() == [ids.shape[1] - TEXT_TOKENS] * 2
    same = family_of(large).image_tokens(family_of(large).random_picture(torch.Generator()))
    assert ids.shape[1] - TEXT_TOKENS == same
    assert not set(ids.unique().tolist()) & ({*workload.tokenizer.all_special_ids} - {family.image_token_id})
    assert family.picture_columns(ids).sum() == (ids == family.image_token_id).sum()
    with torch.inference_mode():
        assert model(**inputs).logits.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_shape_is_drawn_in_its_type_with_prompts_that_fit_it(dtype):
    workload = load("tiny", dtype, CPU)
    model = workload.model
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    inputs = workload.prompts(3)
    ids, image = inputs["input_ids"], model.config.image_token_id
    assert (ids == image).sum(dim=1).tolist() == [25, 25, 25]
    assert ids.shape == (3, 25 + TEXT_TOKENS)
    assert not set(ids.unique().tolist()) & ({*workload.tokenizer.all_special_ids} - {image})
    assert inputs["pixel_values"].dtype == dtype
    assert len(workload.tokenizer.decode(ids[0])) > 0
    again = load("tiny", dtype, CPU)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.model.parameters(), strict=True))


def test_a_shape_decodes_like_a_model_that_was_drawn_elsewhere_and_copied():
    # What is computed at construction, and not drawn, must be there too: rotary frequencies, position ids.
    from transformers import LlavaForConditionalGeneration

    model = load("tiny", torch.float32, CPU).model
    copied = LlavaForConditionalGeneration(model.config).eval()
    copied.load_state_dict(model.state_dict())
    inputs = load("tiny", torch.float32, CPU).prompts(2)
    with torch.inference_mode():
        torch.testing.assert_close(model(**inputs).logits, copied(**inputs).logits)


def test_the_demo_model_gets_real_prompts():
    workload = load("demo", torch.float32, CPU)
    inputs = workload.prompts(2)
    assert (inputs["input_ids"] == workload.model.config.image_token_id).sum(dim=1).tolist() == [100, 100]
    assert "describe the image" in workload.tokenizer.decode(inputs["input_ids"][0])
    assert inputs["attention_mask"].all()
    assert not torch.equal(*inputs["pixel_values"])


def test_a_folder_with_a_configuration_is_a_shape_as_well(tmp_path):
    (tmp_path / "config.json").write_bytes((DEMO / "config.json").read_bytes())
    model = load(str(tmp_path), torch.float32, CPU).model
    assert TextModel.of(model.config.text_config) == TextModel("llama", 128, 4, 4, 4)


def test_a_wrong_name_or_a_small_vocabulary_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"unknown model 'hiden1024' \(did you mean 'hidden1024'\?\); expected demo, "):
        load("hiden1024", torch.float32, CPU)
    config = SHAPES["tiny"]()
    config.text_config.vocab_size = 500
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="at least the demo tokenizer's 800 tokens, got 500"):
        load(str(tmp_path), torch.float32, CPU)
