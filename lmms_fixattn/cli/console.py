"""What commands say beside their figures, and how they read what stands behind an option."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lmms_fixattn.errors import UserError, did_you_mean


class Parser(argparse.ArgumentParser):
    """A parser that says which choice may have been meant."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, and exit with status 2."""
        # From Python 3.14 on argparse can do this itself (suggest_on_error).
        if found := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)$", message):
            message += did_you_mean(found[1], (choice.strip("'") for choice in found[2].split(", ")))
        super().error(message)


def add_command(commands: Any, name: str, run: Callable[[argparse.Namespace], None], summary: str) -> Any:
    """Add a command to the parser and return its own parser."""
    command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    command.set_defaults(run=run)
    return command


def add_format(command: Any, forms: Sequence[str] = ("table", "json")) -> None:
    """Let a command print what it found in several forms, by default in the first."""
    command.add_argument("--format", choices=forms, default=forms[0], help=f"of the output (default: {forms[0]})")


def add_questions(command: Any) -> None:
    """Let a command take the questions and labels of yes/no answers from files of their own."""
    command.add_argument(
        "--questions",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help='question files {"question_id", "image", "text", "label"} of POPE, VCD or LLaVA that the answers are '
        "joined to; several are several splits",
    )


def add_draws(command: Any) -> None:
    """Let a command choose how the bootstrap draws."""
    command.add_argument("--draws", type=positive, default=5000, metavar="N", help="of the bootstrap (default: 5000)")
    command.add_argument("--seed", type=natural, default=0, help="of the draws (default: 0)")


def one_file(path: Path, command: str) -> Path:
    """Return the path of a file; UserError for a folder, which says what reads those."""
    if path.is_dir():
        raise UserError(
            f"{path} is a folder, and {command} scores one file: name it, of lmms-eval a *_samples_TASK.jsonl; folders "
            "are read by lmms-fixattn compare"
        )
    return path


def show(arguments: argparse.Namespace, figures: Mapping[str, Any], meanings: Mapping[str, str]) -> None:
    """Print figures, as JSON or each with its meaning."""
    if arguments.format == "json":
        print(json.dumps(figures, indent=2))
        return
    width = max(map(len, figures))
    for name, value in figures.items():
        written = f"{value:10.2f}" if isinstance(value, float) else f"{value:>10}"
        print(f"{name:{width}}  {written}  {meanings.get(name, '')}".rstrip())


def progress(items: Sequence[Any], unit: str, title: str | None = None) -> Any:
    """Return the items, behind a progress bar with the time left, on a terminal once they take over two seconds."""
    from tqdm import tqdm

    return tqdm(items, title, unit=f" {unit}", delay=2, leave=False, disable=None)


def remark(text: str) -> None:
    """Say something to the user that is no figure."""
    print(f"lmms-fixattn: {text}", file=sys.stderr)


def positive(text: str) -> int:
    """Read a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, not {text!r}")
    return int(text)


def natural(text: str) -> int:
    """Read a whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, not {text!r}")
    return int(text)
