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

from lmms_fixattn.report import plots
from lmms_fixattn.report.compare import Comparison
from lmms_fixattn.report.positions import positions
from lmms_fixattn.scoring.bootstrap import Interval
from lmms_fixattn.scoring.chair import make_analyser
from lmms_fixattn.scoring.files.reading import FileError


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
        [curve] = [line for line in axes.lines if line.get_label() == "curve"]
        assert np.array_equal(curve.get_xdata(), comparison.curve.recall)
        assert np.array_equal(curve.get_ydata(), getattr(comparison.curve, column))
        for row in comparison.rows:
            x, y = row.columns["recall"], row.columns[column]
            at_x, at_y, (across, upright) = bars(axes, row.name)
            assert (at_x, at_y) == (x.value, y.value)
            assert across == pytest.approx((x.low, y.value, x.high, y.value))
            assert upright == pytest.approx((x.value, y.low, x.value, y.high))
            assert axes.get_ylim()[0] == 0
            assert axes.get_ylim()[1] >= (y.high or 0)


def test_no_two_names_overlap_even_with_twelve_runs_close_together(comparison: Comparison) -> None:
    figure = plots.recall_plot(many(comparison, 12))
    figure.draw_without_rendering()
    for axes in figure.axes:
        names = [text.get_text() for text in axes.texts]
        assert len(set(names)) == 12
        boxes = [Text.get_window_extent(text) for text in axes.texts]
        for first, box in enumerate(boxes):
            assert not [other for other in boxes[:first] if box.y0 < other.y1 and other.y0 < box.y1]
            assert figure.bbox.y0 < box.y0
            assert box.y1 < figure.bbox.y1
            following = [other.get_tightbbox().x0 for other in figure.axes if other.bbox.x0 > axes.bbox.x0]
            assert box.x1 < min([*following, figure.bbox.x1])


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
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == [row.name for row in drawn]


def test_the_position_plot_draws_the_rates_of_each_run_over_the_baselines(comparison: Comparison) -> None:
    rates = {row.name: positions(row.captions, make_analyser(), 20, 0).tenths for row in comparison.rows}
    figure = plots.position_plot(comparison, rates, "tenths")
    assert len(figure.axes) == len(comparison.rows) - 1
    for axes, row in zip(figure.axes, comparison.rows[1:], strict=True):
        assert {line.get_label() for line in axes.lines} == {"base", row.name}
        for line in axes.lines:
            of_run = rates[str(line.get_label())]
            assert list(line.get_xdata()) == [5 + 10 * tenth for tenth in range(10)]
            expected = [np.nan if rate.rate.value is None else rate.rate.value for rate in of_run]
            np.testing.assert_array_equal(line.get_ydata(), expected)
        assert len(axes.collections) == 2


def test_spread_keeps_order_and_distance_and_moves_nothing_without_need() -> None:
    draw = random.Random(0)
    for _ in range(500):
        count = draw.randint(0, 12)
        wanted = sorted(draw.random() for _ in range(count))
        spacing = draw.uniform(0.01, 0.12)
        places = plots.spread(wanted, spacing)
        gaps = np.diff(places)
        fits = spacing * (count - 1) <= 1
        assert all(gap >= (spacing if fits else 1 / (count - 1)) - 1e-9 for gap in gaps)
        assert all(-1e-9 <= place <= 1 + 1e-9 for place in places)
        if all(gap >= spacing for gap in np.diff(wanted)):
            assert places == wanted


def test_plots_are_the_same_bytes_again_and_their_text_is_text(comparison: Comparison, tmp_path: Path) -> None:
    paths = plots.write_plots(comparison, tmp_path / "once")
    names = ["recall", "truncation", "position", "position_words"]
    assert [path.name for path in paths] == [f"{name}.{suffix}" for name in names for suffix in ("png", "svg")]
    for path, again in zip(paths, plots.write_plots(comparison, tmp_path / "again"), strict=True):
        assert path.read_bytes() == again.read_bytes()
    text = "".join(ElementTree.parse(tmp_path / "once" / "recall.svg").getroot().itertext())
    assert "<b>wild & free</b>" in text
    assert "recall, % of true objects" in text
    with Image.open(tmp_path / "once" / "recall.png") as picture:
        assert picture.width > 1000


def test_svgs_of_one_page_share_no_id_and_name_no_address(comparison: Comparison) -> None:
    parts = {name: plots.svg(figure, name) for name, figure in plots.figures(comparison).items()}
    nodes = {name: list(ElementTree.fromstring(part.replace("xlink:", "")).iter()) for name, part in parts.items()}
    ids = {name: {node.get("id", "") for node in found} - {""} for name, found in nodes.items()}
    assert sum(map(len, ids.values())) == len(set().union(*ids.values())) > 50
    for name, part in parts.items():
        used = {node.get("href", "#")[1:] for node in nodes[name]} - {""}
        assert used <= ids[name]
        assert "http" not in part


def test_a_comparison_of_answers_alone_has_no_plots(answers_alone: Comparison, tmp_path: Path) -> None:
    assert plots.figures(answers_alone) == {}
    assert plots.write_plots(answers_alone, tmp_path) == []


def test_a_directory_that_cannot_be_made_is_one_line(comparison: Comparison, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be written"):
        plots.write_plots(comparison, tmp_path / "file" / "below", {"recall": Figure()})
