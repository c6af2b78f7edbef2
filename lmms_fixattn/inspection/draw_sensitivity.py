"""Draw heads: visual sensitivity and gains, layers x heads."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lmms_fixattn.inspection.canvas import BLUE, headline, heat_map
from lmms_fixattn.inspection.sensitivity import HeadSensitivity

_RATIOS = [1, 0.45, 1]


def draw_sensitivity(heads: Sequence[HeadSensitivity], question: str) -> Figure:
    """Draw a row a method: the heads' sensitivity, its mean by layer, and the gains where the method has them."""
    widest = 3 if any(head.gains is not None for head in heads) else 2
    size = (5.0 * sum(_RATIOS[:widest]), 1.0 + 4.0 * len(heads))
    figure = Figure(figsize=size, layout="constrained")
    rows = figure.subfigures(len(heads), 1, squeeze=False)[:, 0]
    top = max(float(head.sensitivity.max()) for head in heads)
    gains = [head.gains for head in heads if head.gains is not None]
    most = max([2.0, *(float(np.nanmax(gain)) for gain in gains)])
    for part, head in zip(rows, heads, strict=True):
        columns = 2 if head.gains is None else 3
        row = part.subplots(1, columns, squeeze=False, width_ratios=_RATIOS[:columns], gridspec_kw={"wspace": 0.08})[0]
        heat_map(row[0], head.sensitivity, (0, top), "viridis", "weight on the image, r")
        row[0].set_title(textwrap.fill(f"{head.label}: visual sensitivity", 44), fontsize=10)
        mean, layers = head.sensitivity.mean(axis=1), range(len(head.sensitivity))
        row[1].barh(layers, mean, 0.8, color=BLUE)
        row[1].set_title("mean of heads", fontsize=10)
        row[1].set(xlabel="r", ylim=(len(mean) - 0.5, -0.5), xlim=(0, top))
        row[1].yaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        if head.gains is not None:
            heat_map(row[2], head.gains, (0, most), "PuOr", "gain, 1 changes nothing")
            row[2].set_title("gain of the amplification (grey: not edited)", fontsize=10)
    headline(figure, "Attention of each head to the image, at the prompt's last token", f"Question: {question}")
    return figure
