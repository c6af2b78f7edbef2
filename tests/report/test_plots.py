from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from lmms_fixattn.errors import UserError
from lmms_fixattn.report import plots
from lmms_fixattn.report.compare import Comparison
from lmms_fixattn.report.plot_recall import CURVE, CURVE_BAND, STEPS
from lmms_fixattn.report.positions import positions
from lmms_fixattn.scoring.bootstrap import Interval
from lmms_fixattn.scoring.chair import make_analyser
from lmms_fixattn.scoring.staircase import Staircase


def bars(axes: object, label: str) -> tuple[float, float, list[tuple[float, ...]]]:
    """A point's place and the ends of its error bars, as they were drawn."""
    [container] = [one for one in axes.containers if one.get_label() == label]  # type: ignore[attr-defined]
    data, _, lines = container
    (x,), (y,) = data.get_data()
    return x, y, [tuple(line.get_segments()[0].ravel()) for line in lines]


def many(comparison: Comparison, count: int) -> Comparison:
    """The comparison with so many runs, all near one another."""
    draw = random.Random(0)
    rows = list(comparison.rows[:1])
    for number in range(1, count):
        row = comparison.rows[1]
        columns = {
            name: Interval(50 + draw.random(), 49.0, 52.0) if name in ("recall", "chair_s", "chair_i") else column
            for name, column in row.columns.items()
        }
        rows.append(replace(row, name=f"a rather long name of a run, number {number}", columns=columns))
    return replace(comparison, rows=tuple(rows))


def test_the_recall_plot_draws_every_run_at_its_figures_with_its_intervals_over_the_curve(
    comparison: Comparison,
) -> None:
    figure = plots.recall_plot(comparison)
    for axes, column in zip(figure.axes, ("chair_s", "chair_i"), strict=True):
        assert comparison.curve is not None
        [curve] = [line for line in axes.lines if line.get_label() == CURVE]
        assert np.array_equal(curve.get_xdata(), comparison.curve.recall)
        assert np.array_equal(curve.get_ydata(), getattr(comparison.curve, column))
        for row in comparison.rows:
            x, y = row.columns["recall"], row.columns[column]
            at_x, at_y, (across, upright) = bars(axes, row.name)
            assert (at_x, at_y) == (x.value, y.value)
            assert across == pytest.approx((x.low, y.value, x.high, y.value))
            assert upright == pytest.approx((x.value, y.low, x.value, y.high))
            for (low, high), interval in ((axes.get_xlim(), x), (axes.get_ylim(), y)):
                assert low < interval.low <= interval.high < high or low == 0
        # Zoomed: the runs take most of the panel, not a corner of it.
        for name, (low, high) in (("recall", axes.get_xlim()), (column, axes.get_ylim())):
            lows = [row.columns[name].low for row in comparison.rows]
            highs = [row.columns[name].high for row in comparison.rows]
            assert max(highs) - min(lows) > 0.7 * (high - low)


def test_the_curve_has_its_band_and_no_line_but_intervals_and_the_curve_is_drawn(comparison: Comparison) -> None:
    curve = comparison.curve
    assert curve is not None
    for axes, column in zip(plots.recall_plot(comparison).axes, ("chair_s", "chair_i"), strict=True):
        [band] = [one for one in axes.collections if one.get_label() == CURVE_BAND]
        ends = {tuple(point) for point in band.get_paths()[0].vertices.tolist()}
        assert set(zip(curve.recall, getattr(curve, f"{column}_low"), strict=True)) <= ends
        assert set(zip(curve.recall, getattr(curve, f"{column}_high"), strict=True)) <= ends
        assert [text.arrow_patch for text in axes.texts if hasattr(text, "arrow_patch")] == []
        # A point a run and the curve; the intervals are collections of the points'.
        assert len(axes.lines) == len(comparison.rows) + 1
    bare = replace(comparison, curve=replace(curve, chair_s_low=(), chair_s_high=(), chair_i_low=(), chair_i_high=()))
    for axes in plots.recall_plot(bare).axes:
        assert CURVE_BAND not in {one.get_label() for one in axes.collections}


def test_the_staircase_of_control_runs_is_drawn_where_there_are_some(comparison: Comparison) -> None:
    steps = Staircase(("short", "base"), (30.0, 70.0), (20.0, 60.0), (10.0, 50.0), (30.0, 70.0))
    chair_s, chair_i = plots.recall_plot(replace(comparison, staircase=steps)).axes
    [drawn] = [line for line in chair_s.lines if line.get_label() == STEPS]
    # Up to each step's recall its height, from the step before.
    assert (list(drawn.get_xdata()), list(drawn.get_ydata())) == ([0, 30, 70], [20, 20, 60])
    assert drawn.get_drawstyle() == "steps-pre"
    assert STEPS not in {line.get_label() for line in chair_i.lines}


def test_no_name_is_cut_or_lies_on_a_panel_even_with_twelve_runs(comparison: Comparison) -> None:
    figure = plots.recall_plot(many(comparison, 12))
    figure.draw_without_rendering()
    [legend] = figure.legends
    names = legend.get_texts()
    assert len({text.get_text() for text in names}) >= 12
    boxes = [Text.get_window_extent(text) for text in names]
    for first, box in enumerate(boxes):
        assert not [other for other in boxes[:first] if box.overlaps(other)]
        assert not [axes for axes in figure.axes if box.overlaps(axes.bbox)]
        assert figure.bbox.x0 < box.x0 < box.x1 < figure.bbox.x1
        assert figure.bbox.y0 < box.y0 < box.y1 < figure.bbox.y1


