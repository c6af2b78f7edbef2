from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lmms_fixattn.errors import UserError
from lmms_fixattn.report.compare import Comparison, Row, to_json
from lmms_fixattn.report.forms import FORMS, render, tables, write
from lmms_fixattn.scoring.bootstrap import NO_INTERVAL, Interval
from lmms_fixattn.scoring.truncation import Curve, Truncation

BASE = Row(
    "base",
    {
        "n": Interval(500),
        "chair_s": Interval(47.4, 42.6, 51.6),
        "recall": Interval(78.0, 75.9, 80.0),
        "words": Interval(96.9, 94.9, 98.7),
        "seconds": Interval(0.0371),
        "tokens_per_second": Interval(1689.84),
        "pope_random_n": Interval(3000),
        "pope_random_accuracy": Interval(88.0, 87.0, 89.0),
        "pope_random_f1": Interval(87.0, 86.0, 88.0),
        "pope_random_yes_ratio": Interval(50.0, 49.0, 51.0),
    },
    verdict="the baseline",
)
METHOD = Row(
    "a_7|x",
    {"n": Interval(500), "chair_s": Interval(17.6, 14.0, 21.0), "recall": Interval(59.8, 57.0, 62.0)},
    {"chair_s": Interval(-29.8, -34.0, -25.0), "recall": Interval(-18.2, -20.0, -16.0)},
    Truncation(
        Interval(0.04, -4.0, 4.5),
        Interval(-2.0, -3.0, -1.0),
        Interval(1.0, -1.0, 3.0),
        "45% of each caption's words",
        Interval(-3.0, -7.0, 1.0),
        Interval(-5.0, -6.0, -4.0),
        0.8,
    ),
    {"chair_s": 0.0004, "beyond": 0.8},
    "not shown to be better than saying less",
)
COMPARISON = Comparison(
    "base",
    (BASE, METHOD),
    {},
    Curve((0.0, 78.0), (0.0, 47.4), (0.0, 12.7)),
    ("a note of 5%",),
    500,
    {"analyser": "lexicon", "parser": "official", "draws": 1000, "seed": 0, "level": 0.95},
)


def test_tables_hold_every_figure_with_its_interval_and_blanks_for_what_is_not_there() -> None:
    found = {part.title: part for part in tables(COMPARISON)}
    assert found["Objects"].header == ("run", "CHAIR_s ↓", "recall ↑")
    assert found["Objects"].rows == [
        ("base", "47.4 [42.6, 51.6]", "78.0 [75.9, 80.0]"),
        ("a_7|x", "17.6 [14.0, 21.0]", "59.8 [57.0, 62.0]"),
    ]
    assert found["Objects, minus base"].rows == [["a_7|x", "-29.8 [-34.0, -25.0]", "-18.2 [-20.0, -16.0]"]]
    assert found["Manner and time"].header == ("run", "words", "seconds an answer ↓", "tokens a second ↑")
    assert found["Manner and time"].rows == [("base", "96.9 [94.9, 98.7]", "0.0371", "1690"), ("a_7|x", "", "", "")]
    assert found["POPE"].rows == [
        ("random: base", "3000", "88.0 [87.0, 89.0]", "87.0 [86.0, 88.0]", "50.0 [49.0, 51.0]")
    ]
    beyond = found["Beyond brevity: minus the best cut of base at the same recall"]
    assert beyond.header[1:5] == ("best cut in CHAIR_s", "CHAIR_s ↓", "Holm p", "shown from")
    cut = "45% of each caption's words"
    # 4.46 from the value to the upper bound, and 0.84 * 8.5 / 3.92.
    figures = ("+0.0 [-4.0, +4.5]", "0.800", "6.3", "-2.0 [-3.0, -1.0]", "+1.0 [-1.0, +3.0]")
    assert beyond.rows == [("a_7|x", cut, *figures)]
    assert len(found) == 5


