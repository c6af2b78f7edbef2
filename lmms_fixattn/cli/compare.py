"""`lmms-fixattn compare`: set runs against a baseline."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmms_fixattn.cli.console import add_command, add_draws, add_questions, progress, remark
from lmms_fixattn.cli.truth import add_analyser, add_truth, make_analyser, read_truth_of
from lmms_fixattn.errors import UserError
from lmms_fixattn.scoring import pope

if TYPE_CHECKING:
    from lmms_fixattn.report.compare import Comparison


def add(commands: Any) -> None:
    """Describe the command."""
    command = add_command(
        commands,
        "compare",
        _compare,
        "set runs against a baseline: intervals, paired differences, and the baseline cut short as the control",
    )
    command.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="an output folder of lmms-eval (with --log_samples), that of a sweep (all of its cells), a file of "
        "captions as for `chair`, or of answers as for `pope`; NAME=RUN names it",
    )
    command.add_argument(
        "--baseline",
        metavar="RUN",
        help="the run to compare with, by its name or as given (default: the one of method vanilla, or the first)",
    )
    add_questions(command)
    add_truth(command)
    add_analyser(command)
    command.add_argument("--parser", choices=pope.PARSERS, default="official", help="as for `pope`")
    add_draws(command)
    command.add_argument(
        "--allow-differences",
        action="store_true",
        help="compare runs of different prompts, versions or caps, and of different images on those that they share",
    )
    add_full(command)
    command.add_argument(
        "--format",
        choices=("table", "markdown", "latex", "csv", "json", "html"),
        default="table",
        help="of what is printed (default: table); html needs --output",
    )
    command.add_argument("--output", type=Path, metavar="DIR", help="write every format and the plots into this folder")


def _compare(arguments: argparse.Namespace) -> None:
    from lmms_fixattn.report import forms, recorded
    from lmms_fixattn.report.compare import compare
    from lmms_fixattn.report.runs import read_runs

    if arguments.format == "html" and arguments.output is None:
        raise UserError("--format html writes a page: name a folder for it with --output DIR")
    read = read_runs(arguments.runs, arguments.questions)
    runs = [run for of_one in read for run in of_one]
    analyser = make_analyser(arguments.analyser)
    truth = read_truth_of(arguments, runs, analyser)
    # A baseline may be given as it stands among the runs.
    given = {text: of_one[0].name for text, of_one in zip(arguments.runs, read, strict=True) if len(of_one) == 1}
    comparison = compare(
        runs,
        given.get(arguments.baseline, arguments.baseline),
        truth,
        analyser,
        arguments.draws,
        arguments.seed,
        arguments.allow_differences,
        arguments.parser,
        progress,
    )
    for warning in recorded.misnamed(runs):
        remark(warning)
    if arguments.output is not None:
        write_comparison(comparison, arguments.output)
    if arguments.format == "html":
        print(arguments.output / "page.html")
    else:
        form = "full" if arguments.full and arguments.format == "table" else arguments.format
        print(forms.render(comparison, form), end="", flush=True)
        if arguments.output is not None:
            say_what_to_open(arguments.output, arguments.full)


def add_full(command: Any) -> None:
    """Let a command that prints a comparison print all of its tables."""
    command.add_argument(
        "--full", action="store_true", help="print every figure, of every task; else the verdicts and a short table"
    )


def say_what_to_open(directory: Path, full: bool) -> None:
    """Name the file to open, and how to print the rest."""
    remark(f"open {directory / 'page.html'}" + ("" if full else "; --full prints every table here"))


def write_comparison(comparison: Comparison, directory: Path) -> None:
    """Write a comparison in every form, with its page and its plots."""
    from lmms_fixattn.report import forms, plots
    from lmms_fixattn.report.html import write_page

    forms.write(comparison, directory)
    drawn = plots.figures(comparison)
    write_page(comparison, directory / "page.html", drawn)
    plots.write_plots(drawn, directory)
