"""Judge a demo model on the test scenes, on the plugin's own road: lmms-eval, llava_fixattn, chair_demo, pope_demo.

    python -m lmms_fixattn.demo.judge [MODEL_FOLDER] [--methods vanilla pai fixattn] [--output FILE]

Vanilla figures are held against what the demo must be to be of use (TARGETS): see most of what is there, and name what
usually goes with it often enough to be worth correcting. Other methods' figures are printed beside them as they are.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lmms_fixattn.checkpoint import DEMO
from lmms_fixattn.data.coco import CocoFolder
from lmms_fixattn.demo.scenes import GROUP_OF, SPLITS
from lmms_fixattn.metrics.chair import corpus_figures
from lmms_fixattn.task_glue.documents import DEMO_SCENES

TASKS = ("chair_demo", "pope_demo")
DRAWS = 1000  # of the bootstrap over images

# What vanilla greedy answers must reach: figure -> (least, most), for both splits or one.
TARGETS: dict[str, dict[str, tuple[float, float]]] = {
    "familiar": {"chair_s": (20, 50), "recall": (65, 100), "pope_accuracy": (80, 100)},
    "unfamiliar": {"chair_s": (30, 70), "recall": (55, 100), "pope_accuracy": (70, 100)},
}
TARGETS_OF_BOTH: dict[str, tuple[float, float]] = {
    "words": (25, 60),
    "unterminated": (0, 2),
    "rep_4": (0, 10),
    "first_object_wrong": (0, 15),
    "same_group_ratio": (4, float("inf")),
    "cls_first": (1.5, float("inf")),
    "cls_second_last": (1.5, float("inf")),
}


def answer(model: str, methods: Iterable[str], batch_size: int) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return the rows of every method's captions ("chair") and answers ("pope")."""
    from lmms_eval.evaluator import simple_evaluate

    found = {}
    for method in methods:
        result = simple_evaluate(
            model="llava_fixattn",
            model_args=f"pretrained={model},method={method}",
            tasks=list(TASKS),
            batch_size=batch_size,
            log_samples=True,
        )
        rows: dict[str, list[dict[str, Any]]] = {"chair": [], "pope": []}
        for task, samples in sorted(result["samples"].items()):
            for sample in samples:
                rows[task.partition("_")[0]] += sample["n"] if task.startswith("pope") else [sample["n"]]
        found[method] = rows
    return found


def figures(rows: Mapping[str, list[dict[str, Any]]], shown: Mapping[int, tuple[str, ...]]) -> dict[str, float]:
    """Return the figures of one method on one split: percentages, words a caption, and ratios.

    first_object_wrong   captions whose first mention is false, of those that mention anything
    same_group_ratio     false mentions of a group that the scene shows / false mentions of other groups (a scene's
                         first mention of each object counts; 0.5 stands for no mention of other groups)
    """
    captions, answers = ([row for row in rows[kind] if row["image_id"] in shown] for kind in ("chair", "pope"))
    named = [row for row in captions if row["objects"]]
    same = other = 0
    for row in captions:
        groups = {GROUP_OF[name] for name in shown[row["image_id"]]}
        for name in set(row["hallucinated"]):
            if GROUP_OF.get(name) in groups:
                same += 1
            else:
                other += 1
    corpus = corpus_figures(captions)
    kept = ("chair_s", "chair_i", "recall", "f1", "words", "rep_4", "unterminated", "n")
    return {key: float(corpus[key]) for key in kept} | {
        "pope_accuracy": 100 * float(np.mean([row["predicted"] == row["label"] for row in answers])),
        "first_object_wrong": 100 * np.mean([row["objects"][0] in row["hallucinated"] for row in named]).item(),
        "same_group_false": float(same),
        "other_groups_false": float(other),
        "same_group_ratio": same / max(other, 0.5),
    }


