"""The yes/no questions of a comparison with every run's answer, for the page's browser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lmms_fixattn.report.compare import Comparison
from lmms_fixattn.scoring.pope import parse_answer


@dataclass(frozen=True)
class Asked:
    """What the browser of answers shows.

    Attributes:
        runs, splits: by their names; count: of questions.
        data: for the script: {"runs", "splits", "texts": [every text once], "asked": [[split, image id or null,
            question, label (1 for yes), [an answer a run, or null]]]}, with split, question and answer as places in
            splits and texts; an answer is [text, what it is read as: 1 for yes, 0 for no, null for neither].
    """

    runs: tuple[str, ...]
    splits: tuple[str, ...]
    count: int
    data: dict[str, Any]


def asked(comparison: Comparison) -> Asked | None:
    """Return the questions of a comparison for its browser, read by the comparison's parser; None without answers."""
    if not comparison.answers:
        return None
    parser = comparison.settings["parser"]
    having = {name for answers in comparison.answers.values() for name in answers}
    runs = tuple(row.name for row in comparison.rows if row.name in having)
    splits = tuple(comparison.answers)
    texts: dict[str, int] = {}
    lines = []
    for number, answers in enumerate(comparison.answers.values()):
        for entries in zip(*answers.values(), strict=True):
            of_run = dict(zip(answers, entries, strict=True))
            told: list[list[int | None] | None] = []
            for run in runs:
                entry = of_run.get(run)
                if entry is None:
                    told.append(None)
                    continue
                read = parse_answer(entry.answer, parser, entry.label)
                told.append([texts.setdefault(entry.answer, len(texts)), None if read is None else int(read == "yes")])
            first = entries[0]
            question = texts.setdefault(first.question, len(texts))
            lines.append([number, first.image_id, question, int(first.label == "yes"), told])
    named = [split.replace("_", " ") for split in splits]
    return Asked(runs, splits, len(lines), {"runs": runs, "splits": named, "texts": list(texts), "asked": lines})
