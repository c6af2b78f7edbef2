"""What the page says of each run at a glance: a card with the word, its clauses, and the same by task."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lmms_fixattn.report.compare import Comparison, Row
from lmms_fixattn.report.verdict import Kind

# A kind's sign, which stands for the colour where there is none, its word, and what it is said of with captions.
_WORDS: dict[Kind, tuple[str, str, str]] = {
    "better": ("✓", "Better", "than saying less"),
    "not told apart": ("≈", "Not told apart", "from saying less"),
    "worse": ("✗", "Worse", "than {}"),
    "too few": ("?", "Too few images", "for a verdict on captions"),
    "withheld": ("?", "No verdict", "on captions: too many name no object"),
}
# Clauses are parted by semicolons; in brackets a semicolon parts nothing.
_BETWEEN = re.compile(r"; (?![^()]*\))")


@dataclass(frozen=True)
class Card:
    """A run's verdict.

    Attributes:
        kind: of the card as a whole: of its captions, where it has some, or else what all of POPE's splits bear.
        badges: (kind, sign, word, what it is said of) each.
        clauses: of the verdict, each a sentence.
        tasks: the same of each caption task by its name, where the runs hold several.
    """

    name: str
    kind: Kind
    badges: tuple[tuple[Kind, str, str, str], ...]
    clauses: tuple[str, ...]
    tasks: tuple[Card, ...] = ()


def cards(comparison: Comparison) -> list[Card]:
    """Return a card for every run but the baseline."""

    def card(row: Row, name: str, tasks: tuple[Card, ...] = ()) -> Card:
        badges = []
        for what, kind in row.kinds.items():
            sign, word, of_captions = _WORDS[kind]
            said_of = of_captions.format(comparison.baseline) if what == "captions" else f"in {what}"
            badges.append((kind, sign, word, said_of))
        clauses = tuple(clause[:1].upper() + clause[1:] for clause in _BETWEEN.split(row.verdict) if clause)
        return Card(name, _whole(row.kinds), tuple(badges), clauses, tasks)

    def of_tasks(name: str) -> tuple[Card, ...]:
        return tuple(card(row, task) for task, rows in comparison.by_task.items() for row in rows if row.name == name)

    return [card(row, row.name, of_tasks(row.name)) for row in comparison.rows if row.name != comparison.baseline]


def _whole(kinds: Mapping[str, Kind]) -> Kind:
    if "captions" in kinds:
        return kinds["captions"]
    told = set(kinds.values()) - {"too few"}
    if kinds and not told:
        return "too few"
    told.discard("not told apart")
    return told.pop() if len(told) == 1 else "not told apart"
