"""Tables in the paper's layout: every number of the run where it belongs, published ones only beside them."""

from __future__ import annotations

import re

import pytest

from lmms_fixattn.report.paper_tables import FIGURES, LAYOUTS, PaperRow, paper_table
from lmms_fixattn.report.tables import Table
from lmms_fixattn.scoring.bootstrap import Interval

FORMATS = {
    "text": Table.text,
    "markdown": lambda table: table.markdown,
    "latex": lambda table: table.latex,
}


def written(layout: str, rows: list[PaperRow], about: str, form: str) -> str:
    return str(FORMATS[form](paper_table(layout, rows, about)))


def row(label: str, first: float, **published: float) -> PaperRow:
    figures = {
        name: Interval(first + place, first + place - 0.5, first + place + 0.75) for place, name in enumerate(FIGURES)
    }
    return PaperRow(label, figures, 487, published)


ROWS = [row("original", 46.21, chair_s=46.2, f1=75.9), row("Fix_Attn", 17.04)]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_markdown_has_a_row_a_run_with_intervals_n_and_what_was_published_below_it() -> None:
    lines = written("table1", ROWS, "some model", "markdown").splitlines()
    heading, original, published, fixed = (cells(lines[index]) for index in (2, 4, 5, 6))
    assert heading == ["Method", "CHAIR_S ↓", "CHAIR_I ↓", "F1 ↑", "Length"]
    assert original == ["original", "46.2 [45.7, 47.0]", "47.2 [46.7, 48.0]", "48.2 [47.7, 49.0]", "49.2 [48.7, 50.0]"]
    assert published == ["published", "46.2", "–", "75.9", "–"]
    assert fixed == ["Fix_Attn", "17.0 [16.5, 17.8]", "18.0 [17.5, 18.8]", "19.0 [18.5, 19.8]", "20.0 [19.5, 20.8]"]
    assert "Run: some model; n = 487." in lines[8]
    assert "not of this run" in lines[8]


def test_without_published_figures_the_table_has_no_word_of_them() -> None:
    for form in FORMATS:
        text = written("table2", [row("0.1", 40.0)], "some model", form)
        assert "ublished" not in text
        assert "487" in text


def test_on_a_terminal_the_widest_table_fits_a_hundred_columns() -> None:
    rows = [row("FixAttn with spatial", 50.0, chair_s=15.4, words=211.1)]
    assert max(map(len, written("table1", rows, "some model " * 20, "text").splitlines())) <= 100


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_form_says_the_same_numbers(layout: str, form: str) -> None:
    text = written(layout, ROWS, "some model", form).replace("{\\scriptsize ", "").replace("]}", "]")
    for figures in ("46.2 [45.7, 47.0]", "18.0 [17.5, 18.8]", "19.0 [18.5, 19.8]"):
        assert text.count(figures) == 1
    assert LAYOUTS[layout].title in text


def test_latex_escapes_names_and_has_as_many_cells_as_columns() -> None:
    text = re.sub(" +", " ", written("table2", [*ROWS, row(r"50%&$#{~\x", 1.0)], "model_a", "latex"))
    assert r"Fix\_Attn &" in text
    assert r"50\%\&\$\#\{\textasciitilde{}\textbackslash{}x &" in text
    assert r"Run: model\_a" in text
    columns = text.split(r"\begin{tabular}{")[1].split("}")[0]
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 5
    assert {line.replace(r"\&", "").count("&") + 1 for line in rows} == {len(columns)}
    assert (
        rows[0]
        .strip()
        .startswith(r"$\alpha$ & CHAIR$_S$ $\downarrow$ & CHAIR$_I$ $\downarrow$ & F1 $\uparrow$ & Length")
    )
    for arrow in "↓↑–":
        assert arrow not in text


def test_a_figure_of_nothing_is_a_dash_and_one_without_interval_has_no_brackets() -> None:
    figures = {
        "chair_s": Interval(None),
        "chair_i": Interval(3.0),
        "f1": Interval(2.0, 1.0, 3.0),
        "words": Interval(7.0),
    }
    text = written("table5", [PaperRow("0.05", figures, 3)], "some model", "markdown")
    assert cells(text.splitlines()[4]) == ["0.05", "–", "3.0", "2.0 [1.0, 3.0]", "7.0"]
