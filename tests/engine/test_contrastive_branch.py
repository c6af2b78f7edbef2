"""Products of few rows, weight first: the same numbers, and nothing left behind."""

from __future__ import annotations

import pytest
import torch

from lmms_fixattn.engine.contrastive_branch import few_rows


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_a_product_of_few_rows_is_that_of_the_module_itself(rows):
    torch.manual_seed(rows)
    text = torch.nn.Sequential(torch.nn.Linear(11, 7, bias=False), torch.nn.Linear(7, 5))
    states = torch.randn(rows, 1, 11)
    expected = text(states)
    with few_rows(text):
        found = text(states)
    assert found.shape == (rows, 1, 5)
    torch.testing.assert_close(found, expected)
    assert not any("forward" in vars(module) for module in text)


def test_a_module_whose_forward_another_has_replaced_is_left_alone():
    text = torch.nn.Sequential(torch.nn.Linear(3, 3))
    text[0].forward = other = lambda states: states + 1
    with few_rows(text):
        assert text[0].forward is other
    assert text[0].forward is other
