"""The miniature checkpoints load as the hub's do, and their processors and models agree."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from miniature_checkpoints import CHECKPOINTS, write
from naive_text import Fix, generate
from PIL import Image
from transformers import AutoConfig, AutoProcessor

pytestmark = pytest.mark.system

VICUNA, MISTRAL = "llava-hf/llava-v1.6-vicuna-7b-hf", "llava-hf/llava-v1.6-mistral-7b-hf"
QWEN2, QWEN2_5, QWEN3 = "Qwen/Qwen2-VL-7B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen3-VL-8B-Instruct"
CLASSES = {
    VICUNA: "LlavaNextProcessor", MISTRAL: "LlavaNextProcessor", QWEN2: "Qwen2VLProcessor",
    QWEN2_5: "Qwen2_5_VLProcessor", QWEN3: "Qwen3VLProcessor",
}  # fmt: skip
LLAVA_NEXT_WEIGHTS = {
    "image_newline", "language_model.lm_head.weight", "language_model.model.embed_tokens.weight",
    "language_model.model.layers.0.self_attn.q_proj.weight", "language_model.model.norm.weight",
    "multi_modal_projector.linear_1.weight", "vision_tower.vision_model.embeddings.class_embedding",
    "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight",
    "vision_tower.vision_model.post_layernorm.bias",
}  # fmt: skip
WEIGHTS = {
    VICUNA: LLAVA_NEXT_WEIGHTS,
    MISTRAL: LLAVA_NEXT_WEIGHTS,
    QWEN2: {
        "lm_head.weight", "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.bias", "model.norm.weight",
        "visual.blocks.0.mlp.fc1.weight", "visual.merger.ln_q.bias", "visual.merger.mlp.0.bias",
        "visual.patch_embed.proj.weight",
    },
    QWEN2_5: {
        "lm_head.weight", "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.bias", "model.norm.weight",
        "visual.blocks.0.attn.qkv.weight", "visual.merger.ln_q.weight", "visual.merger.mlp.0.bias",
        "visual.patch_embed.proj.weight",
    },
    QWEN3: {
        "lm_head.weight", "model.language_model.embed_tokens.weight",
        "model.language_model.layers.0.self_attn.q_norm.weight", "model.visual.blocks.0.mlp.linear_fc1.bias",
        "model.visual.deepstack_merger_list.2.norm.weight", "model.visual.merger.linear_fc2.weight",
        "model.visual.pos_embed.weight",
    },
}  # fmt: skip
MESSAGES = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is shown?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A dog."}]},
    {"role": "user", "content": [{"type": "text", "text": "And this?"}, {"type": "image"}]},
]
QWEN_TURNS = (
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What is shown?<|im_end|>\n"
    "<|im_start|>assistant\nA dog.<|im_end|>\n"
    "<|im_start|>user\nAnd this?<|vision_start|><|image_pad|><|vision_end|><|im_end|>\n<|im_start|>assistant\n"
)
TURNS = {
    VICUNA: "USER: <image>\nWhat is shown? ASSISTANT: A dog. USER: <image>\nAnd this? ASSISTANT:",
    MISTRAL: "[INST] <image>\nWhat is shown? [/INST] A dog.</s> [INST] <image>\nAnd this? [/INST]",
    QWEN2: "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" + QWEN_TURNS,
    QWEN2_5: "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" + QWEN_TURNS,
    QWEN3: QWEN_TURNS,
}
OF_PICTURES = ("pixel_values", "image_sizes", "image_grid_thw")
PICTURES = [
    Image.effect_noise((50, 31), 90).convert("RGB"),
    Image.linear_gradient("L").resize((40, 190)).convert("RGB"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Say where a checkpoint is; it is written when it is first asked for."""
    root = tmp_path_factory.mktemp("checkpoints")
    return cache(lambda name: write(name, root / name))


