"""Kill runs without warning at random moments, let them go on, and compare the end with that of a run never killed.

    python benchmarks/kills.py --kills 48 --seed 0

Half of the kills hit `lmms-fixattn sweep` (two cells and their comparison), half `lmms-eval --use_cache`. A run that
was killed is started again in the same folder, and may be killed again, until one gets through; then a new folder is
begun. Half of the moments are right before an operation on the run's files (opened to be written, renamed, made,
removed), which the run counts itself; the others are after a change among its files, seen from outside, and up to 0.4
seconds more. Both numbers are drawn. So kills fall while the model loads, into and between batches, into the writing of
results and renames. Runs are forks of one process that has imported everything, since
importing changes nothing on disk.

Compared are, to the byte, all samples; the results without what is measured or dated; every answer that was kept, each
of which must be there once; of the sweep, its comparison.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

SWEEP = """
model: {pretrained: demo, device: cpu, batch_size: 4}
tasks: [chair_demo]
limit: 6
cells:
  - {name: original, method: vanilla}
  - {name: fixattn, method: fixattn}
"""
LMMS_EVAL = {
    "--model": "llava_fixattn",
    "--model_args": "pretrained=demo,device=cpu,method=fixattn",
    "--tasks": "chair_demo",
    "--batch_size": "4",
    "--limit": "12",
    "--use_cache": "cache",
    "--output_path": "out",
    "--verbosity": "DEBUG",
}
MEASURED = (
    "throughput",
    "efficiency",
    "date",
    "start_time",
    "end_time",
    "total_evaluation_time_seconds",
    "config",
)
LONGEST = 600  # seconds that a run may take
Facts = dict[str, Any]


def run_sweep() -> int:
    """Run the sweep in the current folder."""
    from lmms_fixattn.cli import main

    return main(["sweep", "config.yaml", "--output", "out"])


def run_lmms_eval() -> int:
    """Run lmms-eval in the current folder."""
    from lmms_eval.cli.dispatch import main

    flags = [word for flag in LMMS_EVAL.items() for word in flag]
    sys.argv = ["lmms-eval", "eval", *flags, "--log_samples"]
    main()
    return 0


def prepare_sweep(folder: Path) -> None:
    (folder / "config.yaml").write_text(SWEEP)


def prepare_lmms_eval(folder: Path) -> None:
    """Nothing is needed."""


def facts_of_a_sweep(folder: Path) -> Facts:
    """What a finished sweep came to."""
    out = folder / "out"
    facts: Facts = {"comparison": timeless(json.loads((out / "comparison.json").read_text()))}
    facts["unfinished"] = (out / "unfinished").exists()
    for cell in sorted((out / "cells").iterdir()):
        facts |= {f"{cell.name} {name}": fact for name, fact in result(cell).items()}
        facts[f"{cell.name} answers"] = answers(cell / "answers.jsonl")
    return facts


def timeless(comparison: Any) -> Any:
    """A comparison without what was measured by the clock."""
    if isinstance(comparison, list):
        return [timeless(part) for part in comparison]
    if isinstance(comparison, dict):
        kept = comparison.keys() - {"seconds", "tokens_per_second"}
        return {name: timeless(part) for name, part in comparison.items() if name in kept}
    return comparison


def facts_of_lmms_eval(folder: Path) -> Facts:
    """What a finished run of lmms-eval came to; runs that were killed while they saved leave results of their own."""
    (journal,) = (folder / "cache" / "llava_fixattn").glob("*.jsonl")
    facts = result(folder / "out")
    # Of this run alone, which may have found all answers in the cache:
    del facts["tokens"], facts["result"]["lmms_fixattn"]["largest_batch"]
    return {**facts, "answers": answers(journal)}


def result(folder: Path) -> Facts:
    """The newest result and samples in a folder of lmms-eval's."""
    newest = max(folder.rglob("*_results.json"), key=lambda path: path.name)
    stamp = newest.name.removesuffix("_results.json")
    whole = json.loads(re.sub(r" at 0x[0-9a-f]+", "", newest.read_text()))  # of functions, in the tasks' settings
    facts: Facts = {"result": {key: value for key, value in whole.items() if key not in MEASURED}}
    facts["tokens"] = whole["throughput"]["total_gen_tokens"] if "throughput" in whole else None
    for path in sorted(newest.parent.glob(f"{stamp}_samples_*.jsonl")):
        facts[path.name.removeprefix(stamp)] = path.read_text()
    return facts