def test_further_controls_have_a_table_where_there_are_any_and_a_dash_where_a_run_has_none() -> None:
    held = replace(METHOD, rate_ratio=Interval(0.5, 0.4, 0.6), length_matched=Interval(-0.04, -1.0, 1.0))
    longer = replace(METHOD, name="longer", rate_ratio=NO_INTERVAL)
    comparison = replace(COMPARISON, rows=(BASE, held, longer))
    found = {part.title: part for part in tables(comparison)}["Further controls"]
    assert found.rows == [("a_7|x", "+0.0 [-1.0, +1.0]", "0.50 [0.40, 0.60]"), ("longer", "-", "-")]
    rows = {(row["run"], row["figure"]): row for row in csv.DictReader(io.StringIO(render(comparison, "csv")))}
    assert [rows["a_7|x", "rate_ratio"][key] for key in ("value", "low", "high")] == ["0.5", "0.4", "0.6"]
    assert ("longer", "length_matched") not in rows
    assert json.loads(render(comparison, "json"))["rows"][1]["rate_ratio"] == {"value": 0.5, "low": 0.4, "high": 0.6}


def test_a_task_has_tables_and_verdicts_of_its_own() -> None:
    comparison = replace(COMPARISON, by_task={"familiar": (replace(BASE, columns={"n": Interval(30)}), METHOD)})
    comparison.by_task["familiar"] = (comparison.by_task["familiar"][0], replace(METHOD, verdict="worse"))
    assert "Objects of familiar" in {part.title for part in tables(comparison)}
    text = render(comparison, "full")
    assert "  a_7|x on familiar: worse" in text
    assert "  a_7|x: not shown to be better than saying less" in text
    assert "base on familiar" not in text
    assert "familiar" not in render(comparison, "table")


def test_every_text_form_states_figures_verdicts_notes_and_settings() -> None:
    for form in ("table", "full", "markdown", "latex"):
        text = render(COMPARISON, form).replace("\\", "")
        for part in (
            {"table": "17.6*    -29.8 [-34.0, -25.0]*", "latex": "-$29.8 {scriptsize [$-$34.0, $-$25.0]}"}.get(
                form, "17.6 [14.0, 21.0]"
            ),
            "not shown to be better than saying less",
            "a note of 5%",
            "n = 500",
            "seed 0",
        ):
            assert part in text, (form, part)


def test_markdown_keeps_its_columns_when_a_name_holds_a_bar() -> None:
    lines = render(COMPARISON, "markdown").splitlines()
    rows = [line for line in lines if line.startswith("| a")]
    assert rows
    assert all(len(re.findall(r"(?<!\\)\|", row)) == len(re.findall(r"\|", lines[2])) for row in rows[:1])


def test_latex_is_escaped_booktabs_with_labels() -> None:
    text = render(COMPARISON, "latex")
    assert text.count("\\toprule") == text.count("\\midrule") == text.count("\\bottomrule") == 2
    assert "\\hline" not in text
    assert re.findall(r"\\label{(.*)}", text) == ["tab:hallucination", "tab:pope"]
    assert "a\\_7|x" in text
    # What is no comment has no bare percent sign, and no underscore but in formulas.
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%")).replace("CHAIR$_", "")
    assert not re.search(r"(?<!\\)[_%]", body)


def test_latex_is_bold_where_a_gain_holds() -> None:
    assert "\\textbf{17.6}" in render(COMPARISON, "latex")
    assert "\\textbf{59.8}" not in render(COMPARISON, "latex")  # recall is lost
    alone = replace(METHOD, holm={"chair_s": 0.2, "beyond": 0.8})
    assert "\\textbf" not in render(replace(COMPARISON, rows=(BASE, alone)), "latex")
    assert METHOD.vs_truncation is not None
    better = replace(METHOD.vs_truncation, chair_s=Interval(-6.0, -9.0, -3.0))
    for p, bold in ((0.001, True), (0.06, False)):
        row = replace(METHOD, vs_truncation=better, holm={"chair_s": 0.001, "beyond": p})
        text = render(replace(COMPARISON, rows=(BASE, row)), "latex")
        assert ("\\textbf{$-$6.0 {\\scriptsize [$-$9.0, $-$3.0]}}" in text) == bold


