"""Checkpoints as the hub has them, of the same files with the same keys, but tiny and of random weights.

    write("Qwen/Qwen2.5-VL-7B-Instruct", folder)

The files follow the revisions of 2025: names and keys of config.json, preprocessor_config.json, processor_config.json,
tokenizer_config.json and generation_config.json, special tokens in their order behind the vocabulary, the chat
template's text, shards with an index, names and data type of the weights. Sizes are small, so that a picture takes 4 to
51 tokens, and the vocabulary is learnt from a few sentences. The templates know images and words, not tools or videos.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny_families import draw_vectors
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    LlavaNextForConditionalGeneration,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

SENTENCES = [
    "Please describe this image in detail.", "What is shown in this image?", "Is there a dog in the image?",
    "A black dog and a white cat sit on a bench beside two bicycles, with a car and a bus in the street behind them.",
    "The image shows a person holding an umbrella; a table with a cup, a bowl and a bottle stands in front of a chair.",
    "USER: ASSISTANT: [INST] [/INST] system user assistant You are a helpful assistant.", "Yes", "No", "\n", "\n\n",
]  # fmt: skip
VICUNA_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] != 'system' %}{{ message['role'] | upper }}: {% endif %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
MISTRAL_TEMPLATE = (
    "{% for message in messages %}"
    "{% set words = message['content'] | selectattr('type', 'equalto', 'text') | map(attribute='text') | list %}"
    "{% if message['role'] == 'system' %}{{ '<<SYS>>\n' + words[0] + '\n<</SYS>>\n\n' }}"
    "{% elif message['role'] == 'user' %}[INST] "
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{{ words | join }} [/INST]"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + words[0] + '</s> ' }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}"
    "{% endif %}{% endfor %}"
)
_QWEN_MESSAGE = (
    "<|im_start|>{{ message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}"
)
_QWEN_END = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
QWEN2_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    + _QWEN_MESSAGE
    + "{% endfor %}"
    + _QWEN_END
)
QWEN3_TEMPLATE = "{% for message in messages %}" + _QWEN_MESSAGE + "{% endfor %}" + _QWEN_END

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
SIDE, PATCH = 42, 14
PINPOINTS = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE], [3 * SIDE, SIDE], [SIDE, 3 * SIDE]]
POSITIONS = 2048

# In the order of the checkpoints, whose first is token 151643.
QWEN_SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
QWEN_ADDED = [
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>",
    "<|file_sep|>",
]  # fmt: skip
QWEN3_ADDED = [*QWEN_ADDED, "<tool_response>", "</tool_response>", "<think>", "</think>"]


@dataclass(frozen=True)
class Miniature:
    """What a checkpoint's folder holds."""

    model_class: Any
    dtype: torch.dtype
    tokenizer: Callable[[], Tokenizer]
    files: Callable[[Tokenizer], dict[str, Any]]
    """The JSON files, by name."""


def write(name: str, folder: Path, seed: int = 0) -> Path:
    """Write a miniature of the checkpoint of this name into a folder, and return the folder."""
    miniature, folder = CHECKPOINTS[name], Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = miniature.tokenizer()
    files = miniature.files(tokenizer)
    _write_weights(miniature, files["config.json"], folder, seed)
    tokenizer.save(str(folder / "tokenizer.json"))
    if files["tokenizer_config.json"]["tokenizer_class"] == "Qwen2Tokenizer":
        tokenizer.model.save(str(folder))  # vocab.json and merges.txt
    for file, content in files.items():
        (folder / file).write_text(json.dumps(content, indent=2) + "\n")
    return folder


def _write_weights(miniature: Miniature, config: dict[str, Any], folder: Path, seed: int) -> None:
    """Draw weights large enough for attention to matter; each of two shards holds about half of them."""
    torch.manual_seed(seed)
    (folder / "config.json").write_text(json.dumps(config))
    loaded = AutoConfig.from_pretrained(folder)
    loaded.text_config.initializer_range = 0.15
    loaded.vision_config.initializer_range = 0.1
    model = miniature.model_class(loaded)
    draw_vectors(model)
    model = model.to(miniature.dtype)
    half = sum(tensor.nbytes for tensor in model.state_dict().values()) * 11 // 20
    model.save_pretrained(folder, max_shard_size=half)
    if config["model_type"] == "llava_next":
        _rename_weights(folder, "vision_tower.", "vision_tower.vision_model.")


