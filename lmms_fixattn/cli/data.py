"""`lmms-fixattn data`: what the tasks need, what is there, and fetching it before a run."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from lmms_fixattn.cli.console import add_command, add_format
from lmms_fixattn.errors import UserError, did_you_mean
from lmms_fixattn.models import DEFAULT_CHECKPOINT


def add(commands: Any) -> None:
    """Describe the command."""
    command = add_command(
        commands,
        "data",
        _data,
        "list what tasks and model need and what of it is there, or fetch it for a machine without a network",
    )
    command.add_argument(
        "tasks",
        nargs="*",
        metavar="TASK",
        help="chair_coco, pope, pope_coco or pope_coco_chat (default: the first three)",
    )
    command.add_argument(
        "--pretrained",
        default=DEFAULT_CHECKPOINT,
        metavar="MODEL",
        help=f"a hub id, a local directory or demo (default: {DEFAULT_CHECKPOINT})",
    )
    command.add_argument("--revision", default="main", help="branch, tag or commit of the model (default: main)")
    command.add_argument("--fetch", action="store_true", help="fetch what is lacking; without it, no network is asked")
    add_format(command)


def _data(arguments: argparse.Namespace) -> None:
    if not arguments.fetch:
        os.environ["HF_HUB_OFFLINE"] = "1"  # before the hub's libraries are imported, which read it once
    from datasets.utils.logging import set_verbosity_error

    from lmms_fixattn.harness.tasks import needs

    set_verbosity_error()  # that it reads its cache is what was asked for
    tasks = arguments.tasks or ["chair_coco", "pope", "pope_coco"]
    for task in tasks:
        if task not in needs.TASKS:
            hint = did_you_mean(task, needs.TASKS)
            raise UserError(f"task {task!r} is none of {', '.join(needs.TASKS)}{hint}")
    found = [needs.data(task) for task in tasks]
    if not (arguments.pretrained == "demo" or os.path.isdir(os.path.expanduser(arguments.pretrained))):
        found.append(needs.checkpoint(arguments.pretrained, arguments.revision))
    if arguments.format == "json":
        print(json.dumps([vars(need) for need in found], indent=2))
    else:
        for need in found:
            print(f"{need.of}: {_written(need, arguments.fetch)}")
    if lacking := [need.of for need in found if need.lacking]:
        raise UserError(
            f"{', '.join(lacking)}: not all is there"
            + ("" if arguments.fetch else "; lmms-fixattn data --fetch fetches what is lacking")
        )


def _written(need: Any, fetched: bool) -> str:
    if need.lacking:
        # What to do about it is said once, below.
        return f"LACKING {need.lacking if fetched else need.lacking.partition(';')[0]}"
    return f"{need.what}; {need.size / 1e6:,.0f} MB in {need.where}"