@pytest.fixture(params=CHECKPOINTS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def inputs_of(processor: Any, pictures: list[Image.Image]) -> Any:
    content = [*[{"type": "image"}] * len(pictures), {"type": "text", "text": "Please describe this image in detail."}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return processor(text=text, images=pictures or None, return_tensors="pt")


def test_all_weights_are_found_by_the_names_that_they_have_on_the_hub(name: str, folder: Any) -> None:
    index = json.loads((folder(name) / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(index) >= WEIGHTS[name]
    assert len(set(index.values())) == 2
    assert {path.name for path in folder(name).glob("*.safetensors")} == set(index.values())
    model, found = CHECKPOINTS[name].model_class.from_pretrained(folder(name), output_loading_info=True)
    assert not any(found.values())
    assert model.dtype == CHECKPOINTS[name].dtype
    assert len(model.state_dict()) == len(index)
    assert all(torch.isfinite(tensor).all() and tensor.float().std() > 0 for tensor in model.state_dict().values())


def test_a_checkpoint_is_the_same_whenever_it_is_written(name: str, folder: Any, tmp_path: Path) -> None:
    again = write(name, tmp_path)
    for path in folder(name).iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name
    other = write(name, tmp_path / "other", seed=1)
    shard = "model-00001-of-00002.safetensors"
    assert (other / shard).read_bytes() != (again / shard).read_bytes()


def test_config_is_read_as_it_was_written(name: str, folder: Any) -> None:
    config = AutoConfig.from_pretrained(folder(name))
    written = json.loads((folder(name) / "config.json").read_text())
    assert config.model_type == written["model_type"]
    text = written.get("text_config", written)
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "max_position_embeddings"):
        assert getattr(config.text_config, key) == text[key]
    rope = config.text_config.rope_parameters
    assert rope["rope_type"] == "default"
    if "rope_scaling" in text:
        assert rope["mrope_section"] == text["rope_scaling"]["mrope_section"]
    assert rope["rope_theta"] == text.get("rope_theta", 10000.0)


def test_tokens_of_the_config_are_the_tokenizer_s(name: str, folder: Any) -> None:
    tokenizer, config = AutoProcessor.from_pretrained(folder(name)).tokenizer, AutoConfig.from_pretrained(folder(name))
    mark = "<image>" if name in (VICUNA, MISTRAL) else "<|image_pad|>"
    assert tokenizer.convert_tokens_to_ids(mark) == config.image_token_id
    special = [tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token]
    assert (
        special
        == {
            VICUNA: ["<s>", "</s>", "<unk>"],
            MISTRAL: ["<s>", "</s>", "<pad>"],
            QWEN2: [None, "<|im_end|>", "<|endoftext|>"],
            QWEN2_5: [None, "<|im_end|>", "<|endoftext|>"],
            QWEN3: [None, "<|im_end|>", "<|endoftext|>"],
        }[name]
    )
    assert max(tokenizer.get_vocab().values()) < config.text_config.vocab_size
    text = "Please describe this image in detail.\nIs there a naïve 犬?"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert (ids[0] == tokenizer.bos_token_id) == (name in (VICUNA, MISTRAL))


def test_template_writes_what_the_checkpoint_s_does(name: str, folder: Any) -> None:
    processor = AutoProcessor.from_pretrained(folder(name))
    assert type(processor).__name__ == CLASSES[name]
    assert processor.apply_chat_template(MESSAGES, add_generation_prompt=True) == TURNS[name]
    system = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    with_system = processor.apply_chat_template([system, *MESSAGES], add_generation_prompt=True)
    before = {VICUNA: "Be brief. ", MISTRAL: "<<SYS>>\nBe brief.\n<</SYS>>\n\n"}
    system_turn = "<|im_start|>system\nBe brief.<|im_end|>\n"
    expected = before[name] + TURNS[name] if name in before else system_turn + QWEN_TURNS
    assert with_system == expected


@pytest.mark.parametrize("images", [0, 1, 2])
def test_processor_writes_a_token_for_each_image_feature_and_the_model_answers(
    name: str, folder: Any, images: int
) -> None:
    processor = AutoProcessor.from_pretrained(folder(name))
    model = CHECKPOINTS[name].model_class.from_pretrained(folder(name), dtype=torch.float32).eval()
    inputs = inputs_of(processor, PICTURES[:images])
    ids = inputs["input_ids"][0].tolist()
    if images:
        of_pictures = {key: inputs[key] for key in ("image_sizes", "image_grid_thw") if key in inputs}
        with torch.no_grad():
            features = model.get_image_features(inputs["pixel_values"], **of_pictures).pooler_output
        assert ids.count(model.config.image_token_id) == sum(len(one) for one in features)
        assert len(features) == images
    settings = {"max_new_tokens": 4, "do_sample": False, "repetition_penalty": 1.0, "eos_token_id": 10**6}
    out = model.generate(**inputs, **settings, output_logits=True, return_dict_in_generate=True)
    pictures = [
        {key: value for key, value in inputs_of(processor, [picture]).items() if key in OF_PICTURES}
        for picture in PICTURES[:images]
    ]
    tokens, logits, _ = generate(model, ids, pictures, Fix(), 4)
    assert out.sequences[0, len(ids) :].tolist() == tokens
    torch.testing.assert_close(torch.stack(out.logits)[:, 0], logits, atol=2e-3, rtol=2e-4)
