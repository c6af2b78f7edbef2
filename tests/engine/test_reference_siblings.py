"""Equality of the other attention methods with the released codes' outputs: the numbers in tests/golden."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_llava import PAD, Prompt

from lmms_fixattn import intervene, make_method
from lmms_fixattn.methods.statistics import AttentionStatistics
from lmms_fixattn.methods.text_model import TextModel

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
IMAGE, IMAGE_TOKENS, STEPS = 159, 576, 9
SETTINGS = {
    "none": {},
    "hgai": {"alpha": "alpha"},
    "vaf": {"enhance": "enh", "suppress": "sup"},
    "spin": {"kept": "r", "factor": "f"},
    "adhh": {"heads": "heads", "threshold": "threshold"},
    "var": {"sink_dims": "dim_sink", "tau": "tau", "rho": "rho", "image_mass": "summ", "p": "p"},
    "iat": {"alpha": "alpha"},
    "adaiat": {"alpha": "alpha"},
}
"""Our names of the hyper-parameters, and those of the runs."""


@pytest.fixture(scope="module")
def released():
    from transformers import LlavaForConditionalGeneration

    inputs = dict(np.load(GOLDEN / "attention" / "arrays.npz"))
    model = LlavaForConditionalGeneration.from_pretrained(GOLDEN / "attention" / "model").eval()
    prompts = [
        Prompt(
            [1, *inputs[f"input/{s}/before"].flat, *([IMAGE] * IMAGE_TOKENS), *inputs[f"input/{s}/after"].flat],
            torch.tensor(inputs[f"input/{s}/pixel_values"]),
        )
        for s in (0, 1)
    ]
    runs = json.loads((GOLDEN / "siblings" / "runs.json").read_text())["runs"]
    return model, dict(np.load(GOLDEN / "siblings" / "arrays.npz")), runs, prompts


def method_of(run, folder, text_model):
    settings = {ours: run[theirs] for ours, theirs in SETTINGS[run["method"]].items()}
    if run["method"] not in ("none", "adhh"):
        settings["layers"] = tuple(run["layers"])
    if run["method"] == "adaiat":
        # That code takes M and the thresholds themselves; these means have them.
        ratios, thresholds = 1 + torch.tensor(run["direction"]), torch.tensor(run["thr"])
        hallucinated = (thresholds / (1 + ratios).sum(dim=1) * 2)[:, None].expand_as(ratios)
        file = folder / f"{run['name']}.safetensors"
        AttentionStatistics(hallucinated * ratios, hallucinated, text_model, {}).save(file)
        settings |= {"statistics": str(file), "clamp": False}
    return make_method("vanilla" if run["method"] == "none" else run["method"], **settings)


def check(run, arrays, tokens, logits):
    assert tokens == run["generated"], run["name"]
    tolerance = 2e-4 if run["method"] == "var" else 1e-4
    expected = arrays[f"{run['name']}/{run['sample']}/cond_logits"]
    np.testing.assert_allclose(logits, expected, atol=tolerance, err_msg=run["name"])


def generate(model, method, inputs):
    with intervene(model, method):
        out = model.generate(
            **inputs, max_new_tokens=STEPS, min_new_tokens=STEPS, do_sample=False,
            output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
    return out.sequences[:, inputs["input_ids"].shape[1] :].tolist(), torch.stack(out.logits)


def usable(run):
    return run["sample"] < 2 and run.get("fresh_state", True)


@pytest.mark.parametrize("name", SETTINGS)
def test_released_runs_one_by_one(released, name, tmp_path):
    model, arrays, runs, prompts = released
    runs = [run for run in runs if run["method"] == name and usable(run)]
    assert runs
    for run in runs:
        method = method_of(run, tmp_path, TextModel.of(model.config.text_config))
        tokens, logits = generate(model, method, prompts[run["sample"]].inputs())
        check(run, arrays, tokens[0], logits[:, 0])


@pytest.mark.system
@pytest.mark.parametrize("name", SETTINGS)
def test_released_runs_in_a_left_padded_batch_with_other_prompts(released, name, tmp_path):
    model, arrays, runs, prompts = released
    width = max(len(prompt.ids) for prompt in prompts) + 3
    rows = [prompts[1], Prompt(prompts[0].ids[-8:], None), prompts[0]]
    inputs = {
        "input_ids": torch.tensor([[PAD] * (width - len(row.ids)) + row.ids for row in rows]),
        "attention_mask": torch.tensor([[0] * (width - len(row.ids)) + [1] * len(row.ids) for row in rows]),
        "pixel_values": torch.cat([prompts[1].pixel_values, prompts[0].pixel_values]),
    }
    for run in [run for run in runs if run["method"] == name and usable(run)]:
        method = method_of(run, tmp_path, TextModel.of(model.config.text_config))
        tokens, logits = generate(model, method, inputs)
        row = 2 if run["sample"] == 0 else 0
        check(run, arrays, tokens[row], logits[:, row])
