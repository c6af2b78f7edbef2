"""Steps of an answer, compared with those of a model written out by hand."""

from __future__ import annotations

import torch


def assert_same_steps(
    logits: torch.Tensor, scores: torch.Tensor, naive_logits: torch.Tensor, naive_scores: torch.Tensor
) -> None:
    """Compare the first row's logits, and its scores up to a constant a step: [steps, rows, vocabulary] each."""
    torch.testing.assert_close(logits[:, 0], naive_logits, atol=2e-3, rtol=2e-4)
    kept = torch.isfinite(scores[:, 0])
    assert torch.equal(kept, torch.isfinite(naive_scores))
    shift = (scores[:, 0] - naive_scores).masked_fill(~kept, 0)
    per_step = shift.sum(1, keepdim=True) / kept.sum(1, keepdim=True)
    torch.testing.assert_close(shift, per_step * kept, atol=2e-3, rtol=0)