def class_attention(model: str, folder: CocoFolder, split: str) -> dict[str, float]:
    """Return how many times their area's share of the CLS attention objects get: cls_first, cls_second_last.

    Attention is summed over heads, over patches alone; a patch counts by the part of it that boxes of objects cover.
    """
    import torch
    from PIL import Image
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    from lmms_fixattn.vision import watch_vision

    llava = LlavaForConditionalGeneration.from_pretrained(model, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(model)
    patch = llava.config.vision_config.patch_size
    tower = llava.model.vision_tower
    attended: dict[str, list[float]] = {"cls_first": [], "cls_second_last": []}
    covered = []
    boxes: dict[int, list[list[int]]] = {}
    for entry in json.loads((folder.root / "annotations" / f"instances_{split}.json").read_text())["annotations"]:
        boxes.setdefault(entry["image_id"], []).append(entry["bbox"])
    for image in folder.images(folder.image_ids(split)):
        pixels = processor.image_processor(images=Image.open(image.path), return_tensors="pt")["pixel_values"]
        under = np.zeros(pixels.shape[-2:])
        for left, top, width, height in boxes[image.image_id]:
            under[top : top + height, left : left + width] = 1
        share = torch.from_numpy(under).float().unfold(0, patch, patch).unfold(1, patch, patch).mean((2, 3)).flatten()
        with torch.no_grad(), watch_vision(tower, frozenset(attended), has_class_token=False) as watch:
            tower(pixels)
        attention = watch.take()
        covered.append(float(share.mean()))
        for part, ratios in attended.items():
            weights = getattr(attention, part)[0]
            ratios.append(float((weights * share).sum() / weights.sum()))
    return {part: float(np.mean(ratios) / np.mean(covered)) for part, ratios in attended.items()}


def difference(
    ours: list[dict[str, Any]], theirs: list[dict[str, Any]], figure: str, seed: int = 0
) -> tuple[float, float, float]:
    """Return ours minus theirs in a corpus figure of the same images' captions, and its 95% interval over images."""

    def between(chosen: Iterable[int]) -> float:
        indices = list(chosen)
        return float(
            corpus_figures([ours[index] for index in indices])[figure]
            - corpus_figures([theirs[index] for index in indices])[figure]
        )

    draws = np.random.default_rng(seed).integers(len(ours), size=(DRAWS, len(ours)))
    low, high = np.quantile([between(draw) for draw in draws], (0.025, 0.975))
    return between(range(len(ours))), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m lmms_fixattn.demo.judge", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("model", nargs="?", default=str(DEMO), help="folder of the model (default: the packaged one)")
    parser.add_argument("--methods", nargs="+", default=["vanilla"])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--output", type=Path, help="write figures and rows as JSON")
    arguments = parser.parse_args()

    found = answer(arguments.model, dict.fromkeys(["vanilla", *arguments.methods]), arguments.batch_size)
    folder = CocoFolder(DEMO_SCENES)
    report: dict[str, Any] = {}
    for split in SPLITS:
        ids = folder.image_ids(split)
        shown = {image.image_id: image.objects for image in folder.images(ids)}
        for method, rows in found.items():
            report.setdefault(method, {})[split] = figures(rows, shown)
        report["vanilla"][split] |= class_attention(arguments.model, folder, split)
        print(f"\nvanilla, {split}")
        for name, (least, most) in {**TARGETS[split], **TARGETS_OF_BOTH}.items():
            value = report["vanilla"][split][name]
            verdict = "reached" if least <= value <= most else "MISSED"
            print(f"  {name:20} {value:8.1f}   target {least:g} to {most:g}: {verdict}")
        for method in [name for name in found if name != "vanilla"]:
            print(f"\n{method} against vanilla, {split} (95% interval over images)")
            ours, theirs = (
                [row for row in found[key]["chair"] if row["image_id"] in shown] for key in (method, "vanilla")
            )
            for name in ("chair_s", "chair_i", "recall", "words", "rep_4"):
                change, low, high = difference(ours, theirs, name)
                report[method][split][f"{name}_difference"] = [change, low, high]
                print(f"  {name:20} {report[method][split][name]:8.1f}   {change:+.1f} [{low:+.1f}, {high:+.1f}]")
            print(f"  {'pope_accuracy':20} {report[method][split]['pope_accuracy']:8.1f}")
    if arguments.output:
        arguments.output.write_text(json.dumps({"figures": report, "rows": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
