"""`lmms-fixattn calibrate`: measure what a method needs to know of a model."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from lmms_fixattn.cli.console import add_command, positive, progress
from lmms_fixattn.cli.truth import add_analyser, make_analyser
from lmms_fixattn.errors import UserError
from lmms_fixattn.models import DEFAULT_CHECKPOINT


def add(commands: Any) -> None:
    """Describe the command."""
    command = add_command(
        commands, "calibrate", _calibrate, "measure what a method needs to know of a model, on images of yours"
    )
    command.add_argument(
        "method",
        choices=("adaiat",),
        metavar="METHOD",
        help="adaiat: attention to the answer where true and hallucinated objects are named",
    )
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--coco", type=Path, metavar="DIR", help="folder of images and annotations of COCO's format")
    source.add_argument("--demo", action="store_true", help="the packaged model and its familiar scenes")
    command.add_argument(
        "--pretrained", metavar="MODEL", help=f"local directory or hub id (default: {DEFAULT_CHECKPOINT})"
    )
    command.add_argument("--conversation", default="default", help="form of the prompt: default, llava_v1 or pai")
    command.add_argument(
        "--images",
        type=positive,
        metavar="N",
        help="how many are drawn, of the training split where there is one and of no list for scoring (default: 1000; "
        "100 for --demo)",
    )
    command.add_argument("--image-list", metavar="LIST", help="these instead: a file of ids, one a line")
    command.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    command.add_argument("--question", default="Please help me describe the image in detail.", help="what to ask")
    command.add_argument("--max-new-tokens", type=positive, default=512, metavar="N", help="default: 512")
    command.add_argument("--batch-size", type=positive, default=8, metavar="N", help="default: 8")
    add_analyser(command)
    command.add_argument("--output", type=Path, required=True, metavar="FILE.safetensors", help="FILE.json joins it")


def _calibrate(arguments: argparse.Namespace) -> None:
    output: Path = arguments.output
    if output.suffix != ".safetensors":
        raise UserError(f"--output: expected a name that ends in .safetensors, got {output}")
    if output.exists() or output.with_suffix(".json").exists():
        raise UserError(f"{output} or its .json exists; choose another name")
    if arguments.demo and arguments.pretrained:
        raise UserError("--demo is of the packaged model; name data of your own with --coco to use --pretrained")
    from lmms_fixattn.data import image_lists
    from lmms_fixattn.data.coco import DEMO_SCENES, CocoFolder
    from lmms_fixattn.inspection.calibration import calibrate, documents, draw_ids
    from lmms_fixattn.inspection.session import Session

    folder = CocoFolder(DEMO_SCENES if arguments.demo else arguments.coco)
    drawn = arguments.images or (100 if arguments.demo else 1000)
    listed = arguments.image_list
    ids = image_lists.load(listed).ids if listed else draw_ids(folder, drawn, arguments.seed)
    analyser = make_analyser(arguments.analyser)
    asked = documents(folder, ids, analyser)
    pretrained = "demo" if arguments.demo else arguments.pretrained or DEFAULT_CHECKPOINT
    session, bar = Session(pretrained, arguments.conversation), partial(progress, unit="batches")
    tokens, size = arguments.max_new_tokens, arguments.batch_size
    statistics = calibrate(session, asked, arguments.question, analyser, tokens, size, bar)
    digest = statistics.save(output)
    mentions = statistics.about["mentions"]
    print(f"{output}  sha256 {digest}")
    print(f"{len(asked)} captions, {mentions['true']} true and {mentions['hallucinated']} hallucinated mentions")
    print(f"use: --model_args method=adaiat,statistics={output}")
