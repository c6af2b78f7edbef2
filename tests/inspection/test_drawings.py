"""Numbers in, marks out: what the pictures draw, read back from the figures."""

from __future__ import annotations

import json

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from lmms_fixattn.inspection import canvas
from lmms_fixattn.inspection.answers import Conversation, Turn, _wrap, draw_answers
from lmms_fixattn.inspection.attention import AttentionShares, draw_attention
from lmms_fixattn.inspection.gap import draw_gap, modality_gap
from lmms_fixattn.inspection.sensitivity import HeadSensitivity, draw_sensitivity
from lmms_fixattn.inspection.tokens import TokenChoice, draw_tokens
from lmms_fixattn.report.coloured import Segment

pytestmark = pytest.mark.system

LAYERS, HEADS = 7, 5


def drawn_images(figure):
    return [axes.images[0].get_array() for axes in figure.axes if axes.images]


def shares(label, seed):
    chance = np.random.default_rng(seed)
    return AttentionShares(label, chance.dirichlet([1, 2, 3, 4], size=LAYERS), chance.random((LAYERS, HEADS)))


def test_attention_draws_every_share_and_the_change():
    before, after = shares("vanilla", 1), shares("pai alpha=0.5", 2)
    figure = draw_attention([before, after], "What is there?", "A dog.", 3)
    panels = [axes for axes in figure.axes if axes.patches and axes.get_ylabel() == "attention"]
    assert [axes.get_title() for axes in panels] == ["vanilla", "pai alpha=0.5"]
    for axes, share in zip(panels, (before, after), strict=True):
        heights = np.array([bar.get_height() for bar in axes.patches]).reshape(4, LAYERS).T
        np.testing.assert_allclose(heights, share.by_layer)
        tops = np.array([bar.get_y() + bar.get_height() for bar in axes.patches]).reshape(4, LAYERS)
        np.testing.assert_allclose(tops[-1], 1)
    first, second, change = drawn_images(figure)
    np.testing.assert_array_equal(first, before.image)
    np.testing.assert_array_equal(second, after.image)
    np.testing.assert_allclose(change, after.image - before.image)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["system", "image", "question", "answer"]
    cells = [
        cell.get_text().get_text()
        for axes in figure.axes
        for table in axes.tables
        for cell in table.get_celld().values()
    ]
    seen = before.by_layer[:, 1].mean()
    assert {f"{seen:.1%}", f"{1 - seen:.1%}"} <= set(cells)
    assert "3 tokens" in figure.get_suptitle()
    assert "A dog." in figure.get_suptitle()


@pytest.mark.system
@pytest.mark.parametrize("count", [5, 9])
def test_attention_of_many_methods_wraps_and_leaves_no_panel_empty(count):
    several = [shares(f"fixattn alpha=0.{number} local_ratio=0.25", number) for number in range(count)]
    figure = draw_attention(several, "q", "a", 1)
    assert figure.get_figwidth() <= 4 * 4.4
    panels = [axes for axes in figure.axes if axes.patches and axes.get_ylabel() == "attention"]
    assert [axes.get_title() for axes in panels] == [share.label for share in several]
    assert len(drawn_images(figure)) == count + count - 1
    # Bars, two heat maps with their colour bars, and the table where the first one's own change would be.
    assert len(figure.axes) == count + 2 * (2 * count - 1) + 1
    [table] = [axes for axes in figure.axes if axes.tables]
    figure.draw_without_rendering()
    cells = table.tables[0].get_celld()
    assert len(cells) == 3 * (count + 1)
    for cell in cells.values():
        assert cell.get_text().get_window_extent().width <= cell.get_window_extent().width


def test_attention_of_one_method_has_no_change_to_draw():
    assert len(drawn_images(draw_attention([shares("vanilla", 1)], "q", "a", 1))) == 1


