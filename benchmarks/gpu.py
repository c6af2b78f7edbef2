"""Measure on a GPU all that is claimed of one, in one run of less than ten minutes on an H200.

    python benchmarks/gpu.py [--output gpu.json] [--modes growing compiled] [--smoke]

The 7B shape with random weights in float16, nothing to download. First on a growing cache, then on a static one with
the decode step compiled: FixAttn with its logits refine and without, beside the unmodified model and the released-style
loop, at batch 1 and 16; then the captions: 500 answers of 100 tokens from 500 pictures, in batches of 50. Pictures are
on the GPU beforehand: reading and preparing them is not in the time.

Results are written after every step, so that a run that is killed keeps what it has. A step that fails is recorded with
its error, and one that is not begun in time is left out; the next ones run, and the exit status is 1. --smoke runs
everything on the CPU with a tiny shape.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from tqdm import tqdm

from lmms_fixattn import intervene
from lmms_fixattn.bench import record
from lmms_fixattn.bench.clock import Turn
from lmms_fixattn.bench.contenders import make_methods
from lmms_fixattn.bench.limit import synchronize
from lmms_fixattn.bench.measure import Timing, answer_greedily, measure
from lmms_fixattn.bench.workload import Workload, load
from lmms_fixattn.methods import Method
from lmms_fixattn.models.family import family_of_model

EDIT, REFINED = "fixattn, gamma=1", "fixattn"
"""FixAttn's edit of the attention alone, and with the logits refine of its published row."""
MODES = {"growing": (False, False), "static": (True, False), "compiled": (True, True)}


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    model: str
    dtype: torch.dtype
    batches: tuple[int, int]
    new_tokens: int
    rounds: int
    captions: int
    caption_tokens: int
    caption_batch: int
    """Of which ``captions`` is a multiple."""


FULL = Size("llava-1.5-7b-shape", torch.float16, (1, 16), 32, 5, 500, 100, 50)
SMOKE = Size("tiny", torch.float32, (1, 2), 3, 1, 8, 4, 4)


def caption_all(workload: Workload, method: Method, size: Size, plan: Timing) -> dict[str, Any]:
    """Answer so many prompts in batches, after one batch that warms up, and take the time."""
    device = workload.model.device
    prompts = workload.prompts(size.caption_batch)
    generating = plan.generating()
    tokens = 0
    with intervene(workload.model, method, workload.tokenizer):
        answer_greedily(generating, workload.model, prompts, size.caption_tokens)
        synchronize(device)
        start = time.perf_counter()
        for _ in tqdm(range(size.captions // size.caption_batch), desc="captions", unit="batch", leave=False):
            answers = answer_greedily(generating, workload.model, prompts, size.caption_tokens)
            tokens += len(answers) * (answers.shape[1] - prompts["input_ids"].shape[1])
        synchronize(device)
        seconds = time.perf_counter() - start
    return {"captions": size.captions, "batch": size.caption_batch, "tokens": tokens, "seconds": seconds}


def steps(workload: Workload, methods: dict[str, Method], size: Size, modes: Sequence[str], bandwidth: float) -> Any:
    """Yield the name of each step and what runs it, the quick and important ones first."""

    def rows(batch: int, plan: Timing) -> dict[str, Any]:
        def progress(turns: Sequence[Turn]) -> Any:
            return tqdm(turns, desc=f"batch {batch}", unit=" measurements", leave=False)

        return {"rows": measure(workload, methods, batch, plan, bandwidth, progress)}

    for mode in modes:
        static, compiled = MODES[mode]
        plan = Timing(size.new_tokens, size.rounds, static, compiled)
        for batch in size.batches:
            yield f"{mode}, batch {batch}", lambda batch=batch, plan=plan: rows(batch, plan)
        for label in (EDIT, REFINED):
            method = methods[label]
            yield (
                f"{mode}, captions, {label}",
                lambda method=method, plan=plan: caption_all(workload, method, size, plan),
            )


def targets(found: dict[str, dict[str, Any]], size: Size) -> list[list[str]]:
    """Return what is aimed at, where, and what was reached."""
    one, many = size.batches
    lines = []
    for name, step in found.items():
        rows = {row["method"]: row for row in step.get("rows", ())}
        if rows and name.endswith(f" {one}"):
            share = rows[EDIT]["bandwidth_share"]
            lines.append([name, f"{EDIT}: share of the bandwidth limit", "at least 50%", f"{share:.0%}"])
        elif rows and name.endswith(f" {many}"):
            lines.append([name, f"{EDIT}: decode, times vanilla", "at most 1.02", f"{rows[EDIT]['step_ratio']:.3f}"])
            for label in (EDIT, REFINED):
                speedup = f"{rows[label]['speedup']:.1f}"
                lines.append([name, f"{label}: tokens/s over the released-style loop", "at least 15", speedup])
        elif "captions" in step:
            what = f"{step['captions']} captions, {step['tokens']} tokens"
            lines.append([name, what, "at most 60 s", f"{step['seconds']:.1f} s"])
    return lines


def attempt(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run a step; a failure is part of the result, whatever it is, so that the other steps still run."""
    start = time.perf_counter()
    try:
        found = run()
    except Exception as error:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
    return {**found, "took_seconds": time.perf_counter() - start}


def main(argv: Sequence[str] | None = None) -> int:
    """Run every step, print as it goes, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("gpu.json"), help="default: gpu.json")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["growing", "compiled"])
    parser.add_argument("--minutes", type=float, default=9, help="begin no step after so many (default: 9)")
    parser.add_argument("--smoke", action="store_true", help="a tiny shape on the CPU: does the script run?")
    arguments = parser.parse_args(argv)
    if not arguments.smoke and not torch.cuda.is_available():
        parser.error("torch sees no CUDA GPU here; --smoke runs a tiny shape on the CPU")
    size, device = (SMOKE, torch.device("cpu")) if arguments.smoke else (FULL, torch.device("cuda"))

    began = time.perf_counter()
    workload = load(size.model, size.dtype, device)
    with tempfile.TemporaryDirectory() as folder:
        text = family_of_model(workload.model).text_model
        methods = make_methods(["fixattn", "fixattn,gamma=1"], text, Path(folder))
        stated = record.about(workload, device)
        print(record.headline(stated), flush=True)
        done: dict[str, dict[str, Any]] = {}
        for name, run in steps(workload, methods, size, arguments.modes, stated["bandwidth"]["limit"]):
            late = time.perf_counter() - began > 60 * arguments.minutes
            done[name] = step = {"error": f"not begun in {arguments.minutes:g} minutes"} if late else attempt(run)
            if "rows" in step:
                print("\n".join(["", name, record.table(step["rows"]), *record.remarks(step["rows"])]), flush=True)
            else:
                print(
                    f"\n{name}: {step['error'] if 'error' in step else format(step['seconds'], '.1f') + ' s'}",
                    flush=True,
                )
            lines = targets(done, size)
            written = {**stated, "rounds": size.rounds, "new_tokens": size.new_tokens, "steps": done, "targets": lines}
            arguments.output.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    print(f"\n{tabulate(lines, ['where', 'what', 'aim', 'reached'])}")
    return int(any("error" in step for step in done.values()))


if __name__ == "__main__":
    sys.exit(main())
