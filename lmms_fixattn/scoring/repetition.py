"""Signs that a caption's quality, not its honesty, moved a CHAIR figure: loops and missing ends."""

from __future__ import annotations

LOOPED_ABOVE = 0.2
"""A caption loops when more than this share of its 4-grams are repeats."""


def rep_n(text: str, n: int = 4) -> float:
    """Return the share of repeated n-grams of a text.

    seq-rep-n = 1 - |unique n-grams| / |n-grams|  over lower-cased words between blanks (arXiv:1908.04319, eq. 4)

    In [0, 1); 0 for a text of fewer than n words.
    """
    words = text.lower().split()
    ngrams = list(zip(*(words[start:] for start in range(n)), strict=False))
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def looks_terminated(text: str) -> bool:
    """Return whether a text ends in ".", "!" or "?": all that is known of its end where its generator does not say."""
    return text.rstrip().endswith((".", "!", "?"))
