"""Which image tokens FixAttn amplifies: local, summary and spatial, from the vision tower's own attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TokenSets:
    """Disjoint sets of image tokens, each bool [images, patches]."""

    local: torch.Tensor
    summary: torch.Tensor


def select_tokens(
    cls_first: torch.Tensor,
    cls_second_last: torch.Tensor,
    spatial: torch.Tensor | None,
    local_ratio: float,
    spatial_ratio: float,
    real: torch.Tensor | None = None,
) -> TokenSets:
    """Select the tokens of each image, as FixAttn does (arXiv:2501.12206, section 3, and its released code).

    - local: the int(local_ratio * N) patches that CLS attends to most in the vision tower's first layer;
    - summary: the patches whose CLS attention in its second-last layer is an outlier, above Q3 + 1.5 IQR;
    - spatial: the int(spatial_ratio * N) patches with the largest ``spatial`` value, which join the local ones.

    A patch that is both local (or spatial) and summary is summary.

    Args:
        cls_first, cls_second_last: attention of CLS to each patch, [images, N], on any common scale.
        spatial: attention that each patch receives in the first layer, [images, N]; unused when spatial_ratio is 0.
        local_ratio, spatial_ratio: shares in [0, 1].
        real: bool [images, N], False at patches that are no image token, which are neither counted nor selected.
    """
    real = torch.ones_like(cls_first, dtype=torch.bool) if real is None else real.to(cls_first.device)
    counts = real.sum(dim=-1, keepdim=True).double()
    local = largest(cls_first.masked_fill(~real, -torch.inf), (local_ratio * counts).long())
    if spatial is not None and spatial_ratio > 0:
        local = local | largest(spatial.masked_fill(~real, -torch.inf), (spatial_ratio * counts).long())
    # The design cuts at a rank, k = the number of outliers; that count and this comparison name the same patches.
    summary = outliers(cls_second_last.masked_fill(~real, torch.nan))
    return TokenSets(local=local & ~summary, summary=summary)


def random_tokens(sets: TokenSets, fingerprint: torch.Tensor, seed: int, real: torch.Tensor | None = None) -> TokenSets:
    """Return as many local and as many summary tokens as these in each image, drawn at random without replacement.

    What is drawn for an image depends on its fingerprint, int64 [images], and the seed alone.
    """
    draws = [
        torch.randperm(sets.local.shape[-1], generator=torch.Generator().manual_seed(number ^ seed))
        for number in fingerprint.tolist()
    ]
    place = torch.stack(draws)
    if real is not None:  # places among the real ones, in the drawn order
        place = place.masked_fill(~real.cpu(), place.shape[-1]).argsort(dim=-1, stable=True).argsort(dim=-1)
    place = place.to(sets.local.device)
    local, summary = (marks.sum(dim=-1, keepdim=True) for marks in (sets.local, sets.summary))
    return TokenSets(local=place < local, summary=(place >= local) & (place < local + summary))


def largest(values: torch.Tensor, count: int | torch.Tensor) -> torch.Tensor:
    """Mark the ``count`` largest values of each row, the earlier of equals first: [rows, N] -> bool [rows, N].

    Args:
        count: of all rows, or of each, [rows, 1].
    """
    rank = values.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return rank < count


def outliers(values: torch.Tensor) -> torch.Tensor:
    """Mark Tukey's upper outliers of each row, those above Q3 + 1.5 (Q3 - Q1): [rows, N] -> bool [rows, N].

    Quartiles are interpolated linearly between order statistics, as numpy's default does. NaN is no value.
    """
    quarter, three_quarters = (torch.nanquantile(values, q, dim=-1, keepdim=True) for q in (0.25, 0.75))
    return values > three_quarters + 1.5 * (three_quarters - quarter)
