"""`lmms-fixattn export`: write a run for others' scorers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lmms_fixattn.cli.console import add_command
from lmms_fixattn.cli.truth import add_truth, make_analyser, read_truth_of


def add(commands: Any) -> None:
    """Describe the command."""
    command = add_command(commands, "export", _export, "write a run's answers for others' scorers, with a method card")
    command.add_argument("a_run", metavar="RUN", help="lmms-eval output folder, or file of captions or answers")
    command.add_argument(
        "--to",
        required=True,
        choices=("captions", "pope"),
        help="captions: JSON lines for CHAIR scorers. pope: JSON lines of answers, a file a split",
    )
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the files are written")
    add_truth(command)


def _export(arguments: argparse.Namespace) -> None:
    from lmms_fixattn.report.export import export
    from lmms_fixattn.report.runs import read_run

    run = read_run(arguments.a_run)
    truth = read_truth_of(arguments, [run], make_analyser("lexicon"))
    for path in export(run, arguments.to, arguments.output, truth):
        print(path)