def answers(journal: Path) -> Facts:
    """The answers in a journal; one that is there twice is an error."""
    found: Facts = {}
    for line in journal.read_text().splitlines():
        for key, answer in json.loads(line)["answers"].items():
            if key in found:
                raise AssertionError(f"{journal}: {key} was answered twice")
            found[key] = answer
    return found


def state(folder: Path) -> frozenset[tuple[str, int]]:
    """Every file with its size."""

    def walk(where: str) -> Iterator[tuple[str, int]]:
        try:
            with os.scandir(where) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        yield entry.path, -1
                        yield from walk(entry.path)
                    else:
                        yield entry.path, entry.stat(follow_symlinks=False).st_size
        except OSError:  # gone meanwhile
            return

    return frozenset((path, size) for path, size in walk(str(folder)) if not path.endswith(("log.txt", "screen.txt")))


def phase(folder: Path, before: frozenset[tuple[str, int]]) -> str:
    """Name what a run was at, by what it had written.

    Args:
        before: the files that runs before it left.
    """
    left = {path for path, _ in before}
    written = [str(path.relative_to(folder)) for path in folder.rglob("*") if str(path) not in left]
    paths = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != "screen.txt"]
    if any(path.startswith("cache") for path in paths):
        if any(path.endswith("results.json") for path in written):
            return "lmms-eval: results being written, or after"
        lines = sum(path.read_bytes().count(b"\n") for path in folder.rglob("cache/llava_fixattn/*.jsonl"))
        return f"lmms-eval: {lines} batches on disk"
    cells = len(list(folder.glob("out/cells/*")))
    if any(re.fullmatch(r"out/unfinished/.*(results\.json|samples_.*)", path) for path in paths):
        return f"sweep: writing the result of cell {cells + 1}"
    if any(path.startswith("out/unfinished/") for path in paths):
        lines = sum(path.read_bytes().count(b"\n") for path in folder.glob("out/unfinished/*/answers.jsonl"))
        return f"sweep: cell {cells + 1}, {lines} batches on disk"
    return f"sweep: {cells} cells finished, " + ("comparing" if cells == 2 else "loading or between cells")


