"""Formulas that contrast next-token scores: pure."""

from __future__ import annotations

import math

import torch


def plausible(scores: torch.Tensor, cutoff: float) -> torch.Tensor:
    """Return which tokens have at least ``cutoff`` times the top probability and are not excluded (-inf).

    The adaptive plausibility constraint that the contrast methods share: arXiv:2210.15097, eq. 2.

    Args:
        scores: logits or log-probabilities, [rows, vocabulary].

    Returns:
        bool [rows, vocabulary], True for at least the most likely token.
    """
    margin = math.log(cutoff) if cutoff else -math.inf
    return (scores >= margin + scores.max(dim=-1, keepdim=True).values) & (scores > -math.inf)


def contrast(scores: torch.Tensor, branch: torch.Tensor, weight: float, cutoff: float) -> torch.Tensor:
    """Lean away from what another branch says: lc + weight * (lc - lu), and -inf where lc < log(cutoff) + max(lc).

    lc and lu are the log-softmax of the scores and of the branch's logits, [rows, vocabulary]. A token that the scores
    exclude (-inf) stays excluded. What is returned is not normalised: log_softmax makes it log-probabilities, whose
    sums over a text can be compared, as beam search does.
    """
    lc = scores.float().log_softmax(dim=-1)
    lu = branch.float().log_softmax(dim=-1)
    return (lc + weight * (lc - lu)).masked_fill(~plausible(lc, cutoff), -math.inf)


def jensen_shannon(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Return the Jensen-Shannon divergence of distributions, from 0 to log 2: H((p + q) / 2) - (H(p) + H(q)) / 2.

    Args:
        p, q: probabilities, [..., vocabulary], of shapes that broadcast.

    Returns:
        [...], in nats.
    """
    return _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2


def _entropy(p: torch.Tensor) -> torch.Tensor:
    return torch.special.entr(p).sum(dim=-1)  # type: ignore[no-any-return]
