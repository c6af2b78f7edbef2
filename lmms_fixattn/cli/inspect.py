"""`lmms-fixattn inspect`: draw what a method does inside."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lmms_fixattn.cli.console import add_command


def add(commands: Any) -> None:
    """Describe the command."""
    command = add_command(
        commands,
        "inspect",
        _inspect,
        "draw what a method does inside, on one picture and question: OUTPUT/KIND.png, .svg and .json",
    )
    command.add_argument(
        "kind",
        choices=("attention", "tokens", "heads", "gap", "answers"),
        metavar="KIND",
        help="attention: of the answer's tokens, by layer and head, before and after. tokens: the selected ones. "
        "heads: each head's visual sensitivity. gap: image and text embeddings in one plane. "
        "answers: a conversation, or captions side by side, with unsupported objects in colour",
    )
    command.add_argument("--image", type=Path, help="the picture (default, for pretrained=demo: a packaged scene)")
    command.add_argument(
        "--question",
        action="append",
        default=[],
        help="what to ask (default: for a detailed description); answers takes several, asked in one conversation",
    )
    command.add_argument(
        "--method",
        nargs="+",
        default=[],
        metavar="NAME[,KEY=VALUE...]",
        help="one or several, as pai fixattn,alpha=0.5 (default: fixattn; attention and answers show vanilla first)",
    )
    command.add_argument("--pretrained", default="demo", help="demo (default), a local directory, or a hub id")
    command.add_argument("--conversation", default="default", help="form of the prompt: default, llava_v1 or pai")
    command.add_argument(
        "--truth",
        metavar="OBJECTS",
        help='for answers: what the picture shows, "cup,bowl" (default: COCO\'s annotations)',
    )
    command.add_argument("--max-new-tokens", type=int, default=512, metavar="N", help="of an answer (default: 512)")
    command.add_argument("--output", type=Path, default=Path("pictures"), metavar="DIR", help="default: pictures")


def _inspect(arguments: argparse.Namespace) -> None:
    from lmms_fixattn.inspection.command import inspect

    paths = inspect(
        arguments.kind,
        image=arguments.image,
        questions=arguments.question,
        methods=arguments.method,
        pretrained=arguments.pretrained,
        conversation=arguments.conversation,
        truth=arguments.truth,
        new_tokens=arguments.max_new_tokens,
        output=arguments.output,
    )
    print(*paths, sep="\n")
