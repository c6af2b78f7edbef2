"""The models that are measured."""

from __future__ import annotations

import pytest
import torch

from lmms_fixattn.bench.workload import SHAPES, TEXT_TOKENS, load
from lmms_fixattn.methods.text_model import LLAVA_7B, LLAVA_13B, TextModel
from lmms_fixattn.models.checkpoint import DEMO

CPU = torch.device("cpu")


def test_the_shapes_are_those_of_the_checkpoints():
    assert TextModel.of(SHAPES["llava-1.5-7b-shape"]().text_config) == LLAVA_7B
    assert TextModel.of(SHAPES["llava-1.5-13b-shape"]().text_config) == LLAVA_13B
    with torch.device("meta"):
        from transformers import LlavaForConditionalGeneration

        model = LlavaForConditionalGeneration(SHAPES["llava-1.5-7b-shape"]())
    # llava-hf/llava-1.5-7b-hf has 7,063,427,072 weights.
    assert sum(parameter.numel() for parameter in model.parameters()) == 7_063_427_072


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
