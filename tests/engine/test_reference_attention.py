"""Equality with the released code's outputs: the numbers in tests/golden."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_llava import PAD, Prompt

from lmms_fixattn import intervene, make_method
from lmms_fixattn.methods.formulas.selection import select_tokens
from lmms_fixattn.models.vision_watch import watch_vision

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
IMAGE_TOKENS = 576


@pytest.fixture(scope="module")
def released():
    from transformers import LlavaForConditionalGeneration

    folder = GOLDEN / "attention"
    arrays = dict(np.load(folder / "arrays.npz"))
    model = LlavaForConditionalGeneration.from_pretrained(folder / "model").eval()
    prompts = [
        Prompt(
            [1, *arrays[f"input/{s}/before"].flat, *([159] * IMAGE_TOKENS), *arrays[f"input/{s}/after"].flat],
            torch.tensor(arrays[f"input/{s}/pixel_values"]),
        )
        for s in (0, 1)
    ]
    return model, arrays, json.loads((folder / "runs.json").read_text()), prompts


def method_of(run):
    shared = {
        "layers": tuple(run["layers"]),
        "gamma": run["gamma"] or 1,
        "released_first_token": run["cfg_flow"] == "official",
    }
    if run["method"] == "fixattn":
        sets = {"beta": run["beta"], "local_ratio": run["local"], "spatial_ratio": run["spatial"]}
        return make_method("fixattn", alpha=run["alpha"], **sets, **shared)
    return make_method("pai", alpha=run["alpha"], **shared)


def check(run, arrays, tokens, logits, scores):
    assert tokens == run["generated"], run["name"]
    key = f"{run['name']}/{run['sample']}"
    np.testing.assert_allclose(logits, arrays[f"{key}/cond_logits"], atol=5e-4)
    np.testing.assert_allclose(scores, arrays[f"{key}/scores"], atol=5e-4)


@pytest.mark.system
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_every_released_run_single_and_with_a_static_cache(released, cache):
    model, arrays, runs, prompts = released
    settings = {"cache_implementation": "static"} if cache == "static" else {}
    assert len(runs) >= 18
    for run in runs:
        if run["beams"] > 1 and cache == "static":
            continue
        inputs = prompts[run["sample"]].inputs()
        with intervene(model, method_of(run)):
            out = model.generate(
                **inputs, **settings, max_new_tokens=9, min_new_tokens=9, do_sample=False, num_beams=run["beams"],
                output_logits=True, output_scores=True, return_dict_in_generate=True,
            )  # fmt: skip
        tokens = out.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        if run["beams"] > 1:
            assert tokens == run["generated"]
            expected = arrays[f"{run['name']}/{run['sample']}/sequences_scores"]
            np.testing.assert_allclose(out.sequences_scores, expected, atol=5e-4)
        else:
            check(run, arrays, tokens, torch.stack(out.logits)[:, 0], torch.stack(out.scores)[:, 0])


def test_every_released_run_in_a_left_padded_batch(released):
    model, arrays, runs, prompts = released
    width = max(len(prompt.ids) for prompt in prompts) + 3
    rows = [prompts[0], prompts[1], Prompt(prompts[0].ids[-8:], None)]
    inputs = {
        "input_ids": torch.tensor([[PAD] * (width - len(row.ids)) + row.ids for row in rows]),
        "attention_mask": torch.tensor([[0] * (width - len(row.ids)) + [1] * len(row.ids) for row in rows]),
        "pixel_values": torch.cat([prompt.pixel_values for prompt in prompts]),
    }
    for name in {run["name"] for run in runs if run["beams"] == 1}:
        pair = sorted((run for run in runs if run["name"] == name), key=lambda run: run["sample"])
        with intervene(model, method_of(pair[0])):
            out = model.generate(
                **inputs, max_new_tokens=9, min_new_tokens=9, do_sample=False,
                output_logits=True, output_scores=True, return_dict_in_generate=True,
            )  # fmt: skip
        for row, run in enumerate(pair):
            tokens = out.sequences[row, width:].tolist()
            check(run, arrays, tokens, torch.stack(out.logits)[:, row], torch.stack(out.scores)[:, row])


def test_selected_tokens_are_the_released_ones(released):
    model, arrays, runs, prompts = released
    parts = frozenset({"cls_first", "cls_second_last", "received_first"})
    with torch.no_grad(), watch_vision(model.model.vision_tower, parts) as watch:
        model.model.vision_tower(torch.cat([prompt.pixel_values for prompt in prompts]))
    vision = watch.take()
    for sample in (0, 1):
        for part, name in (("cls_first", "cls_layer0_sum"), ("cls_second_last", "cls_layer-2_sum")):
            np.testing.assert_allclose(getattr(vision, part)[sample], arrays[f"vision/{sample}/{name}"], rtol=1e-4)
        received = arrays[f"vision/{sample}/spatial_colsum"].flatten()[1:]
        np.testing.assert_allclose(vision.received_first[sample], received, rtol=1e-4)
    tokens = select_tokens(vision.cls_first, vision.cls_second_last, None, 0.25, 0)
    for run in runs:
        assert run["spatial"] == 0
        assert run["local"] == 0.25
        assert tokens.local[run["sample"]].nonzero().flatten().tolist() == sorted(run["local_tokens"])
        assert tokens.summary[run["sample"]].nonzero().flatten().tolist() == sorted(run["summary_tokens"])
