from __future__ import annotations

from dataclasses import replace

from lmms_fixattn.report.columns import CAPTION_COLUMNS, POPE_FIGURES, display, pope_column
from lmms_fixattn.report.compare import Comparison, Row
from lmms_fixattn.report.grids import Cell, grids
from lmms_fixattn.scoring.bootstrap import Interval


def test_an_interval_is_written_in_a_numbers_format_and_no_zero_has_a_minus() -> None:
    assert f"{Interval(-0.04, -1.26, 12.0):.1f}" == "0.0 [-1.3, 12.0]"
    assert f"{Interval(-0.04, -1.26, 12.0):+.1f}" == "+0.0 [-1.3, +12.0]"
    assert f"{Interval(0.714, 0.6, 0.9):.2f}" == "0.71 [0.60, 0.90]"
    assert (f"{Interval(0.5):.1f}", f"{Interval(None):.1f}") == ("0.5", "")


def test_every_column_has_a_name_and_less_hallucination_is_good() -> None:
    assert all(display(name).name for name in CAPTION_COLUMNS)
    assert display("chair_s").header == "CHAIR_s ↓"
    assert display("recall").header == "recall ↑"
    assert display("words").header == "words"
    for figure in (*POPE_FIGURES, "n"):
        assert display(pope_column("chat_random", figure)) == display(pope_column("", figure))
    assert display("pope_random_yes_ratio").header == "yes ratio"


def row(name: str, columns: dict[str, Interval], differences: dict[str, Interval] | None = None) -> Row:
    return Row(name, {"n": Interval(500.0)} | columns, differences or {})


def made(*rows: Row) -> Comparison:
    settings = {"analyser": "lexicon", "parser": "official", "draws": 10, "seed": 0, "level": 0.95}
    return Comparison(rows[0].name, rows, {}, None, (), 500, settings)


def test_a_difference_is_marked_by_the_way_that_is_good_where_its_interval_leaves_out_0() -> None:
    figures = {name: Interval(50.0, 40.0, 60.0) for name in ("chair_s", "chair_i", "recall", "words", "f1")}
    changes = {
        "chair_s": Interval(-2.0, -3.0, -1.0),
        "chair_i": Interval(-2.0, -3.0, 1.0),
        "recall": Interval(-2.0, -3.0, -1.0),
        "words": Interval(-2.0, -3.0, -1.0),
        "f1": Interval(0.0, 0.0, 0.0),
    }
    objects, manner = grids(made(row("base", figures), row("fix", figures, changes)))
    assert [column.header for column in objects.header] == ["CHAIR_s ↓", "CHAIR_i ↓", "recall ↑", "F1 ↑"]
    base, fix = objects.lines
    assert base.baseline
    assert base.cells[0] == Cell("50.0 [40.0, 60.0]")
    assert fix.cells == (
        Cell("50.0 [40.0, 60.0]", "-2.0 [-3.0, -1.0]", "better"),
        Cell("50.0 [40.0, 60.0]", "-2.0 [-3.0, +1.0]"),
        Cell("50.0 [40.0, 60.0]", "-2.0 [-3.0, -1.0]", "worse"),
        Cell("50.0 [40.0, 60.0]", "+0.0 [+0.0, +0.0]"),
    )
    assert manner.lines[1].cells[0].mark == "differs"


def test_a_column_of_noughts_is_named_and_left_out_but_a_time_never_is() -> None:
    nought = {"looped": Interval(0.0, 0.0, 0.0), "unterminated": Interval(0.0, 0.0, 0.04)}
    rows = [row(name, nought | {"words": Interval(50.0, 49.0, 51.0), "seconds": Interval(0.01)}) for name in "ab"]
    [grid] = grids(made(*rows))
    assert [column.name for column in grid.header] == ["words", "seconds an answer"]
    assert grid.remark == "0 throughout, and left out: looped, cut off."
    rows[1].columns["looped"] = Interval(0.2, 0.0, 0.6)
    [grid] = grids(made(*rows))
    assert [column.name for column in grid.header] == ["words", "looped", "seconds an answer"]
    [grid] = grids(made(row("one", nought)))
    assert ([column.name for column in grid.header], grid.remark) == (["looped", "cut off"], "")


def test_a_column_that_has_no_name_yet_is_shown_by_its_own() -> None:
    columns = {"words": Interval(50.0, 49.0, 51.0), "rare_words": Interval(3.0, 2.0, 4.0)}
    [grid] = grids(made(row("a", columns), row("b", columns)))
    assert [column.header for column in grid.header] == ["words", "rare words"]


def test_pope_has_a_line_a_split_and_run(answers_alone: Comparison) -> None:
    [grid] = grids(answers_alone)
    assert [line.name for line in grid.lines] == ["random: a", "random: b"]
    assert grid.lines[0].cells[0] == Cell("120")


def test_the_table_beyond_brevity_names_the_cut_and_has_no_line_of_the_baseline(comparison: Comparison) -> None:
    [beyond] = [grid for grid in grids(comparison) if "Beyond" in grid.title]
    assert [line.name for line in beyond.lines] == [one.name for one in comparison.rows[1:]]
    for line, one in zip(beyond.lines, comparison.rows[1:], strict=True):
        assert one.vs_truncation is not None
        assert line.cells[0].value == one.vs_truncation.cut
        assert line.cells[2].value == f"{one.holm['beyond']:.3f}"
        # Captions of unequal lengths lie above the best cut though nothing but brevity made them.
        assert line.cells[1].mark == ("better" if one.vs_truncation.chair_s.below_zero else
                                      "differs" if one.vs_truncation.chair_s.above_zero else "")  # fmt: skip
    bare = replace(comparison, rows=comparison.rows[:1])
    assert not [grid for grid in grids(bare) if "Beyond" in grid.title]


def test_other_controls_stand_apart_each_where_a_run_has_it(comparison: Comparison) -> None:
    first, second, third = comparison.rows
    held = {
        "length_matched": Interval(-3.0, -4.0, -2.0),
        "rate_ratio": Interval(0.714, 0.6, 0.9),
        "vs_controls": None,
    }
    second = replace(second, **held)
    third = replace(third, length_matched=None, rate_ratio=Interval(None), vs_controls=None)
    [others] = [grid for grid in grids(replace(comparison, rows=(first, second, third))) if "Further" in grid.title]
    assert len(others.header) == 2
    assert [line.cells for line in others.lines] == [
        (Cell("-3.0 [-4.0, -2.0]", mark="better"), Cell("0.71 [0.60, 0.90]", mark="better")),
        (Cell("-"), Cell("-")),
    ]
