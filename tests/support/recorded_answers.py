"""Make the answers that `lmms-fixattn check` compares with, by LLaVA written out by hand on the packaged model.

    python tests/support/recorded_answers.py      # writes lmms_fixattn/demo/answers.safetensors

Nothing of the engine computes them: the formulas are those of naive_methods.py, in float64 loops of naive_llava.py.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from method_cases import METHOD_CASES, Reader, formula
from naive_llava import generate
from safetensors.torch import save_file

from lmms_fixattn import make_method
from lmms_fixattn.harness.check import ANSWERS, KEPT, STEPS, Packaged
from lmms_fixattn.methods.icd import DISTURBANCE

PROMPTS = [
    ("familiar/scene_001.png", "Please describe this image in detail."),
    ("familiar/scene_007.png", "Is there a dog in the image?"),
    ("unfamiliar/scene_123.png", "Please help me describe the image in detail, and say where each thing is."),
]
SETTINGS = {name: dict(case.recorded) for name, case in METHOD_CASES.items() if case.recorded is not None}
"""The methods that act inside the model, with settings that move the packaged model's answers."""


def record(name: str, packaged: Packaged, folder: Path, asked: Any = PROMPTS) -> dict[str, torch.Tensor]:
    """Return the tokens of one method's answers, and the likeliest next tokens of each step with their scores."""
    model, encoder = packaged.model, packaged.encoder
    settings = packaged.settings(SETTINGS[name], folder)
    words = encoder.tokenizer(DISTURBANCE, add_special_tokens=False)["input_ids"]
    fix = formula(make_method(name, **settings), Reader(len(model.model.language_model.layers), words))
    rows = []
    for prompt in packaged.prompts(asked):
        tokens, _, scores = generate(model, prompt.ids, prompt.images, fix, STEPS)
        top = scores.topk(KEPT)
        rows.append((torch.tensor(tokens), top.indices, top.values))
    tokens, ids, values = (torch.stack(each) for each in zip(*rows, strict=True))
    return {f"{name}.tokens": tokens.short(), f"{name}.ids": ids.short(), f"{name}.scores": values.float()}


def main() -> None:
    packaged = Packaged(torch.device("cpu"), torch.float32)
    text = packaged.model.config.text_config
    draw = torch.Generator().manual_seed(0)
    hallucinated = 0.025 + 0.075 * torch.rand(text.num_hidden_layers, text.num_attention_heads, generator=draw)
    true = hallucinated * (0.7 + torch.rand(hallucinated.shape, generator=draw))
    tensors = {"true": true, "hallucinated": hallucinated}
    about = {"prompts": json.dumps(PROMPTS), "settings": json.dumps(SETTINGS)}
    save_file(tensors, ANSWERS, about)  # AdaIAT's statistics, which the settings name
    with tempfile.TemporaryDirectory() as folder:
        for name in SETTINGS:
            tensors |= record(name, packaged, Path(folder))
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, ANSWERS, about)
    ANSWERS.chmod(0o644)


if __name__ == "__main__":
    main()
