"""`lmms-fixattn pope`: score anybody's yes/no answers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lmms_fixattn.cli.console import add_command, add_format, add_questions, show
from lmms_fixattn.scoring import pope
from lmms_fixattn.scoring.files.questions import read_answers_to
from lmms_fixattn.scoring.files.reading import read_answers

_MEANINGS = {
    "accuracy": "% of answers that are right",
    "precision": "% of answers read as yes that are right",
    "recall": "% of present objects that are affirmed",
    "f1": "harmonic mean of precision and recall",
    "yes_ratio": "% of answers read as yes",
    "tp": "yes, and present",
    "fp": "yes, but absent",
    "tn": "no, and absent",
    "fn": "no, but present",
    "unparsed": "answers with neither a yes nor a no word",
    "n": "answers",
    "read_differently": f"answers that the parsers {', '.join(pope.PARSERS)} do not all read alike",
}


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
    differently = pope.read_differently(rows)
    show(
        arguments,
        {**figures, **of_splits, "read_differently": differently, "parser": arguments.parser},
        _MEANINGS,
    )
