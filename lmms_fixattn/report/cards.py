"""What the page says of each run at a glance: a card with the word, its clauses, and the same by task."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lmms_fixattn.report.compare import Comparison, Row
from lmms_fixattn.report.verdict import Kind

_SIGNS: dict[Kind, str] = {"better": "✓", "not told apart": "≈", "worse": "✗", "too few": "?", "withheld": "?"}
_WORDS: dict[Kind, str] = {
    "better": "Better",
    "not told apart": "Not told apart",
    "worse": "Worse",
    "too few": "Too few images",
    "withheld": "No verdict",
}
_OF_CAPTIONS: dict[Kind, str] = {
    "better": "than saying less",
    "not told apart": "from saying less",
    "worse": "than {}",
    "too few": "for a verdict on captions",
    "withheld": "on captions: too many name no object",
}

# Clauses are parted by semicolons; in brackets a semicolon parts nothing.
_BETWEEN = re.compile(r"; (?![^()]*\))")
_MINUS = re.compile(r"(?<![\w.])-(?=\d)")


@dataclass(frozen=True)
class Badge:
    """One word, and what it is said of; the sign stands for the colour where there is none."""

    kind: Kind
    sign: str
    word: str
    of: str


@dataclass(frozen=True)
class Card:
    """A run's verdict.

    Attributes:
        kind: of the card as a whole: of its captions, where it has some.
        clauses: of the verdict, each a sentence.
        tasks: the same of each caption task by its name, where the runs hold several.
    """

    name: str
    kind: Kind
    badges: tuple[Badge, ...]
    clauses: tuple[str, ...]
    tasks: tuple[Card, ...] = ()


def cards(comparison: Comparison) -> list[Card]:
    """Return a card for every run but the baseline."""
    found = []
    for row in comparison.rows:
        if row.name == comparison.baseline:
            continue
        tasks = [
            _card(one, task, comparison.baseline)
            for task, rows in comparison.by_task.items()
            for one in rows
            if one.name == row.name
        ]
        found.append(_card(row, row.name, comparison.baseline, tuple(tasks)))
    return found


def _card(row: Row, name: str, baseline: str, tasks: tuple[Card, ...] = ()) -> Card:
    said = _MINUS.sub("−", row.verdict)
    clauses = tuple(clause[:1].upper() + clause[1:] for clause in _BETWEEN.split(said) if clause)
    return Card(name, _whole(row.kinds), _badges(row.kinds, baseline), clauses, tasks)


def _whole(kinds: Mapping[str, Kind]) -> Kind:
    """Return what colours a card: its captions' kind, or what all of POPE's splits bear that say something."""
    if "captions" in kinds:
        return kinds["captions"]
    told = {kind for kind in kinds.values() if kind != "too few"}
    if kinds and not told:
        return "too few"
    told.discard("not told apart")
    return told.pop() if len(told) == 1 else "not told apart"


def _badges(kinds: Mapping[str, Kind], baseline: str) -> tuple[Badge, ...]:
    found = []
    if captions := kinds.get("captions"):
        of = _OF_CAPTIONS[captions].format(baseline)
        found.append(Badge(captions, _SIGNS[captions], _WORDS[captions], of))
    pope = {name.removeprefix("POPE").strip(): kind for name, kind in kinds.items() if name != "captions"}
    for kind, word in _WORDS.items():
        if splits := [split for split, one in pope.items() if one == kind]:
            found.append(Badge(kind, _SIGNS[kind], word, f"in POPE {', '.join(splits)}".strip()))
    return tuple(found)
