"""Where an answer's tokens look, layer by layer and head by head, under one method and another."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from lmms_fixattn.inspection.canvas import BLUE, GREY, ORANGE, SKY, headline, heat_map, in_rows, whole_ticks
from lmms_fixattn.inspection.recording import SEGMENTS, Recording
from lmms_fixattn.inspection.session import Session
from lmms_fixattn.methods import Method
from lmms_fixattn.models.encoding import Encoded

_ACROSS = 4
_COLOURS = {"system": GREY, "image": BLUE, "question": SKY, "answer": ORANGE}


@dataclass(frozen=True)
class AttentionShares:
    """Mean attention of the rows from which an answer's tokens were predicted.

    Attributes:
        label: the method.
        by_layer: [layers, segments], mean over tokens and heads, segments as in SEGMENTS; rows sum to 1.
        image: [layers, heads], mean over tokens of the weight on the image; what is left is on text.
    """

    label: str
    by_layer: np.ndarray
    image: np.ndarray

    @classmethod
    def of(cls, label: str, recording: Recording) -> AttentionShares:
        """Average a recording over its steps."""
        mean = recording.after.mean(axis=0, dtype=np.float64)
        return cls(label, mean.mean(axis=1), mean[..., SEGMENTS.index("image")])


def measure_attention(
    session: Session, prompt: Encoded, tokens: Sequence[int], methods: Mapping[str, Method]
) -> tuple[AttentionShares, ...]:
    """Measure where the tokens of one given answer look under each method.

    All methods read the same answer, so that a difference is the edit's and not another text's: a longer answer alone
    moves attention from the image to the answer. arXiv:2501.12206 shows such shares in Fig. 4.
    """
    return tuple(AttentionShares.of(label, session.read(prompt, tokens, method)) for label, method in methods.items())


def draw_attention(shares: Sequence[AttentionShares], question: str, answer: str, tokens: int) -> Figure:
    """Draw a column a method: shares by layer, the image's share by head, and its difference to the first method.

    More than _ACROSS methods stand in several rows of columns.
    """
    rows = in_rows(shares, _ACROSS)
    panels = 3 if len(shares) > 1 else 2
    size = (max(4.4 * len(rows[0]), 6.0), len(rows) * (0.3 + 2.6 * panels) + 1.0)
    figure = Figure(figsize=size, layout="constrained")
    blocks = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    top = max(float(share.image.max()) for share in shares)
    reach = max(max(float(np.abs(share.image - shares[0].image).max()) for share in shares), 1e-3)
    for block, methods in zip(blocks, rows, strict=True):
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
        axes.bar(layers, heights, 0.9, bottom, color=_COLOURS[segment])
        bottom = bottom + heights
    axes.set(title=textwrap.fill(share.label, 36), xlabel="layer", ylabel="attention")
    axes.set(ylim=(0, 1), xlim=(-0.6, layers[-1] + 0.6))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    whole_ticks(axes.xaxis)


def _within(label: str, length: int) -> str:
    """Return a label with its middle left out where it is longer."""
    return label if len(label) <= length else f"{label[: length // 2]}…{label[-(length // 2) :]}"


def _explain(axes: Axes, shares: Sequence[AttentionShares]) -> None:
    """Give the means over layers and heads where the first method's own difference would be."""
    rows = []
    for share in shares:
        mean = share.by_layer.mean(axis=0)
        seen = mean[SEGMENTS.index("image")]
        rows.append((_within(share.label, 23), f"{seen:.1%}", f"{mean.sum() - seen:.1%}"))
    axes.axis("off")
    header = ("mean of all heads", "image", "text")
    table = axes.table(rows, colLabels=header, colWidths=[0.64, 0.18, 0.18], loc="center", edges="horizontal")
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    table.scale(1, min(1.5, 10 / (len(rows) + 1)))
