"""The repositories that the literal command reads, in the layouts that they have on the hub, but small."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image
from stand_in_hub import Repository

from lmms_fixattn.data import image_lists
from lmms_fixattn.models.checkpoint import DEMO

CHECKPOINT = "llava-hf/llava-1.5-7b-hf"
POPE = "lmms-lab-encoder/POPE"
CHAIR = "tsunghanwu/mscoco_chair"
CATEGORIES = ("adversarial", "popular", "random")
_SHARDS = 3
_THINGS = ("person", "dog", "car", "chair", "bottle", "boat")
# The template that llava-hf's repositories hold.
_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


@cache
def checkpoint() -> Repository:
    """Return the packaged demo as llava-hf saved LLaVA-1.5, with transformers 4: its names, its shards, its configs."""
    from safetensors.torch import load_file, save

    weights = {
        name.replace("vision_tower.", "vision_tower.vision_model."): value
        for name, value in load_file(DEMO / "model.safetensors").items()
    }
    names = sorted(weights)
    each = -(-len(names) // _SHARDS)
    files: dict[str, bytes] = {}
    places: dict[str, str] = {}
    for shard in range(_SHARDS):
        path = f"model-{shard + 1:05d}-of-{_SHARDS:05d}.safetensors"
        part = {name: weights[name] for name in names[shard * each : (shard + 1) * each]}
        files[path] = save(part, metadata={"format": "pt"})
        places |= dict.fromkeys(part, path)
    total = sum(value.numel() * value.element_size() for value in weights.values())
    files["model.safetensors.index.json"] = _json({"metadata": {"total_size": total}, "weight_map": places})
    config = _read("config.json")
    text, vision = config["text_config"], config["vision_config"]
    config |= {"torch_dtype": config.pop("dtype"), "ignore_index": -100, "transformers_version": "4.36.0.dev0"}
    text |= {"architectures": ["LlamaForCausalLM"], "torch_dtype": "float16", "rope_theta": 10000.0}
    text.pop("rope_parameters")
    vision["vocab_size"] = text["vocab_size"]
    files["config.json"] = _json(config)
    files["generation_config.json"] = _json({"_from_model_config": True, **_read("generation_config.json")})
    processor = _read("processor_config.json")
    images = processor.pop("image_processor")
    files["preprocessor_config.json"] = _json({**images, "processor_class": "LlavaProcessor"})
    files["processor_config.json"] = _json(processor)
    files["chat_template.json"] = _json({"chat_template": _TEMPLATE})
    files["chat_template.jinja"] = _TEMPLATE.encode()
    tokenizer = _read("tokenizer_config.json")
    files["tokenizer.json"] = (DEMO / "tokenizer.json").read_bytes()
    files["tokenizer_config.json"] = _json(tokenizer)
    special = ("bos_token", "eos_token", "pad_token", "unk_token")
    files["special_tokens_map.json"] = _json({name: tokenizer[name] for name in special})
    files["added_tokens.json"] = _json({"<image>": config["image_token_index"], "<pad>": config["pad_token_id"]})
    files["README.md"] = b"---\nlanguage:\n- en\npipeline_tag: image-text-to-text\n---\n# LLaVA\n"
    return Repository("models", CHECKPOINT, dict(sorted(files.items())))


@cache
def pope(images: int = 12) -> Repository:
    """Return POPE as lmms-eval's authors keep it: six questions a kind about each of so many of its images."""
    features = dict.fromkeys(("id", "question_id", "question", "answer", "image_source", "category"), "string")
    by_category = {category: _pope_rows(category, images) for category in CATEGORIES}
    tables = {
        "default": {"test": [row for rows in by_category.values() for row in rows]},
        "Full": by_category,
    }
    folders = {"default": "data", "Full": "Full"}
    return Repository("datasets", POPE, _parquet_files(tables, folders, features))


@cache
def chair(images: int = 12) -> Repository:
    """Return the data set of lmms-eval's own CHAIR task, with so many of its images."""
    ids = image_lists.load("opera").ids[:images]
    rows = [
        {"image": _picture(image_id), "question_id": image_id, "gt_object": [_THINGS[image_id % 6]]} for image_id in ids
    ]
    features = {"question_id": "int64", "gt_object": "list"}
    return Repository("datasets", CHAIR, _parquet_files({"default": {"test": rows}}, {"default": "data"}, features))


@cache
def jpeg(image_id: int) -> bytes:
    """Return a picture for an image's id: noise, so that no part of it is empty."""
    file = io.BytesIO()
    Image.effect_noise((67, 41), image_id % 97 + 20).convert("RGB").save(file, "jpeg", quality=90)
    return file.getvalue()


def _picture(image_id: int) -> dict[str, Any]:
    return {"bytes": jpeg(image_id), "path": f"COCO_val2014_{image_id:012d}.jpg"}


def _pope_rows(category: str, images: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for image_id in image_lists.load("pope_coco").ids[:images]:
        for turn in range(6):
            thing = _THINGS[(turn + (CATEGORIES.index(category) if turn % 2 else 0)) % 6]
            rows.append(
                {
                    "id": str(len(rows)),
                    "question_id": str(len(rows) + 1),
                    "question": f"Is there a {thing} in the image?",
                    "answer": "no" if turn % 2 else "yes",
                    "image_source": f"COCO_val2014_{image_id:012d}",
                    "image": _picture(image_id),
                    "category": category,
                }
            )
    return rows


def _parquet_files(
    tables: dict[str, dict[str, Sequence[dict[str, Any]]]], folders: dict[str, str], types: dict[str, str]
) -> dict[str, bytes]:
    """Return parquet files and the README whose head lists them, as push_to_hub of the datasets library writes both."""
    from datasets import Dataset, Features, List, Value
    from datasets import Image as Picture

    features = Features(
        {name: List(Value("string")) if kind == "list" else Value(kind) for name, kind in types.items()}
        | {"image": Picture()}
    )
    files: dict[str, bytes] = {}
    infos, configs = [], []
    for config, splits in tables.items():
        stated, paths = [], []
        for split, rows in splits.items():
            file = io.BytesIO()
            Dataset.from_list(list(rows), features=features).to_parquet(file)
            files[f"{folders[config]}/{split}-00000-of-00001.parquet"] = file.getvalue()
            size = len(file.getvalue())
            stated.append(f"  - name: {split}\n    num_bytes: {size}\n    num_examples: {len(rows)}\n")
            paths.append(f"  - split: {split}\n    path: {folders[config]}/{split}-*\n")
        columns = "".join(
            f"  - name: {name}\n    {'sequence: string' if kind == 'list' else f'dtype: {kind}'}\n"
            for name, kind in {**types, "image": "image"}.items()
        )
        infos.append(f"- config_name: {config}\n  features:\n{columns}  splits:\n{''.join(stated)}")
        configs.append(f"- config_name: {config}\n  data_files:\n{''.join(paths)}")
    head = f"---\ndataset_info:\n{''.join(infos)}configs:\n{''.join(configs)}---\n"
    return {"README.md": head.encode(), **files}


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(DEMO) / name).read_text())
    return content


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=2).encode()
