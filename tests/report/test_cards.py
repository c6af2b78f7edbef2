from __future__ import annotations

from dataclasses import replace

import pytest

from lmms_fixattn.report.cards import cards
from lmms_fixattn.report.compare import Comparison, Row
from lmms_fixattn.report.verdict import Kind


def of(comparison: Comparison, kinds: dict[str, Kind], verdict: str = "") -> Row:
    return replace(comparison.rows[1], kinds=kinds, verdict=verdict)


@pytest.mark.parametrize(
    ("kinds", "whole"),
    [
        ({"captions": "better", "POPE random": "worse"}, "better"),
        ({"POPE random": "worse", "POPE popular": "not told apart"}, "worse"),
        ({"POPE random": "worse", "POPE popular": "better"}, "not told apart"),
        ({"POPE random": "better", "POPE popular": "too few"}, "better"),
        ({"POPE random": "too few", "POPE popular": "too few"}, "too few"),
        ({}, "not told apart"),
    ],
)
def test_captions_colour_a_card_or_else_what_all_splits_bear(
    comparison: Comparison, kinds: dict[str, Kind], whole: Kind
) -> None:
    [card] = cards(replace(comparison, rows=(comparison.rows[0], of(comparison, kinds))))
    assert card.kind == whole


def test_every_word_stands_there_with_what_it_is_said_of(comparison: Comparison) -> None:
    kinds: dict[str, Kind] = {"captions": "worse", "POPE random": "better", "POPE popular": "better", "POPE": "too few"}
    [card] = cards(replace(comparison, rows=(comparison.rows[0], of(comparison, kinds))))
    assert card.badges == (
        ("worse", "✗", "Worse", "than base"),
        ("better", "✓", "Better", "in POPE random"),
        ("better", "✓", "Better", "in POPE popular"),
        ("too few", "?", "Too few images", "in POPE"),
    )


def test_clauses_are_parted_outside_of_brackets(comparison: Comparison) -> None:
    verdict = "CHAIR_s lower (-3.0 [-4.0, -2.0]), and (a; b: -1.0); captions: too few images (10; it takes 30)"
    [card] = cards(replace(comparison, rows=(comparison.rows[0], of(comparison, {}, verdict))))
    assert card.clauses == (
        "CHAIR_s lower (-3.0 [-4.0, -2.0]), and (a; b: -1.0)",
        "Captions: too few images (10; it takes 30)",
    )


def test_a_run_has_one_card_with_its_tasks_inside(comparison: Comparison) -> None:
    by_task = dict.fromkeys(("familiar", "unfamiliar"), comparison.rows)
    found = cards(replace(comparison, by_task=by_task))
    assert [card.name for card in found] == [row.name for row in comparison.rows[1:]]
    assert [task.name for task in found[0].tasks] == ["familiar", "unfamiliar"]
    assert found[0].tasks[0].clauses == found[0].clauses
