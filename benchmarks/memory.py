"""How memory and time grow: repeats of a task in one process, captions in a file, runs in a comparison.

    python benchmarks/memory.py repeats [10] [--limit 30]      # resident memory after each run of chair_demo
    python benchmarks/memory.py captions 10000 20000 40000 60000
    python benchmarks/memory.py runs 25 50 100

`captions` and `runs` time `lmms-fixattn compare` as a user runs it, by CPU seconds and the most resident memory: two
runs of so many captions, or so many runs of 100 captions. Each row also says by what power of the size the growth over
the row before it goes, start-up taken off: 1 is linear, 2 quadratic.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
MIB = 1 << 20


def repeats(times: int, limit: int) -> None:
    """Run chair_demo so many times in this process, loading the model each time, and print its resident memory."""
    import torch
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager
    from loguru import logger

    from lmms_fixattn.plugin import task_folder

    logger.remove()
    torch.set_num_threads(1)
    manager = TaskManager(include_path=task_folder(), include_defaults=False)
    for number in range(times + 1):
        if number:
            simple_evaluate(
                model="llava_fixattn",
                model_args="pretrained=demo,device=cpu,method=fixattn,batch_size=8",
                tasks=["chair_demo"],
                task_manager=manager,
                limit=limit,
                log_samples=True,
            )
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        print(f"after {number:2} runs: {pages * os.sysconf('SC_PAGE_SIZE') / MIB:7.1f} MiB resident", flush=True)


def compared(sizes: Sequence[tuple[int, int]], unit: str) -> None:
    """Compare so many runs of so many captions, and print what it takes.

    Args:
        sizes: (runs, captions of each).
    """
    few = measured(2, 10)
    print(f"start-up, {few[0]:.1f} s and {few[1]:.0f} MiB, is taken off for the powers")
    before: tuple[int, float, float] | None = None
    for runs, captions in sizes:
        seconds, memory = measured(runs, captions)
        size = captions if unit == "captions" else runs
        powers = ""
        if before is not None:
            grown = math.log(size / before[0])
            of_time = math.log((seconds - few[0]) / (before[1] - few[0])) / grown
            of_memory = math.log(max(1.0, memory - few[1]) / max(1.0, before[2] - few[1])) / grown
            powers = f"  grows by the power {of_time:.2f} in time, {of_memory:.2f} in memory"
        print(f"{size:6} {unit}: {seconds:7.1f} s  {memory:6.0f} MiB{powers}", flush=True)
        before = size, seconds, memory


def measured(runs: int, captions: int) -> tuple[float, float]:
    """Return the CPU seconds and the most resident memory, in MiB, of one comparison."""
    from chair_speed import long_caption

    from lmms_fixattn.scoring.objects.coco_objects import CATEGORIES

    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        truth = {image: draw.sample(CATEGORIES, draw.randint(1, 8)) for image in range(1, captions + 1)}
        (root / "truth.json").write_text(json.dumps(truth), encoding="utf-8")

        def lines() -> Iterator[str]:
            for image in truth:
                yield json.dumps({"image_id": image, "caption": long_caption(draw, draw.randint(60, 140))}) + "\n"

        paths = [root / f"run{number}.jsonl" for number in range(runs)]
        for path in paths:
            path.write_text("".join(lines()), encoding="utf-8")
        command = [sys.executable, "-m", "lmms_fixattn", "compare", *map(str, paths), "--format", "json"]
        process = subprocess.Popen(
            [*command, "--ground-truth", str(root / "truth.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"compare ended with status {process.returncode}: {' '.join(command)}")
        return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / MIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("repeats", "captions", "runs"))
    parser.add_argument("sizes", type=int, nargs="*")
    parser.add_argument("--limit", type=int, default=30, help="documents of each half of chair_demo (default: 30)")
    given = parser.parse_args()
    if given.what == "repeats":
        repeats(given.sizes[0] if given.sizes else 10, given.limit)
    elif given.what == "captions":
        compared([(2, size) for size in given.sizes or (10000, 20000, 40000, 60000)], "captions")
    else:
        compared([(size, 100) for size in given.sizes or (25, 50, 100)], "runs")


if __name__ == "__main__":
    main()
