"""`lmms-fixattn evidence`: set the released captions of several papers against their own baselines."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lmms_fixattn.cli.console import add_command, add_draws, progress
from lmms_fixattn.cli.truth import add_analyser, add_truth, make_analyser, read_truth_of


def add(commands: Any) -> None:
    """Describe the command."""
    command = add_command(
        commands,
        "evidence",
        _evidence,
        "set files of captions against the baselines of their groups, as an index names them: one table, one picture",
    )
    command.add_argument(
        "index",
        type=Path,
        metavar="INDEX.json",
        help='a list of {"group", "name", "file", "method"} objects, of method "baseline" for one file of each group',
    )
    command.add_argument(
        "--files", type=Path, metavar="DIR", help="the folder that the files lie in (default: the index's own)"
    )
    add_truth(command)
    add_analyser(command)
    add_draws(command)
    command.add_argument(
        "--output", type=Path, metavar="DIR", help="write evidence.md, .json, .png and .svg into this folder"
    )
    command.add_argument(
        "--commands",
        action="store_true",
        help="only print the shell commands that fetch the files, if the index can say",
    )


def _evidence(arguments: argparse.Namespace) -> None:
    from lmms_fixattn.report.evidence import fetch_commands, gather, read_files, read_index

    entries = read_index(arguments.index)
    folder = arguments.index.parent if arguments.files is None else arguments.files
    if arguments.commands:
        print("\n".join(fetch_commands(entries, folder)))
        return
    from lmms_fixattn.report.evidence_tables import text, write

    runs = read_files(entries, folder)
    analyser = make_analyser(arguments.analyser)
    truth = read_truth_of(arguments, runs, analyser)
    evidence = gather(entries, runs, truth, analyser, arguments.draws, arguments.seed, progress)
    print(text(evidence), end="")
    if arguments.output is not None:
        written = write(evidence, arguments.output)
        print(f"\nwritten: {', '.join(str(path) for path in written)}")
