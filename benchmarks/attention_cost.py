"""What a method costs beside the unmodified model: prefill and decode time, as ratios from one interleaved run.

    python benchmarks/attention_cost.py [--methods fixattn pai ...] [--batch 1 8] [--rounds 30] [--json FILE]

The model has random weights; its text part has hidden size 1024, 8 layers and 16 heads of 64. Of the 640 prompt tokens
576 are an image's. The rival is the same model with no intervention, on SDPA. Each round runs every method once, in
random order, so that a noisy neighbour hits all alike; the figure is the median over rounds of the ratio in a round.
The logits refine is off (gamma=1) unless --refine is given: it is a second forward pass a token by its nature. Methods
whose constants are those of 32 layers edit the same share of these 8, and AD-HH the same share of heads. AdaIAT gets
statistics with which it always acts.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import CLIPVisionConfig, DynamicCache, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from lmms_fixattn import METHODS, intervene, make_method
from lmms_fixattn.attention_statistics import AttentionStatistics
from lmms_fixattn.methods import Method
from lmms_fixattn.text_model import TextModel
from lmms_fixattn.versions import installed

PATCHES, PROMPT, IMAGE = 576, 640, 999
SCALED = {
    "hgai": {"layers": "1-5"},
    "vaf": {"layers": "2-4"},
    "adhh": {"heads": "[3:13,4:5,6:9]"},
    "var": {"sink_dims": "[7,23]"},
    "iat": {"layers": "1-5"},
    "adaiat": {"layers": "1-5"},
}


def build(hidden: int, layers: int, heads: int, key_heads: int) -> Any:
    """Build the benchmark's LLaVA: a small tower of 576 patches before a text model of the asked size."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4, image_size=336, patch_size=14
    )
    text = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        vocab_size=1000,
        max_position_embeddings=2048,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE, image_seq_length=PATCHES)
    return LlavaForConditionalGeneration(config).eval()


def prompts(batch: int) -> dict[str, torch.Tensor]:
    """Return a batch of prompts of 640 tokens with one image each, unpadded."""
    text = torch.randint(3, IMAGE, (batch, PROMPT - PATCHES))
    image = torch.full((batch, PATCHES), IMAGE)
    ids = torch.cat([text[:, :40], image, text[:, 40:]], dim=1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(batch, 3, 336, 336)}


@torch.inference_mode()
def generate_once(model: Any, method: Method, inputs: dict[str, torch.Tensor], steps: int) -> tuple[float, float]:
    """Return seconds of the prefill (the tower's run included) and of one decode step (the median of ``steps``)."""
    with intervene(model, method):
        cache = DynamicCache(config=model.config.text_config)
        start = time.perf_counter()
        out = model(**inputs, past_key_values=cache, logits_to_keep=1)
        prefill = time.perf_counter() - start
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            out = model(input_ids=out.logits[:, -1].argmax(-1, keepdim=True), past_key_values=cache, logits_to_keep=1)
            times.append(time.perf_counter() - start)
    return prefill, statistics.median(times)


@torch.inference_mode()
def generate_refined(model: Any, method: Method, inputs: dict[str, torch.Tensor], steps: int) -> tuple[float, float]:
    """The same through ``generate``, which the refine needs: one call for a token, one for ``steps`` more."""
    with intervene(model, method):
        times = []
        for tokens in (1, 1 + steps):
            start = time.perf_counter()
            model.generate(**inputs, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens)
            times.append(time.perf_counter() - start)
    return times[0], (times[1] - times[0]) / steps


def scaled(name: str, refine: bool, text: TextModel, folder: Path) -> Method:
    """Return the method as the benchmark's model takes it, its refine off unless asked for."""
    known = {field.name for field in dataclasses.fields(METHODS[name])}
    settings: dict[str, Any] = {**SCALED.get(name, {}), **({"gamma": 1} if "gamma" in known and not refine else {})}
    if "statistics" in known:
        means = torch.ones(text.layers, text.heads)
        AttentionStatistics(1.2 * means, means, text, {}).save(folder / f"{name}.safetensors")
        settings["statistics"] = str(folder / f"{name}.safetensors")
    return make_method(name, **settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=[name for name in METHODS if name != "vanilla"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--key-heads", type=int, default=16)
    parser.add_argument("--refine", action="store_true", help="measure with each method's logits refine on")
    parser.add_argument("--json", help="write the figures here")
    arguments = parser.parse_args()

    model = build(arguments.hidden, arguments.layers, arguments.heads, arguments.key_heads)
    text = TextModel.of(model.config.text_config)
    with tempfile.TemporaryDirectory() as folder:
        names = (*arguments.methods, "vanilla")
        methods = {name: scaled(name, arguments.refine, text, Path(folder)).for_model(text) for name in names}
        measure(arguments, model, methods)


def measure(arguments: argparse.Namespace, model: Any, methods: dict[str, Method]) -> None:
    """Measure the methods beside each other, print the ratios and write them where asked."""
    # What two runs of the same thing differ by: the noise of this machine.
    methods = {**methods, "vanilla again": methods["vanilla"]}
    once = generate_refined if arguments.refine else generate_once
    results = []
    for batch in arguments.batch:
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
        inputs = prompts(batch)
        for seed in tqdm(range(arguments.rounds + 1), desc=f"batch {batch}", unit="round"):
            for name in random.Random(seed).sample(list(methods), len(methods)):
                seconds = once(model, methods[name], inputs, arguments.steps)
                if seed:  # the first round warms up
                    times[name].append(seconds)
        rival = times["vanilla"]
        for name in methods:
            ratios = [[mine[i] / other[i] for mine, other in zip(times[name], rival, strict=True)] for i in (0, 1)]
            row = {"batch": batch, "method": name, "prefill": statistics.median(ratios[0])}
            results.append(row | {"decode": statistics.median(ratios[1])})

    print(f"\n{'batch':>5}  {'method':<16}{'prefill':>9}{'decode':>9}   times the unmodified model's")
    for row in results:
        print(f"{row['batch']:>5}  {row['method']:<16}{row['prefill']:>9.3f}{row['decode']:>9.3f}")
    if arguments.json:
        setting = {"threads": torch.get_num_threads(), "versions": installed(), **vars(arguments)}
        with open(arguments.json, "w") as file:
            json.dump({"setting": setting, "ratios": results}, file, indent=1)


if __name__ == "__main__":
    main()
