"""Draw attention shares: segments by layer, the image's share by head, and its change."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lmms_fixattn.inspection.attention import AttentionShares
from lmms_fixattn.inspection.canvas import BLACK, BLUE, GREY, ORANGE, SKY, headline, heat_map, shorten
from lmms_fixattn.inspection.recording import SEGMENTS

_COLOURS = {"system": GREY, "image": BLUE, "question": SKY, "answer": ORANGE}


def draw_attention(shares: Sequence[AttentionShares], question: str, answer: str, tokens: int) -> Figure:
    """Draw a column a method: shares by layer, the image's share by head, and its difference to the first method."""
    columns = len(shares)
    figure = Figure(figsize=(max(4.4 * columns, 6.0), 8.6 if columns > 1 else 6.2), layout="constrained")
    grid = figure.subplots(3 if columns > 1 else 2, columns, squeeze=False)
    top = max(float(share.image.max()) for share in shares)
    changes = [share.image - shares[0].image for share in shares]
    reach = max(max(float(np.abs(change).max()) for change in changes), 1e-3)
    for column, share in enumerate(shares):
        axes = grid[0, column]
        layers, bottom = np.arange(len(share.by_layer)), np.zeros(len(share.by_layer))
        for segment, heights in zip(SEGMENTS, share.by_layer.T, strict=True):
            axes.bar(layers, heights, 0.9, bottom=bottom, color=_COLOURS[segment], label=segment)
            bottom = bottom + heights
        axes.set(
            title=textwrap.fill(share.label, 36),
            xlabel="layer",
            ylabel="attention",
            ylim=(0, 1),
            xlim=(-0.6, layers[-1] + 0.6),
        )
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        heat_map(grid[1, column], share.image, (0, top), "viridis", "share on the image")
        if column:
            heat_map(grid[2, column], changes[column], (-reach, reach), "RdBu_r", f"change from {shares[0].label}")
    if columns > 1:
        _explain(grid[2, 0], shares)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    headline(
        figure,
        f"Attention of the answer's {tokens} tokens",
        f"Question: {question}",
        f"Answer ({shares[0].label}'s, read by all): {answer}",
    )
    return figure


def _explain(axes: Axes, shares: Sequence[AttentionShares]) -> None:
    """Give the means over layers and heads where the first method's own difference would be."""
    means = [share.by_layer.mean(axis=0) for share in shares]
    image = [mean[SEGMENTS.index("image")] for mean in means]
    rows = [
        [shorten(share.label, 28), f"{seen:.1%}", f"{mean.sum() - seen:.1%}"]
        for share, mean, seen in zip(shares, means, image, strict=True)
    ]
    axes.axis("off")
    table = axes.table(
        rows,
        colLabels=["mean of all heads", "image", "text"],
        colWidths=[0.6, 0.2, 0.2],
        loc="center",
        edges="horizontal",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    table.scale(1, 1.5)
    for cell in table.get_celld().values():
        cell.set_edgecolor(BLACK)
