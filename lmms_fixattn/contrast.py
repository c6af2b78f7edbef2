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


def contrast(with_image: torch.Tensor, without_image: torch.Tensor, gamma: float, cutoff: float) -> torch.Tensor:
    """Refine next-token scores: gamma * (lc - lu) + lu, and -inf where lc < log(cutoff) + max(lc).

    lc and lu are the log-softmax of the scores with and without the image, [rows, vocabulary]. A token that the
    scores with the image exclude (-inf) stays excluded. Source: PAI, arXiv:2407.21771, eq. 6, code LALBJ/PAI.
    """
    lc = with_image.float().log_softmax(dim=-1)
    lu = without_image.float().log_softmax(dim=-1)
    return (gamma * (lc - lu) + lu).masked_fill(~plausible(lc, cutoff), -math.inf)
