"""`lmms-fixattn bench`: what methods cost."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from lmms_fixattn.cli.console import add_command, positive, progress, remark


def add(commands: Any) -> None:
    """Describe the command."""
    command = add_command(
        commands, "bench", _bench, "measure what methods cost beside the unmodified model: time, memory, bandwidth"
    )
    command.add_argument(
        "--model",
        default="hidden1024",
        metavar="NAME",
        help="demo (the packaged model), a shape with random weights (tiny, hidden1024, llava-1.5-7b-shape, "
        "llava-1.5-13b-shape; llava-next-, qwen2.5-vl- and qwen3-vl-small; llava-next-7b-shape, qwen2.5-vl-7b-shape, "
        "qwen3-vl-8b-shape), or a folder with a config.json (default: hidden1024)",
    )
    command.add_argument(
        "--method",
        nargs="+",
        default=["pai", "pai,gamma=1", "fixattn", "fixattn,gamma=1"],
        metavar="NAME[,KEY=VALUE...]",
        help='one or several, as pai "spin,kept=0.8"; all: every method, with its logits refine and without '
        '(default: pai "pai,gamma=1" fixattn "fixattn,gamma=1")',
    )
    command.add_argument("--batch", nargs="+", type=positive, default=[1, 8], metavar="N", help="default: 1 8")
    command.add_argument("--tokens", type=positive, default=32, metavar="N", help="decode steps (default: 32)")
    command.add_argument("--rounds", type=positive, default=5, metavar="N", help="behind one to warm up (default: 5)")
    command.add_argument("--dtype", default="auto", help="default: float32 on a CPU, else float16")
    command.add_argument("--device", help="default: a CUDA GPU where there is one, else the CPU")
    command.add_argument("--attention", metavar="NAME", help="transformers' attention backend (default: its choice)")
    command.add_argument("--static", action="store_true", help="decode on a cache of fixed size")
    command.add_argument("--compile", action="store_true", help="compile the decode step; implies --static")
    command.add_argument(
        "--without-released", action="store_true", help="do not measure the released-style loops, which take longest"
    )
    command.add_argument("--json", type=Path, metavar="FILE", help="write the figures, and each round's times, here")


def _bench(arguments: argparse.Namespace) -> None:
    from lmms_fixattn.bench.command import bench
    from lmms_fixattn.bench.measure import Timing

    static, released = arguments.static or arguments.compile, not arguments.without_released
    plan = Timing(arguments.tokens, arguments.rounds, static, compiled=arguments.compile, released=released)
    remark(f"making {arguments.model} and measuring the memory's bandwidth")
    for text, doubts in bench(
        arguments.model,
        arguments.method,
        arguments.batch,
        plan,
        dtype=arguments.dtype,
        device=arguments.device,
        attention=arguments.attention,
        output=arguments.json,
        progress=partial(progress, unit="measurements"),
    ):
        print(text, flush=True)
        for doubt in doubts:
            remark(doubt)