def test_heads_draw_sensitivity_means_and_gains_with_unedited_layers_apart():
    chance = np.random.default_rng(3)
    gains = chance.random((LAYERS, HEADS)) * 3
    gains[:2] = np.nan
    plain = HeadSensitivity("vanilla", chance.random((LAYERS, HEADS)), None)
    moved = HeadSensitivity("fixattn", chance.random((LAYERS, HEADS)), gains)
    figure = draw_sensitivity([plain, moved], "q")
    first, second, third = drawn_images(figure)
    np.testing.assert_array_equal(first, plain.sensitivity)
    np.testing.assert_array_equal(second, moved.sensitivity)
    np.testing.assert_array_equal(np.ma.getmaskarray(third)[:, 0], [True, True, *[False] * (LAYERS - 2)])
    bars = [[bar.get_width() for bar in axes.patches] for axes in figure.axes if axes.get_title() == "mean of heads"]
    np.testing.assert_allclose(bars, [plain.sensitivity.mean(axis=1), moved.sensitivity.mean(axis=1)])
    limits = [axes.images[0].get_clim() for axes in figure.axes if axes.images]
    assert limits[0] == limits[1]
    assert limits[2][1] == pytest.approx(np.nanmax(gains))
    assert len(draw_sensitivity([plain], "q").axes) == 3  # the map, its colour bar and the means


def test_no_panel_stands_empty_where_only_some_methods_have_gains():
    chance = np.random.default_rng(3)
    plain = HeadSensitivity("vanilla", chance.random((LAYERS, HEADS)), None)
    moved = HeadSensitivity("fixattn", chance.random((LAYERS, HEADS)), chance.random((LAYERS, HEADS)))
    figure = draw_sensitivity([plain, moved, plain], "q")
    # A map with its colour bar and the means each, and one map of gains with its colour bar.
    assert len(figure.axes) == 3 * 3 + 2
    assert all(axes.axison for axes in figure.axes)


def test_heat_maps_of_a_large_model_label_layers_and_heads_sparsely():
    values = np.random.default_rng(4).random((32, 32))
    figure = draw_sensitivity([HeadSensitivity("vanilla", values, None)], "q")
    axes = next(axes for axes in figure.axes if axes.images)
    figure.canvas.draw()
    ticks = [tick for tick in axes.get_xticks() if -0.5 <= tick <= 31.5]
    assert 4 <= len(ticks) <= 9
    assert all(tick == int(tick) for tick in ticks)


def choice(spatial=True):
    chance = np.random.default_rng(5)
    names = ["local", "summary", "spatial"][: 2 + spatial]
    return TokenChoice(
        "fixattn",
        chance.random((12, 16, 3)).astype(np.float32),
        {name: chance.random((3, 4)) < 0.4 for name in names},
        {name: chance.random((3, 4)) for name in names},
    )


def test_a_set_that_holds_nothing_says_so():
    tokens = choice()
    tokens.sets["spatial"][:] = False
    [axes] = [axes for axes in draw_tokens(tokens).axes if axes.get_title() == "spatial: 0 of 12"]
    assert [text.get_text() for text in axes.texts] == ["none beside\nthe summary ones"]


@pytest.mark.parametrize("spatial", [True, False])
def test_tokens_draw_each_set_over_the_picture_with_its_count_and_measure(spatial):
    tokens = choice(spatial)
    figure = draw_tokens(tokens)
    titles = {axes.get_title(): axes for axes in figure.axes}
    for name, marks in tokens.sets.items():
        axes = titles[f"{name}: {marks.sum()} of 12"]
        picture, veil = (image.get_array() for image in axes.images)
        np.testing.assert_array_equal(picture, tokens.picture)
        np.testing.assert_array_equal(veil[..., 3] == 0, marks)
        border = sum(
            int(marks[row, column]) != (marks[r, c] if 0 <= r < 3 and 0 <= c < 4 else 0)
            for row in range(3) for column in range(4)
            for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
            if marks[row, column]
        )  # fmt: skip
        assert len(axes.collections[0].get_segments()) == border
        corners = np.concatenate(axes.collections[0].get_segments())
        assert (corners % 1 == 0).all()  # in patches
    assert len(titles["CLS attention, first layer"].images) == 1
    np.testing.assert_array_equal(titles["CLS attention, first layer"].images[0].get_array(), tokens.measures["local"])
    assert ("attention received, first layer" in titles) == spatial
    assert len(figure.legends[0].get_texts()) == 2 + spatial
    assert f"{np.any(list(tokens.sets.values()), axis=0).sum()} of 12" in figure.get_suptitle()


def test_the_gap_draws_every_point_of_every_group():
    chance = np.random.default_rng(6)
    groups = [chance.normal(size=(rows, 5)).astype(np.float32) + rows for rows in (11, 3, 2, 41)]
    gap = modality_gap(*groups)
    figure = draw_gap(gap, "q", "a")
    for axes, plane in zip(figure.axes, (gap.embedded, gap.directions), strict=True):
        found = [np.asarray(points.get_offsets()) for points in axes.collections]
        for points, expected in zip(found, (plane.vocabulary, plane.image, plane.question, plane.answer), strict=True):
            np.testing.assert_allclose(points, expected)
        assert f"{plane.distance:.3g}" in axes.get_title()
        assert axes.collections[0].get_rasterized()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["vocabulary (41)", "image (11)", "question (3)", "answer (2)", "means"]
    assert "PCA" in figure.get_suptitle()


