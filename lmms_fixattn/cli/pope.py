"""`lmms-fixattn pope`: score anybody's yes/no answers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lmms_fixattn.cli.console import add_command, add_format, add_questions, one_file, show
from lmms_fixattn.scoring import pope
from lmms_fixattn.scoring.figures import ANSWER_FIGURES
from lmms_fixattn.scoring.files.questions import read_answers_to
from lmms_fixattn.scoring.files.reading import read_answers

_MEANINGS = {
    **{name: figure.meaning for name, figure in ANSWER_FIGURES.items()},
    "tp": "yes, and present",
    "fp": "yes, but absent",
    "tn": "no, and absent",
    "fn": "no, but present",
    "unparsed": "answers with neither a yes nor a no word",
    "n": "answers",
} | {f"otherwise_{parser}": f"answers that the parser {parser} reads otherwise" for parser in pope.PARSERS}


def add(commands: Any) -> None:
    """Describe the command."""
    command = add_command(commands, "pope", _pope, "score a file of yes/no answers with POPE's figures")
    add_format(command)
    command.add_argument(
        "answers",
        type=Path,
        metavar="ANSWERS",
        help='JSON lines, a JSON list or a table of {"question", "label", "answer"}, also with .gz; with --questions '
        'LLaVA\'s {"question_id", "prompt", "text"}',
    )
    add_questions(command)
    command.add_argument(
        "--parser",
        choices=pope.PARSERS,
        default="official",
        help="how an answer's text becomes yes or no: POPE's own script (default), PAI's, VCD's, or exact match",
    )


def _pope(arguments: argparse.Namespace) -> None:
    one_file(arguments.answers, "pope")
    if arguments.questions:
        rows = read_answers_to(arguments.answers, arguments.questions)
    else:
        rows = read_answers(arguments.answers)
    figures = pope.figures(rows, arguments.parser)
    splits = list(dict.fromkeys(row.get("split", "") for row in rows))
    of_splits: dict[str, Any] = {}
    for split in splits if len(splits) > 1 else ():
        own = pope.figures([row for row in rows if row.get("split", "") == split], arguments.parser)
        of_splits |= {f"{key}_{split or 'unnamed'}": own[key] for key in ("accuracy", "f1", "yes_ratio", "n")}
    otherwise = {f"otherwise_{name}": count for name, count in pope.read_otherwise(rows, arguments.parser).items()}
    show(arguments, {**figures, **of_splits, **otherwise, "parser": arguments.parser}, _MEANINGS)
