"""Masks of every kind, and which implementations can carry an edit."""

from __future__ import annotations

import pytest
import torch

from lmms_fixattn.engine.attention import attention_over, visible_keys, visible_keys_of_rows
from lmms_fixattn.methods.views import masked_softmax


def test_all_kinds_of_masks_say_the_same():
    keep = torch.tensor([[False, True, True, False], [True, True, False, True]])
    four = keep[:, None, None, :].expand(2, 1, 3, 4)
    additive = torch.zeros(2, 1, 3, 4).masked_fill(~four, torch.finfo(torch.float32).min)
    for mask in (keep.long(), four, additive, additive.half().masked_fill(~four, -torch.inf)):
        assert torch.equal(visible_keys(mask, 4), keep[:, None])
    assert visible_keys(None, 4) is None
    assert visible_keys(four, 2).shape == (2, 1, 2)


def test_rows_of_a_prefill_see_the_visible_keys_up_to_themselves_whatever_the_mask():
    kept = torch.tensor([[True] * 5, [False, True, True, True, True]])
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    four = (causal & kept[:, None])[:, None]
    additive = torch.zeros(2, 1, 5, 5).masked_fill(~four, torch.finfo(torch.float32).min)
    rows = torch.tensor([2, 4])
    expected = [[[False, True, True, False, False]], [[False, True, True, True, True]]]
    for mask in (kept.long(), four, additive):
        assert visible_keys_of_rows(mask, 5, 1, rows).tolist() == expected
    assert visible_keys_of_rows(None, 5, 0, rows).tolist() == causal[rows][:, None].tolist()


def test_masked_keys_get_no_weight():
    scores = torch.tensor([[[50.0, 1.0, 1.0]]])
    assert masked_softmax(scores, torch.tensor([[[False, True, True]]])).tolist() == [[[0.0, 0.5, 0.5]]]


@pytest.mark.parametrize("implementation", ["flex_attention", "paged|sdpa", "nonsense"])
def test_other_implementations_are_refused(implementation):
    with pytest.raises(ValueError, match=r"cannot carry an intervention; load the model with .* sdpa, eager"):
        attention_over(implementation)


def test_names_do_not_contain_what_transformers_looks_for():
    for implementation in ("sdpa", "eager", "flash_attention_2"):
        name = attention_over(implementation)
        assert name == attention_over(implementation)
        assert not any(word in name for word in ("sdpa", "eager", "flash", "flex"))