class Operations:
    """Count what this process does to files in a folder; die right before an operation of a given number.

    Args:
        last: that number; 0 for none.
    """

    KINDS = ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.truncate", "shutil.rmtree", "sqlite3.connect")
    WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC

    def __init__(self, folder: Path, last: int) -> None:
        self.count = 0
        self._folder = str(folder)
        self._last = last
        sys.addaudithook(self._note)

    def _note(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in self.KINDS and not (event == "open" and args[2] & self.WRITING):
            return
        path = os.fsdecode(args[0]) if isinstance(args[0], str | bytes | os.PathLike) else ""
        if not path or path.endswith(("log.txt", "screen.txt")):
            return
        if not os.path.isabs(path) or path.startswith(self._folder):
            self.count += 1
            if self.count == self._last:
                os.kill(os.getpid(), signal.SIGKILL)


def start(run: Callable[[], int], folder: Path, last: int = 0) -> int:
    """Start a run as a fork of this process; return its id.

    Args:
        last: the number of the operation on files that it is not to live to see; 0 for none.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    status = 1
    operations = Operations(folder, last)
    try:
        os.chdir(folder)
        screen = os.open("screen.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(screen, 1)
        os.dup2(screen, 2)
        status = run()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        with open(f"{folder}.operations", "w") as file:
            file.write(str(operations.count))
        os._exit(status)


def wait(process: int, folder: Path, changes: int, later: float) -> tuple[int, int]:
    """Wait for a run; kill it after so many changes among its files and some seconds more.

    Returns:
        Its status, below 0 where it was killed, and how many changes were seen.
    """
    seen, last, began = 0, state(folder), time.monotonic()
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), seen
        if (now := state(folder)) != last:
            seen, last = seen + 1, now
        if seen >= changes or time.monotonic() - began > LONGEST:
            time.sleep(later)
            os.kill(process, signal.SIGKILL)
            _, status = os.waitpid(process, 0)
            return os.waitstatus_to_exitcode(status), seen
        time.sleep(0.0005)


def series(
    name: str,
    kills: int,
    draw: random.Random,
    folder: Path,
    run: Callable[[], int],
    prepare: Callable[[Path], None],
    facts: Callable[[Path], Facts],
) -> Counter[str]:
    """Kill so many runs, and compare every one that got through with one that was never killed.

    Returns:
        Kills by what they hit.

    Raises:
        AssertionError: something was lost, doubled or different, or a run failed.
    """

    def begin(number: int) -> Path:
        where = folder / f"{name}-{number}"
        where.mkdir()
        prepare(where)
        return where

    where, never = begin(0), 1 << 30
    status, changes = wait(start(run, where), where, never, 0)
    if status:
        raise AssertionError(f"{name}: {(where / 'screen.txt').read_text()}")
    expected = facts(where)
    operations = int(Path(f"{where}.operations").read_text())
    print(f"{name}: a whole run is {operations} operations on files, seen as {changes} changes", flush=True)
    hits: Counter[str] = Counter()
    through, where = 0, begin(1)
    while True:
        enough = sum(hits.values()) >= kills
        last = 0 if enough or draw.random() < 0.5 else draw.randint(1, operations)
        moment = never if enough or last else draw.randint(0, changes)
        later = draw.choice((0.0, draw.uniform(0, 0.01), draw.uniform(0, 0.4)))
        before = state(where)
        status, _ = wait(start(run, where, last), where, moment, later)
        if status == -signal.SIGKILL:
            at = phase(where, before)
            hits[at] += 1
            by = f"before operation {last}" if last else f"{later:.3f} s after change {moment}"
            print(f"{name}: kill {sum(hits.values())}, {by}: {at}", flush=True)
            continue
        if status:
            raise AssertionError(f"{name}: exit status {status}: {(where / 'screen.txt').read_text()}")
        compare(expected, facts(where), where)
        through += 1
        shutil.rmtree(where)
        if enough:
            break
        where = begin(through + 1)
    print(
        f"{name}: {sum(hits.values())} kills, {through} runs got through, every one equal to the whole run", flush=True
    )
    return hits


def compare(expected: Facts, found: Facts, where: Path) -> None:
    """See to it that two runs came to the same.

    Raises:
        AssertionError: they did not.
    """
    for name in expected.keys() | found.keys():
        if expected.get(name) != found.get(name):
            texts = [json.dumps(facts.get(name), indent=1, sort_keys=True).splitlines() for facts in (expected, found)]
            lines = "\n".join(difflib.unified_diff(*texts, "never killed", "killed", n=1, lineterm=""))
            raise AssertionError(f"{where}: {name} differs:\n{lines}")


RUNS = {
    "sweep": (run_sweep, prepare_sweep, facts_of_a_sweep),
    "lmms-eval": (run_lmms_eval, prepare_lmms_eval, facts_of_lmms_eval),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=48, help="in all (default: 48)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--of", choices=RUNS, nargs="+", default=list(RUNS))
    given = parser.parse_args()

    # What the forks share; none of it is on disk.
    import torch

    for module in ("lmms_fixattn.report.forms", "lmms_fixattn.harness.sweep"):
        importlib.import_module(module)
    torch.set_num_threads(1)
    draw = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(given.of):
            share = given.kills // len(given.of) + (number < given.kills % len(given.of))
            hits = series(name, share, draw, Path(folder), *RUNS[name])
            for at, count in sorted(hits.items()):
                print(f"  {count:3}  {at}")


if __name__ == "__main__":
    main()