def test_on_a_terminal_everything_fits_a_hundred_columns() -> None:
    long = replace(METHOD, name="fixattn local_ratio 0.25 head_modulation proportional", verdict="worse " * 40)
    text = render(replace(COMPARISON, rows=(BASE, METHOD, long), notes=("a note of many words " * 12,)), "table")
    assert max(map(len, text.splitlines())) <= 100
    assert text.startswith("verdicts\n  a_7|x: not shown to be better than saying less\n")
    lines = text.splitlines()
    row = next(line for line in lines if line.startswith("a_7|x"))
    assert row.split() == ["a_7|x", "17.6*", "-29.8", "[-34.0,", "-25.0]*", "+0.0", "[-4.0,", "+4.5]", "59.8*"]
    base = next(line for line in lines if line.startswith("base"))
    assert base.split() == ["base", "47.4", "[42.6,", "51.6]", "78.0", "96.9"]
    assert "random base 88.0 [87.0, 89.0] 87.0 50.0" in re.sub(" +", " ", text)


def test_a_run_alone_has_its_intervals_and_no_word_of_differences() -> None:
    text = render(replace(COMPARISON, rows=(BASE,)), "table")
    assert "base 47.4 [42.6, 51.6] 78.0 96.9" in re.sub(" +", " ", text)
    assert "difference" not in text
    assert "verdicts" not in text
    assert "\\textbf" not in render(replace(COMPARISON, rows=(BASE,)), "latex")


def test_no_number_is_minus_zero() -> None:
    nearly = Interval(-0.04, -0.02, -0.01)
    row = replace(METHOD, differences={"chair_s": nearly, "recall": nearly})
    for form in ("table", "full", "markdown", "latex"):
        assert "-0.0" not in render(replace(COMPARISON, rows=(BASE, row)), form).replace("$", "")


def test_csv_has_a_line_a_figure() -> None:
    rows = list(csv.DictReader(io.StringIO(render(COMPARISON, "csv"))))
    assert len(rows) == len(BASE.columns) + len(METHOD.columns) + 6
    found = {(row["run"], row["figure"]): row for row in rows}
    row = found["a_7|x", "chair_s"]
    assert [float(row[key]) for key in ("value", "low", "high")] == [17.6, 14.0, 21.0]
    assert [float(row[key]) for key in ("minus", "minus_low", "minus_high")] == [-29.8, -34.0, -25.0]
    assert found["base", "seconds"]["low"] == ""
    assert found["a_7|x", "chair_i_beyond_brevity"]["value"] == "-2.0"
    assert found["a_7|x", "holm_p_chair_s"]["value"] == "0.0004"
    assert found["a_7|x", "holm_p_beyond"]["value"] == "0.8"
    assert float(found["a_7|x", "smallest_shown"]["value"]) == pytest.approx(6.285, abs=0.001)


def test_json_is_that_of_the_comparison() -> None:
    assert json.loads(render(COMPARISON, "json")) == to_json(COMPARISON)


def test_write_writes_every_form_and_says_where_it_cannot(tmp_path: Path) -> None:
    paths = write(COMPARISON, tmp_path / "a" / "b")
    assert [path.name for path in paths] == ["comparison.json", "table.md", "table.tex", "table.csv"]
    assert paths[1].read_text() == render(COMPARISON, "markdown")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: cannot be written"):
        write(COMPARISON, tmp_path / "file")


def test_another_form_is_an_error() -> None:
    with pytest.raises(ValueError, match="one of table, full, markdown, latex, csv, json, not 'xml'"):
        render(COMPARISON, "xml")
    assert set(FORMS) == {"table", "full", "markdown", "latex", "csv", "json"}
