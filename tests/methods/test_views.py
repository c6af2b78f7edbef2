"""Gains laid out over columns, against a loop over rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmms_fixattn.methods.views import Columns, column_gains

TOKENS = 3


@st.composite
def layouts(draw):
    """Rows of 0 to 3 images of TOKENS tokens each, every prompt repeated `copies` times."""
    copies = draw(st.integers(1, 3))
    counts = draw(st.lists(st.integers(0, 3), min_size=1, max_size=4).filter(any))
    rows = []
    for count in counts:
        row = [False] * draw(st.integers(0, 4))
        for _ in range(count):
            row += [True] * TOKENS + [False] * draw(st.integers(0, 2))
        rows += [row] * copies
    width = max(map(len, rows))
    return [[False] * (width - len(row)) + row for row in rows], sum(counts), copies


@given(layouts())
def test_each_image_serves_its_own_prompt_and_all_its_copies(layout):
    rows, images, copies = layout
    gains = torch.arange(1, images * TOKENS + 1).view(images, TOKENS) / 8
    result = column_gains(torch.tensor(rows), gains)
    expected, rest = [], iter(gains.flatten().tolist())
    for row in rows[::copies]:
        expected += [[next(rest) if image else 0.0 for image in row]] * copies
    assert result.tolist() == expected


@given(layouts())
def test_columns_part_each_prompt_before_its_first_image_and_after(layout):
    rows, _, _ = layout
    columns = Columns.lay_out(torch.tensor(rows))
    for index, row in enumerate(rows):
        first = row.index(True) if any(row) else None
        kinds = ["" if first is None else "image" if image else "before" if j < first else "after"
                 for j, image in enumerate(row)]  # fmt: skip
        of_row = columns.of(index)
        for kind in ("before", "image", "after"):
            assert getattr(of_row, kind).tolist() == [[[found == kind for found in kinds]]]
        assert of_row.has_image.tolist() == [[[any(row)]]]
        assert of_row.gain.tolist() == [[[0.0] * len(row)]]


def test_images_that_do_not_fit_the_prompts_are_refused():
    rows = torch.tensor([[True, True, False]])
    with pytest.raises(ValueError, match="2 image tokens, but images of 3 were encoded"):
        column_gains(rows, torch.ones(1, 3))
    with pytest.raises(ValueError, match="image tokens"):
        column_gains(torch.tensor([[True, True], [True, True], [True, True]]), torch.ones(1, 3))


def test_no_image_token_means_no_gain():
    assert column_gains(torch.zeros(2, 4, dtype=torch.bool), torch.ones(0, 3)).sum() == 0
