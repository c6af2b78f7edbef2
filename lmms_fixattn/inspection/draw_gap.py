"""Draw the modality gap."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lmms_fixattn.inspection.canvas import BLACK, BLUE, GREEN, GREY, VERMILION, headline
from lmms_fixattn.inspection.gap import ModalityGap, Plane


def draw_gap(gap: ModalityGap, question: str, answer: str) -> Figure:
    """Draw two planes, embeddings as they are and at length 1: image tokens and words over the whole vocabulary."""
    figure = Figure(figsize=(11.0, 6.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _plane(left, gap.embedded, "as embedded")
    _plane(right, gap.directions, "at length 1")
    keys, words = left.get_legend_handles_labels()
    figure.legend(keys, words, loc="outside lower center", ncols=5, frameon=False)
    headline(
        figure,
        "Image tokens and text embeddings at the decoder's input (PCA, image and vocabulary weighted alike)",
        f"Mean length: {gap.length[0]:.3g} image, {gap.length[1]:.3g} text. "
        f"Mean cosine: {gap.cosine[0]:.2f} image-image, {gap.cosine[1]:.2f} image-text, {gap.cosine[2]:.2f} text-text",
        f"Question: {question}",
        f"Answer: {answer}",
    )
    return figure


def _plane(axes: Axes, plane: Plane, title: str) -> None:
    # Tens of thousands of points would make a vector file of megabytes: the background is an image inside it.
    words = f"vocabulary ({len(plane.vocabulary)})"
    axes.scatter(
        plane.vocabulary[:, 0], plane.vocabulary[:, 1], s=6, color=GREY, linewidths=0, rasterized=True, label=words
    )
    axes.scatter(
        plane.image[:, 0],
        plane.image[:, 1],
        s=16,
        color=BLUE,
        alpha=0.6,
        linewidths=0,
        label=f"image ({len(plane.image)})",
    )
    for points, name, colour, marker in (
        (plane.question, "question", GREEN, "^"),
        (plane.answer, "answer", VERMILION, "s"),
    ):
        label = f"{name} ({len(points)})"
        axes.scatter(
            points[:, 0], points[:, 1], s=18, color=colour, marker=marker, alpha=0.7, linewidths=0, label=label
        )
    ends = np.stack([plane.image.mean(axis=0), plane.vocabulary.mean(axis=0)])
    axes.plot(ends[:, 0], ends[:, 1], color=BLACK, marker="x", linewidth=1, label="means")
    axes.set(
        title=f"{title}: means {plane.distance:.3g} apart",
        xlabel=f"component 1 ({plane.explained[0]:.0%} of the variance)",
        ylabel=f"component 2 ({plane.explained[1]:.0%})",
    )
