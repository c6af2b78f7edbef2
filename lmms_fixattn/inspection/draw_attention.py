"""Draw attention shares: segments by layer, the image's share by head, and its change."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lmms_fixattn.inspection.attention import AttentionShares
from lmms_fixattn.inspection.canvas import BLACK, BLUE, GREY, ORANGE, SKY, headline, heat_map
from lmms_fixattn.inspection.recording import SEGMENTS

_ACROSS = 4
_COLOURS = {"system": GREY, "image": BLUE, "question": SKY, "answer": ORANGE}


def draw_attention(shares: Sequence[AttentionShares], question: str, answer: str, tokens: int) -> Figure:
    """Draw a column a method: shares by layer, the image's share by head, and its difference to the first method.

    More than _ACROSS methods stand in several rows of columns.
    """
    down = -(-len(shares) // _ACROSS)
    across = -(-len(shares) // down)
    panels = 3 if len(shares) > 1 else 2
    figure = Figure(figsize=(max(4.4 * across, 6.0), down * (0.3 + 2.6 * panels) + 1.0), layout="constrained")
    blocks = figure.subfigures(down, 1, squeeze=False)[:, 0]
    top = max(float(share.image.max()) for share in shares)
    reach = max(max(float(np.abs(share.image - shares[0].image).max()) for share in shares), 1e-3)
    for number, block in enumerate(blocks):
        methods = shares[number * across : (number + 1) * across]
        grid = block.subplots(panels, len(methods), squeeze=False)
        for column, share in zip(grid.T, methods, strict=True):
            _by_layer(column[0], share)
            heat_map(column[1], share.image, (0, top), "viridis", "share on the image")
            if share is not shares[0]:
                change = share.image - shares[0].image
                heat_map(column[2], change, (-reach, reach), "RdBu_r", f"change from {_within(shares[0].label, 24)}")
            elif panels == 3:
                _explain(column[2], shares)
    keys = [Patch(facecolor=_COLOURS[segment], label=segment) for segment in SEGMENTS]
    figure.legend(handles=keys, loc="outside lower center", ncols=4, frameon=False)
    headline(
        figure,
        f"Attention of the answer's {tokens} tokens",
        f"Question: {question}",
        f"Answer ({shares[0].label}'s, read by all): {answer}",
    )
    return figure


def _by_layer(axes: Axes, share: AttentionShares) -> None:
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


def _within(label: str, length: int) -> str:
    """Return a label with its middle left out where it is longer."""
    return label if len(label) <= length else f"{label[: length // 2]}…{label[-(length // 2) :]}"


def _explain(axes: Axes, shares: Sequence[AttentionShares]) -> None:
    """Give the means over layers and heads where the first method's own difference would be."""
    means = [share.by_layer.mean(axis=0) for share in shares]
    image = [mean[SEGMENTS.index("image")] for mean in means]
    rows = [
        [_within(share.label, 23), f"{seen:.1%}", f"{mean.sum() - seen:.1%}"]
        for share, mean, seen in zip(shares, means, image, strict=True)
    ]
    axes.axis("off")
    table = axes.table(
        rows,
        colLabels=["mean of all heads", "image", "text"],
        colWidths=[0.64, 0.18, 0.18],
        loc="center",
        edges="horizontal",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    table.scale(1, min(1.5, 10 / (len(rows) + 1)))
    for cell in table.get_celld().values():
        cell.set_edgecolor(BLACK)