LONG = "A brown dog chases two cats over $100 of bright red sofas in the very wide garden of the old house."
TURN = Turn(
    "What is there?",
    (
        Segment("A brown "),
        Segment("dog", "dog", True),
        Segment(" chases two "),
        Segment("cats", "cat", False),
        Segment(LONG[27:]),
    ),
    True,
)


def written(figure):
    """Return the texts of the figure, without the blanks that fill lines up."""
    return [text for text in figure.findobj(Text) if text.get_text().strip()]


def test_answers_draw_all_words_once_and_colour_what_is_supported_and_what_is_not():
    other = Turn("What is there?", (Segment("No", "dog", False),), False)
    figure = draw_answers(
        [Conversation("vanilla", (TURN,)), Conversation("pai", (other,))], np.zeros((4, 4, 3)), {"dog"}
    )
    texts = [(text.get_text(), to_hex(text.get_color()), text.get_weight()) for text in written(figure)]
    assert ("dog", canvas.BLUE.lower(), "normal") in texts
    assert ("cats", canvas.VERMILION.lower(), "bold") in texts
    assert ("No", canvas.VERMILION.lower(), "bold") in texts
    drawn = "".join(text for text, _, _ in texts)
    assert "shows: dog" in drawn
    for word in LONG.split():
        assert word in drawn
    assert any("token cap" in text for text, _, _ in texts)


def test_no_text_of_answers_overlaps_another_or_leaves_the_page():
    figure = draw_answers(
        [Conversation(name, (TURN, TURN)) for name in ("vanilla", "pai " * 30, "pai", "vcd")],
        np.zeros((4, 4, 3)),
        set(),
    )
    figure.set_dpi(160)  # as saved; a character is 12 pixels wide, a line 29 high
    figure.canvas.draw()
    page = figure.bbox
    boxes = [text.get_window_extent() for text in written(figure)]
    for index, box in enumerate(boxes):
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1  # noqa: PT018
        for other in boxes[:index]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            down = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert across < 8 or down < 8


def test_answers_of_many_methods_wrap_and_repeat_the_questions():
    names = [f"method{number}" for number in range(5)]
    figure = draw_answers([Conversation(name, (TURN,)) for name in names], np.zeros((4, 4, 3)), set())
    figure.canvas.draw()
    places = {text.get_text(): text.get_window_extent() for text in written(figure) if text.get_text() in names}
    assert list(places) == names
    assert places["method0"].x0 == places["method3"].x0 < places["method1"].x0 == places["method4"].x0
    assert places["method3"].y1 < places["method0"].y0 == places["method1"].y0
    asked = [text for text in written(figure) if text.get_style() == "italic"]
    assert len(asked) == 2 * len({text.get_text() for text in asked})


@pytest.mark.parametrize("width", [4, 9, 30])
def test_wrapping_keeps_every_word_within_the_width(width):
    text = "One two-hundred\n\nthreehundredandninety  five. "
    lines = _wrap(text, width)
    assert "".join(text[start:end].replace(" ", "") for start, end in lines) == "".join(text.split())
    assert all(0 < end - start <= width for start, end in lines)
    assert all("\n" not in text[start:end] for start, end in lines)


@pytest.mark.system
def test_files_are_the_same_bytes_for_the_same_numbers_and_svg_keeps_text(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        canvas.save(draw_tokens(choice()), {"n": np.int64(3), "nan": np.array([1.5, np.nan])}, folder, "tokens")
    for name in ("tokens.png", "tokens.svg", "tokens.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    assert "as the model sees it" in (folders[0] / "tokens.svg").read_text()
    assert json.loads((folders[0] / "tokens.json").read_text()) == {"n": 3, "nan": [1.5, None]}


def test_a_headline_stays_within_the_figure():
    figure = draw_attention([shares("vanilla", 1)], "why " * 100, "because of it " * 300, 3)
    figure.canvas.draw()
    box = figure._suptitle.get_window_extent()
    assert box.x1 <= figure.bbox.x1
    assert box.y1 <= figure.bbox.y1 + 1
