"""Make the answers that `lmms-fixattn check` compares with, by LLaVA written out by hand on the packaged model.

    python tests/recorded_answers.py      # writes lmms_fixattn/demo/answers.safetensors

Nothing of the engine computes them: the formulas are those of naive_methods.py, in float64 loops of naive_llava.py.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import naive_methods as naive
import torch
from naive_llava import Fix, generate
from safetensors.torch import save_file

from lmms_fixattn import make_method
from lmms_fixattn.harness.check import ANSWERS, KEPT, STATISTICS, STEPS, Packaged
from lmms_fixattn.methods.icd import DISTURBANCE
from lmms_fixattn.methods.statistics import AttentionStatistics

PROMPTS = [
    ("familiar/scene_001.png", "Please describe this image in detail."),
    ("familiar/scene_007.png", "Is there a dog in the image?"),
    ("unfamiliar/scene_123.png", "Please help me describe the image in detail, and say where each thing is."),
]
SETTINGS: dict[str, dict[str, Any]] = {
    "vanilla": {},
    "pai": {"alpha": 0.6, "layers": "1-"},
    "fixattn": {"alpha": 1.5, "beta": 0.9, "layers": "1-", "head_modulation": "proportional", "spatial_ratio": 0.2},
    "hgai": {"alpha": 0.9, "layers": "1-3"},
    "vaf": {"enhance": 1.6, "suppress": 0.7, "layers": "1-3"},
    "spin": {"kept": 0.6, "factor": 0.2, "layers": "1-"},
    "adhh": {"heads": "[2:0,3:1,3:2]", "threshold": 0.1},
    "var": {"sink_dims": "[6,67]", "tau": 1.8, "rho": 0.6, "image_mass": 0.1, "p": 0.0, "layers": "0-"},
    "iat": {"alpha": 3.0, "layers": "1-3"},
    "adaiat": {"alpha": 12.0, "beta": 0.4, "layers": "1-3", "statistics": STATISTICS},
    "vcd": {"alpha": 1.3, "noise_step": 700, "seed": 5},
    "icd": {"cutoff": 0.05},
    "m3id": {"rate": 0.4},
    "dola": {"cutoff": 0.05},
    "deco": {"layers": "2-4", "top_k": 5},
}
"""The methods that act inside the model, with settings that move the packaged model's answers."""


def fix(name: str, method: Any, depth: int, words: list[int]) -> Fix:
    """Return a method's formula in plain loops, with its settings."""
    layers = (
        (getattr(method, "layers", None) or (0, depth))[0],
        (getattr(method, "layers", None) or (0, depth))[1] or depth,
    )
    m = method
    if name == "adaiat":
        statistics, _ = AttentionStatistics.read(Path(m.statistics))
        ratios, thresholds = statistics.ratios().tolist(), statistics.thresholds(m.beta).tolist()
        return naive.adaiat(ratios, thresholds, m.alpha, layers)
    made = {
        "vanilla": lambda: Fix(),
        "pai": lambda: Fix(alpha=m.alpha, layers=layers, gamma=m.gamma, edit_prefill=not m.released_first_token),
        "fixattn": lambda: Fix(
            alpha=m.alpha, beta=m.beta, local=m.local_ratio, spatial=m.spatial_ratio, layers=layers, gamma=m.gamma,
            edit_prefill=not m.released_first_token, modulation=m.head_modulation, g_max=m.g_max,
        ),
        "hgai": lambda: naive.hgai(m.alpha, layers),
        "vaf": lambda: naive.vaf(m.enhance, m.suppress, layers),
        "spin": lambda: naive.spin(m.kept, m.factor, layers),
        "adhh": lambda: naive.adhh(set(m.heads), m.threshold, depth),
        "var": lambda: naive.var(list(m.sink_dims), m.tau, m.rho, m.image_mass, m.p, layers),
        "iat": lambda: naive.iat(m.alpha, layers),
        "vcd": lambda: naive.vcd(m.alpha, m.cutoff, m.noise_step, m.seed),
        "icd": lambda: naive.icd(m.alpha, m.cutoff, words),
        "m3id": lambda: naive.m3id(m.rate, m.cutoff),
        "dola": lambda: naive.dola(m.alpha, m.cutoff, tuple(range(depth))[::2]),
        "deco": lambda: naive.deco(m.alpha, m.top_p, m.top_k, tuple(range(*layers))),
    }  # fmt: skip
    return made[name]()


def record(name: str, packaged: Packaged, folder: Path, asked: Any = PROMPTS) -> dict[str, torch.Tensor]:
    """Return the tokens of one method's answers, and the likeliest next tokens of each step with their scores."""
    model, encoder = packaged.model, packaged.encoder
    settings = packaged.settings(SETTINGS[name], folder)
    words = encoder.tokenizer(DISTURBANCE, add_special_tokens=False)["input_ids"]
    formula = fix(name, make_method(name, **settings), len(model.model.language_model.layers), words)
    rows = []
    for prompt in packaged.prompts(asked):
        tokens, _, scores = generate(
            model, prompt.ids, prompt.images[0]["pixel_values"] if prompt.images else None, formula, STEPS
        )
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