def _rename_weights(folder: Path, old: str, new: str) -> None:
    """Give weights the names that they have on the hub, where this transformers writes shorter ones."""
    for shard in folder.glob("model-*.safetensors"):
        save_file(_renamed(load_file(shard), old, new), shard, {"format": "pt"})
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    index.write_text(json.dumps(content | {"weight_map": _renamed(content["weight_map"], old, new)}, indent=2))


def _renamed(named: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new + name.removeprefix(new).removeprefix(old) if name.startswith(old) else name: each
            for name, each in named.items()}  # fmt: skip


def _added(tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
    names = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    return {
        str(number): {name: getattr(token, name) for name in names}
        for number, token in sorted(tokenizer.get_added_tokens_decoder().items())
    }


# LLaVA-NeXT


def _llama_tokenizer(added: list[str]) -> Tokenizer:
    """A byte-fallback BPE as Llama's: spaces are ▁, one before the text."""
    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first"), pre_tokenizers.Split("\n", "isolated")]
    )
    trainer = trainers.BpeTrainer(vocab_size=500, min_frequency=1, show_progress=False)
    learnt.train_from_iterator(SENTENCES, trainer)
    state = json.loads(learnt.to_str())["model"]
    pieces = [piece for piece in sorted(state["vocab"], key=state["vocab"].get) if piece != "\n"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    bpe = models.BPE(
        vocab={name: index for index, name in enumerate(names)},
        merges=[tuple(pair) for pair in state["merges"]],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in ("<unk>", "<s>", "</s>", *added)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def _llava_next_files(
    tokenizer: Tokenizer, text: dict[str, Any], template: str, pad: str, dtype: str, tokenizer_class: str
) -> dict[str, Any]:
    vocabulary = -(-tokenizer.get_vocab_size() // 64) * 64
    return {
        "config.json": {
            "architectures": ["LlavaNextForConditionalGeneration"],
            "ignore_index": -100,
            "image_grid_pinpoints": PINPOINTS,
            "image_token_index": tokenizer.token_to_id("<image>"),
            "model_type": "llava_next",
            "projector_hidden_act": "gelu",
            "text_config": {
                "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 4, "num_attention_heads": 4,
                "max_position_embeddings": POSITIONS, "rms_norm_eps": 1e-05, "torch_dtype": dtype,
                "vocab_size": vocabulary, **text,
            },
            "tie_word_embeddings": False,
            "torch_dtype": dtype,
            "transformers_version": "4.39.0.dev0",
            "use_image_newline_parameter": True,
            "vision_config": {
                "hidden_size": 32, "image_size": SIDE, "intermediate_size": 56, "model_type": "clip_vision_model",
                "num_attention_heads": 2, "num_hidden_layers": 4, "patch_size": PATCH, "projection_dim": 24,
                "vocab_size": 320,
            },
            "vision_feature_layer": -2,
            "vision_feature_select_strategy": "default",
            "vocab_size": vocabulary,
        },
        "generation_config.json": {
            "_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "transformers_version": "4.39.0.dev0",
        },
        "preprocessor_config.json": {
            "aspect_ratio_setting": "anyres",
            "crop_size": {"height": SIDE, "width": SIDE},
            "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True, "do_pad": True, "do_rescale": True,
            "do_resize": True,
            "image_grid_pinpoints": PINPOINTS,
            "image_mean": CLIP_MEAN,
            "image_processor_type": "LlavaNextImageProcessor",
            "image_std": CLIP_STD,
            "processor_class": "LlavaNextProcessor",
            "resample": 3,
            "rescale_factor": 0.00392156862745098,
            "size": {"shortest_edge": SIDE},
        },
        "processor_config.json": {
            "image_token": "<image>", "num_additional_image_tokens": 1, "patch_size": PATCH,
            "processor_class": "LlavaNextProcessor", "vision_feature_select_strategy": "default",
        },
        "tokenizer_config.json": {
            "add_bos_token": True, "add_eos_token": False, "added_tokens_decoder": _added(tokenizer),
            "bos_token": "<s>", "clean_up_tokenization_spaces": False, "eos_token": "</s>",
            "extra_special_tokens": {"image_token": "<image>"}, "image_token": "<image>", "legacy": False,
            "model_max_length": 1000000000000000019884624838656, "pad_token": pad, "padding_side": "left",
            "processor_class": "LlavaNextProcessor", "sp_model_kwargs": {}, "tokenizer_class": tokenizer_class,
            "unk_token": "<unk>", "use_default_system_prompt": False,
        },
        "special_tokens_map.json": {
            "bos_token": "<s>", "eos_token": "</s>", "image_token": "<image>", "pad_token": pad, "unk_token": "<unk>",
        },
        "added_tokens.json": {
            name: tokenizer.token_to_id(name) for name in ("<image>", "<pad>") if tokenizer.token_to_id(name)
        },
        "chat_template.json": {"chat_template": template},
    }  # fmt: skip


def _vicuna_files(tokenizer: Tokenizer) -> dict[str, Any]:
    text = {
        "_name_or_path": "lmsys/vicuna-7b-v1.5", "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "pad_token_id": 0,
    }  # fmt: skip
    return _llava_next_files(tokenizer, text, VICUNA_TEMPLATE, "<unk>", "float16", "LlamaTokenizer")


def _mistral_files(tokenizer: Tokenizer) -> dict[str, Any]:
    text = {
        "_name_or_path": "mistralai/Mistral-7B-Instruct-v0.2", "architectures": ["MistralForCausalLM"],
        "model_type": "mistral", "num_key_value_heads": 2, "rope_theta": 1000000.0, "sliding_window": None,
    }  # fmt: skip
    return _llava_next_files(tokenizer, text, MISTRAL_TEMPLATE, "<pad>", "bfloat16", "LlamaTokenizer")


# Qwen


def _qwen_tokenizer(added: list[str]) -> Tokenizer:
    """A BPE of bytes as Qwen's: no token begins the text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in QWEN_SPECIAL])
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in added])
    return tokenizer


def _qwen_tokens(tokenizer: Tokenizer, *names: str) -> dict[str, int]:
    written = {
        "bos": "<|endoftext|>", "eos": "<|im_end|>", "vision_start": "<|vision_start|>",
        "vision_end": "<|vision_end|>", "vision": "<|vision_pad|>", "image": "<|image_pad|>",
        "video": "<|video_pad|>",
    }  # fmt: skip
    return {f"{name}_token_id": tokenizer.token_to_id(written[name]) for name in names}


def _qwen_files(tokenizer: Tokenizer, template: str, positions: int) -> dict[str, Any]:
    return {
        "tokenizer_config.json": {
            "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": _added(tokenizer),
            "additional_special_tokens": QWEN_SPECIAL[1:], "bos_token": None, "chat_template": template,
            "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "errors": "replace",
            "model_max_length": positions, "pad_token": "<|endoftext|>", "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
        },
        "chat_template.json": {"chat_template": template},
    }  # fmt: skip


def _flat_qwen_files(
    tokenizer: Tokenizer,
    architecture: str,
    model_type: str,
    positions: int,
    vision: dict[str, Any],
    generation: dict[str, Any],
    processor: str,
) -> dict[str, Any]:
    """Of checkpoints whose config.json has the text model's settings beside those of the whole."""
    bos, eos = tokenizer.token_to_id("<|endoftext|>"), tokenizer.token_to_id("<|im_end|>")
    return _qwen_files(tokenizer, QWEN2_TEMPLATE, positions) | {
        "config.json": {
            "architectures": [architecture],
            "attention_dropout": 0.0,
            **_qwen_tokens(tokenizer, "bos", "eos", "vision_start", "vision_end", "vision", "image", "video"),
            "hidden_act": "silu", "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 96,
            "max_position_embeddings": POSITIONS, "max_window_layers": 4, "model_type": model_type,
            "num_attention_heads": 4, "num_hidden_layers": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
            "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": False,
            "torch_dtype": "bfloat16", "transformers_version": "4.41.2", "use_cache": True,
            "use_sliding_window": False,
            "vision_config": vision,
            "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
            "vocab_size": tokenizer.get_vocab_size() + 37,
        },
        "generation_config.json": {
            "bos_token_id": bos, "pad_token_id": bos, "do_sample": True, "eos_token_id": [eos, bos], **generation,
            "top_p": 0.001, "top_k": 1, "transformers_version": "4.37.0",
        },
        "preprocessor_config.json": {
            "min_pixels": 3136, "max_pixels": 12544, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
            "image_mean": CLIP_MEAN, "image_std": CLIP_STD, "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": processor,
        },
    }  # fmt: skip


def _qwen2_files(tokenizer: Tokenizer) -> dict[str, Any]:
    vision = {
        "depth": 4, "embed_dim": 32, "mlp_ratio": 2, "num_heads": 2, "in_chans": 3, "hidden_size": 64,
        "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2,
    }  # fmt: skip
    architecture, processor = "Qwen2VLForConditionalGeneration", "Qwen2VLProcessor"
    return _flat_qwen_files(tokenizer, architecture, "qwen2_vl", 32768, vision, {"temperature": 0.01}, processor)


def _qwen2_5_files(tokenizer: Tokenizer) -> dict[str, Any]:
    vision = {
        "depth": 4, "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 56, "num_heads": 2, "in_chans": 3,
        "out_hidden_size": 64, "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "window_size": 56,
        "fullatt_block_indexes": [1, 3], "tokens_per_second": 2, "temporal_patch_size": 2,
    }  # fmt: skip
    generation = {"repetition_penalty": 1.05, "temperature": 0.1}
    architecture, processor = "Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLProcessor"
    return _flat_qwen_files(tokenizer, architecture, "qwen2_5_vl", 131072, vision, generation, processor)


def _qwen3_files(tokenizer: Tokenizer) -> dict[str, Any]:
    bos, eos = tokenizer.token_to_id("<|endoftext|>"), tokenizer.token_to_id("<|im_end|>")
    pictures = {
        "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2, "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5], "processor_class": "Qwen3VLProcessor",
    }  # fmt: skip
    return _qwen_files(tokenizer, QWEN3_TEMPLATE, 262144) | {
        "config.json": {
            "architectures": ["Qwen3VLForConditionalGeneration"],
            **_qwen_tokens(tokenizer, "image"),
            "model_type": "qwen3_vl",
            "text_config": {
                "attention_bias": False, "attention_dropout": 0.0, **_qwen_tokens(tokenizer, "bos", "eos"),
                "dtype": "bfloat16", "head_dim": 20, "hidden_act": "silu", "hidden_size": 64,
                "initializer_range": 0.02, "intermediate_size": 96, "max_position_embeddings": POSITIONS,
                "model_type": "qwen3_vl_text", "num_attention_heads": 4, "num_hidden_layers": 4,
                "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
                "rope_scaling": {"mrope_interleaved": True, "mrope_section": [4, 3, 3], "rope_type": "default"},
                "rope_theta": 5000000, "use_cache": True, "vocab_size": tokenizer.get_vocab_size() + 29,
            },
            "tie_word_embeddings": False,
            "transformers_version": "4.57.0.dev0",
            **_qwen_tokens(tokenizer, "video"),
            "vision_config": {
                "deepstack_visual_indexes": [0, 1, 2], "depth": 4, "hidden_act": "gelu_pytorch_tanh",
                "hidden_size": 32, "in_channels": 3, "initializer_range": 0.02, "intermediate_size": 56,
                "model_type": "qwen3_vl", "num_heads": 2, "num_position_embeddings": 36, "out_hidden_size": 64,
                "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2,
            },
            **_qwen_tokens(tokenizer, "vision_end", "vision_start"),
        },
        "generation_config.json": {
            "bos_token_id": bos, "pad_token_id": bos, "do_sample": True, "eos_token_id": [eos, bos], "top_k": 20,
            "top_p": 0.8, "repetition_penalty": 1.0, "temperature": 0.7, "transformers_version": "4.56.0",
        },
        "preprocessor_config.json": {
            "size": {"longest_edge": 16384, "shortest_edge": 4096}, **pictures,
            "image_processor_type": "Qwen2VLImageProcessorFast",
        },
        "video_preprocessor_config.json": {
            "size": {"longest_edge": 65536, "shortest_edge": 4096}, **pictures,
            "video_processor_type": "Qwen3VLVideoProcessor",
        },
    }  # fmt: skip


CHECKPOINTS = {
    "llava-hf/llava-v1.6-vicuna-7b-hf": Miniature(
        LlavaNextForConditionalGeneration, torch.float16, lambda: _llama_tokenizer(["<image>"]), _vicuna_files
    ),
    "llava-hf/llava-v1.6-mistral-7b-hf": Miniature(
        LlavaNextForConditionalGeneration,
        torch.bfloat16,
        lambda: _llama_tokenizer(["<image>", "<pad>"]),
        _mistral_files,
    ),
    "Qwen/Qwen2-VL-7B-Instruct": Miniature(
        Qwen2VLForConditionalGeneration, torch.bfloat16, lambda: _qwen_tokenizer([]), _qwen2_files
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": Miniature(
        Qwen2_5_VLForConditionalGeneration, torch.bfloat16, lambda: _qwen_tokenizer(QWEN_ADDED), _qwen2_5_files
    ),
    "Qwen/Qwen3-VL-8B-Instruct": Miniature(
        Qwen3VLForConditionalGeneration, torch.bfloat16, lambda: _qwen_tokenizer(QWEN3_ADDED), _qwen3_files
    ),
}
