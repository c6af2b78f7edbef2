"""Judge a demo model on the test scenes, on the plugin's own road: lmms-eval, llava_fixattn, chair_demo, pope_demo.

    python -m demo_model.judge [MODEL_FOLDER] [--output FILE]

The unmodified model's figures are held against what the demo must be to be of use (TARGETS): see most of what is there,
and name what usually goes with it often enough to be worth correcting. What methods make of it is not looked at here,
so that no checkpoint is chosen for it: `lmms-fixattn sweep demo_table1` shows that.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from demo_model.scenes import CROWDED, GROUP_OF, SPLITS
from lmms_fixattn.data.coco import DEMO_SCENES, CocoFolder
from lmms_fixattn.models.checkpoint import DEMO
from lmms_fixattn.scoring import pope
from lmms_fixattn.scoring.chair import corpus_figures

TASKS = ("chair_demo", "pope_demo")

# What vanilla greedy captions must reach: figure -> (least, most), for both splits or one.
TARGETS: dict[str, dict[str, tuple[float, float]]] = {
    "familiar": {"chair_s": (20, 50), "recall": (65, 100)},
    "unfamiliar": {"chair_s": (30, 70), "recall": (55, 100)},
}
# Of the questions, which are about crowded scenes: room to gain and to lose.
TARGETS_OF_QUESTIONS: dict[str, tuple[float, float]] = {"accuracy": (70, 95)}
TARGETS_OF_BOTH: dict[str, tuple[float, float]] = {
    "words": (25, 60),
    "unterminated": (0, 2),
    "rep_4": (0, 10),
    "first_object_wrong": (0, 15),
    "same_group_ratio": (4, float("inf")),
    "cls_first": (1.5, float("inf")),
    "cls_second_last": (1.5, float("inf")),
}


def answer(model: str, batch_size: int) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of the unmodified model's captions ("chair") and answers ("pope")."""
    from lmms_eval.evaluator import simple_evaluate

    result = simple_evaluate(
        model="llava_fixattn",
        model_args=f"pretrained={model},method=vanilla",
        tasks=list(TASKS),
        batch_size=batch_size,
        log_samples=True,
    )
    rows: dict[str, list[dict[str, Any]]] = {"chair": [], "pope": []}
    for task, samples in sorted(result["samples"].items()):
        for sample in samples:
            rows[task.partition("_")[0]] += sample["n"] if task.startswith("pope") else [sample["n"]]
    return rows


def figures(rows: Mapping[str, list[dict[str, Any]]], shown: Mapping[int, tuple[str, ...]]) -> dict[str, float]:
    """Return the figures of one split's captions: percentages, words a caption, and ratios.

    first_object_wrong   captions whose first mention is false, of those that mention anything
    same_group_ratio     false mentions of a group that the scene shows / false mentions of other groups (a scene's
                         first mention of each object counts; 0.5 stands for no mention of other groups)
    same_group_odds      the same, each divided by the absent objects on offer: how much likelier an absent object of a
                         group that is there is to be named than any other absent one
    """
    captions = [row for row in rows["chair"] if row["image_id"] in shown]
    named = [row for row in captions if row["objects"]]
    same = other = same_offered = other_offered = 0
    for row in captions:
        groups = {GROUP_OF[name] for name in shown[row["image_id"]]}
        absent = [GROUP_OF[name] in groups for name in GROUP_OF if name not in shown[row["image_id"]]]
        same_offered += sum(absent)
        other_offered += len(absent) - sum(absent)
        for name in set(row["hallucinated"]):
            if GROUP_OF.get(name) in groups:
                same += 1
            else:
                other += 1
    corpus = corpus_figures(captions)
    kept = ("chair_s", "chair_i", "recall", "f1", "words", "rep_4", "unterminated", "n")
    return {key: float(corpus[key]) for key in kept} | {
        "first_object_wrong": 100 * np.mean([row["objects"][0] in row["hallucinated"] for row in named]).item(),
        "same_group_false": float(same),
        "other_groups_false": float(other),
        "same_group_ratio": same / max(other, 0.5),
        "same_group_odds": same / max(other, 0.5) * other_offered / same_offered,
    }


def class_attention(model: str, folder: CocoFolder, split: str) -> dict[str, float]:
    """Return how many times their area's share of the CLS attention objects get: cls_first, cls_second_last.

    Attention is summed over heads, over patches alone; a patch counts by the part of it that boxes of objects cover.
    """
    import torch
    from PIL import Image
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    from lmms_fixattn.models.vision_watch import watch_vision

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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo_model.judge", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", nargs="?", default=str(DEMO), help="folder of the model (default: the packaged one)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--output", type=Path, help="write figures and rows as JSON")
    arguments = parser.parse_args()

    rows = answer(arguments.model, arguments.batch_size)
    folder = CocoFolder(DEMO_SCENES)
    report: dict[str, dict[str, float]] = {}
    for split in SPLITS:
        shown = {image.image_id: image.objects for image in folder.images(folder.image_ids(split))}
        report[split] = figures(rows, shown) | class_attention(arguments.model, folder, split)
        _judge(split, report[split], {**TARGETS[split], **TARGETS_OF_BOTH})
    report[CROWDED] = {name: float(value) for name, value in pope.figures(rows["pope"]).items()}
    _judge(CROWDED, report[CROWDED], TARGETS_OF_QUESTIONS)
    if arguments.output:
        arguments.output.write_text(json.dumps({"figures": report, "rows": rows}, indent=1) + "\n", encoding="utf-8")


def _judge(split: str, found: Mapping[str, float], targets: Mapping[str, tuple[float, float]]) -> None:
    print(f"\n{split}")
    for name, (least, most) in targets.items():
        verdict = "reached" if least <= found[name] <= most else "MISSED"
        print(f"  {name:20} {found[name]:8.1f}   target {least:g} to {most:g}: {verdict}")


if __name__ == "__main__":
    main()