def test_the_numbers_beside_a_forest_plot_are_whole_and_by_themselves(comparison: Comparison) -> None:
    figure = plots.truncation_plot(comparison)
    figure.draw_without_rendering()
    for axes in figure.axes:
        for text in (text for text in axes.texts if "[" in text.get_text()):
            box = Text.get_window_extent(text)
            assert box.x1 < figure.bbox.x1
            assert not [other for other in figure.axes if box.overlaps(other.bbox)]


@pytest.mark.system
def test_names_are_written_as_they_are(comparison: Comparison) -> None:
    rows = tuple(replace(row, name=f"{row.name}$_{number}$") for number, row in enumerate(comparison.rows))
    odd = replace(comparison, rows=rows, baseline=rows[0].name)
    for figure in plots.figures(odd).values():
        assert "$_1$" in plots.svg(figure, "")


def test_the_truncation_plot_draws_every_delta_with_its_interval(comparison: Comparison) -> None:
    figure = plots.truncation_plot(comparison)
    drawn = [row for row in comparison.rows if row.vs_truncation]
    for axes, column in zip(figure.axes, ("chair_s", "chair_i", "chair_i_unique"), strict=True):
        assert {line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1} >= {0}
        for place, row in enumerate(drawn):
            delta: Interval = getattr(row.vs_truncation, column)
            assert bars(axes, row.name)[:2] == (delta.value, place)
            assert bars(axes, row.name)[2][0] == pytest.approx((delta.low, place, delta.high, place))
            [container] = [one for one in axes.containers if one.get_label() == row.name]
            told = delta.above_zero or delta.below_zero
            assert (container[0].get_markerfacecolor() != "white") == told
            [said] = [text for text in axes.texts if text.xy == (1, place)]
            assert (said.get_weight() == "bold") == told
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == [row.name for row in drawn]


def test_the_position_plot_draws_the_rates_of_each_run_over_the_baselines(comparison: Comparison) -> None:
    rates = {row.name: positions(row.captions, make_analyser(), 20, 0) for row in comparison.rows}
    figure = plots.position_plot(comparison, rates)
    assert len(figure.axes) == len(comparison.rows) - 1
    for axes, row in zip(figure.axes, comparison.rows[1:], strict=True):
        assert {line.get_label() for line in axes.lines} == {"base", row.name}
        for line in axes.lines:
            of_run = rates[str(line.get_label())]
            assert list(line.get_xdata()) == [5 + 10 * tenth for tenth in range(10)]
            expected = [np.nan if rate.value is None else rate.value for rate in of_run]
            np.testing.assert_array_equal(line.get_ydata(), expected)
        assert len(axes.collections) == 2


@pytest.mark.system
def test_plots_are_the_same_bytes_again_and_their_text_is_text(comparison: Comparison, tmp_path: Path) -> None:
    paths = plots.write_plots(plots.figures(comparison), tmp_path / "once")
    names = ["truncation", "recall", "position"]
    assert [path.name for path in paths] == [f"{name}.{suffix}" for name in names for suffix in ("png", "svg")]
    for path, again in zip(paths, plots.write_plots(plots.figures(comparison), tmp_path / "again"), strict=True):
        assert path.read_bytes() == again.read_bytes()
    text = "".join(ElementTree.parse(tmp_path / "once" / "recall.svg").getroot().itertext())
    assert "<b>wild & free</b>" in text
    assert "recall, % of true objects" in text
    with Image.open(tmp_path / "once" / "recall.png") as picture:
        assert picture.width > 1000


@pytest.mark.system
def test_svgs_of_one_page_share_no_id_and_name_no_address(comparison: Comparison) -> None:
    parts = {name: plots.svg(figure, name) for name, figure in plots.figures(comparison).items()}
    nodes = {name: list(ElementTree.fromstring(part.replace("xlink:", "")).iter()) for name, part in parts.items()}
    ids = {name: {node.get("id", "") for node in found} - {""} for name, found in nodes.items()}
    assert sum(map(len, ids.values())) == len(set().union(*ids.values())) > 50
    for name, part in parts.items():
        used = {node.get("href", "#")[1:] for node in nodes[name]} - {""}
        assert used <= ids[name]
        assert "http" not in part


def test_answers_alone_have_a_forest_plot_of_accuracy(answers_alone: Comparison) -> None:
    assert list(plots.figures(answers_alone)) == ["pope"]
    [axes] = plots.pope_plot(answers_alone).axes
    difference = answers_alone.rows[1].differences["pope_random_accuracy"]
    assert bars(axes, "b")[0] == difference.value
    alike = replace(answers_alone, rows=answers_alone.rows[:1])
    assert plots.figures(alike) == {}


@pytest.mark.system
def test_no_panel_is_empty_however_many_runs(comparison: Comparison) -> None:
    rates = positions(comparison.rows[1].captions, make_analyser(), 20, 0)
    for count in (2, 6, 8):
        several = many(comparison, count)
        figure = plots.position_plot(several, {row.name: rates for row in several.rows})
        assert len(figure.axes) == count - 1
        assert all(axes.lines for axes in figure.axes)


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        plots.write_plots({"recall": Figure()}, tmp_path / "file" / "below")
