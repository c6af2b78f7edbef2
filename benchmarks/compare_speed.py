"""How fast `lmms-fixattn compare` is: seconds for files of captions, start-up included, beside the naive way.

    python benchmarks/compare_speed.py [--files 10] [--captions 500] [--draws 5000]

Generates files of captions of about 100 words on the same images and runs the command on them as a user does. The naive
way scores every drawn corpus anew and analyses every prefix of the baseline's captions; it is timed on a few draws and
captions, and its time is that of all of them by proportion. One process.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from chair_speed import long_caption

from lmms_fixattn.scoring import bootstrap, chair
from lmms_fixattn.scoring.objects.coco_objects import CATEGORIES
from lmms_fixattn.scoring.truncation import cut, prefix_objects


def main() -> None:
    """Run both and print their times."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--files", type=int, default=10)
    parser.add_argument("--captions", type=int, default=500, help="a file")
    parser.add_argument("--draws", type=int, default=bootstrap.DRAWS)
    arguments = parser.parse_args()
    draw = random.Random(0)
    images = range(1, arguments.captions + 1)
    truth = {image: draw.sample(CATEGORIES, draw.randint(1, 8)) for image in images}
    written = [{image: long_caption(draw, draw.randint(60, 140)) for image in images} for _ in range(arguments.files)]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
        paths = [root / f"run{number}.jsonl" for number in range(arguments.files)]
        for path, captions in zip(paths, written, strict=True):
            rows = [{"image_id": image, "caption": text} for image, text in captions.items()]
            path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        command = [sys.executable, "-m", "lmms_fixattn", "compare", *map(str, paths), "--format", "json"]
        start = time.perf_counter()
        subprocess.run(
            [*command, "--ground-truth", str(root / "truth.json"), "--draws", str(arguments.draws)],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        ours = time.perf_counter() - start
    size = f"{arguments.files} files of {arguments.captions} captions, {arguments.draws} draws"
    print(f"compare: {ours:.1f} s for {size}, start-up included")

    analyser = chair.make_analyser()
    words = [frozenset(words) for words in truth.values()]
    rows = [chair.score_caption(0, text, true, analyser) for text, true in zip(written[0].values(), words, strict=True)]
    few = 20
    start = time.perf_counter()
    for counts in bootstrap.draw_weights(len(rows), few, 0):
        chair.corpus_figures([row for row, count in zip(rows, counts, strict=True) for _ in range(int(count))])
    draws = (time.perf_counter() - start) / few * arguments.draws * arguments.files
    sample = list(written[0].values())[:50]
    start = time.perf_counter()
    naive = [[analyser.mentions(cut(text, k)).objects for k in range(len(text.split()) + 1)] for text in sample]
    prefixes = (time.perf_counter() - start) / len(sample) * arguments.captions
    start = time.perf_counter()
    found = [prefix_objects(text, analyser) for text in sample]
    fast = (time.perf_counter() - start) / len(sample) * arguments.captions
    if found != naive:
        raise SystemExit("prefix_objects differs from analysing every prefix")
    print(
        f"naive, by proportion: {draws:.0f} s to score every drawn corpus (the truncation curves of the draws left out)"
    )
    print(f"prefixes of the baseline's captions: {fast:.2f} s, analysing each {prefixes:.2f} s")


if __name__ == "__main__":
    main()
