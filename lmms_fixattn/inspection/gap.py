"""The modality gap: image tokens and text tokens in the space that the decoder reads both from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lmms_fixattn.inspection.canvas import BLACK, BLUE, GREEN, GREY, VERMILION, headline
from lmms_fixattn.inspection.session import Session
from lmms_fixattn.models.encoding import Encoded

_GROUPS = {
    "vocabulary": (GREY, "o", 6, 1),
    "image": (BLUE, "o", 16, 0.6),
    "question": (GREEN, "^", 18, 0.7),
    "answer": (VERMILION, "s", 18, 0.7),
}
"""Plane's groups, in the order in which they are drawn: colour, marker, size, opacity."""


@dataclass(frozen=True)
class Plane:
    """Embeddings projected on two axes.

    Attributes:
        image, question, answer, vocabulary: [tokens, 2], coordinates; the origin is halfway between the means of image
            tokens and vocabulary.
        explained: the two axes' shares of the variance that they were fitted to.
        distance: ||mean of image tokens - mean of the vocabulary||, in the full space.
    """

    image: np.ndarray
    question: np.ndarray
    answer: np.ndarray
    vocabulary: np.ndarray
    explained: tuple[float, float]
    distance: float


@dataclass(frozen=True)
class ModalityGap:
    """The gap between image and text.

    Attributes:
        embedded: the embeddings as they are.
        directions: the embeddings at length 1. A decoder layer first divides what it reads by its root mean square, so
            this is what the first layer's attention tells apart.
        length: mean length of image tokens, and of the vocabulary's.
        cosine: mean cosine over pairs: image x image, image x vocabulary, vocabulary x vocabulary (a token with itself
            included).
    """

    embedded: Plane
    directions: Plane
    length: tuple[float, ...]
    cosine: tuple[float, ...]


def measure_gap(session: Session, prompt: Encoded, tokens: Sequence[int]) -> ModalityGap:
    """Measure the gap between the prompt's projected image tokens and the text embeddings; ``tokens`` is the answer."""
    read, is_image = session.embeddings(prompt)
    after = np.arange(len(is_image)) > np.flatnonzero(is_image)[-1]
    vocabulary = session.vocabulary()
    return modality_gap(read[is_image], read[after], vocabulary[list(tokens)], vocabulary)


def modality_gap(image: np.ndarray, question: np.ndarray, answer: np.ndarray, vocabulary: np.ndarray) -> ModalityGap:
    """Measure the gap between embeddings, float32 [tokens, size] each."""
    groups = (image, question, answer, vocabulary)
    directions = [_at_length_1(group) for group in groups]
    means = [directions[index].mean(axis=0, dtype=np.float64) for index in (0, 3)]
    return ModalityGap(
        embedded=project(*groups),
        directions=project(*directions),
        length=tuple(float(np.linalg.norm(group, axis=1).mean()) for group in (image, vocabulary)),
        # The mean over all pairs of unit vectors is the dot product of their means.
        cosine=tuple(float(one @ other) for one, other in combinations_with_replacement(means, 2)),
    )


def project(image: np.ndarray, question: np.ndarray, answer: np.ndarray, vocabulary: np.ndarray) -> Plane:
    """Project embeddings, [tokens, size] each, on their first two principal components.

    Image tokens and vocabulary weigh alike, however many they are: the covariance is that of drawing an image token or
    a word with probability 1/2 each. arXiv:2501.12206, Fig. 3, shows such a projection.
    """
    means = [group.mean(axis=0, dtype=np.float64) for group in (image, vocabulary)]
    origin = (means[0] + means[1]) / 2
    scatters = [_scatter(group, mean) for group, mean in zip((image, vocabulary), means, strict=True)]
    gap = means[0] - means[1]
    variances, axes = np.linalg.eigh((scatters[0] + scatters[1]) / 2 + np.outer(gap, gap) / 4)
    axes = axes[:, [-1, -2]]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])  # a component's sign is free: fix it
    points = [((group - origin) @ axes).astype(np.float32) for group in (image, question, answer, vocabulary)]
    first, second = (variances[[-1, -2]] / variances.sum()).tolist()
    return Plane(points[0], points[1], points[2], points[3], (first, second), float(np.linalg.norm(gap)))


def _scatter(group: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the mean outer product of (row - mean), [size, size]."""
    centred = (group - mean).astype(np.float32)
    return (centred.T @ centred).astype(np.float64) / len(group)  # type: ignore[no-any-return]


def _at_length_1(group: np.ndarray) -> np.ndarray:
    """Return the rows at length 1; a row of zeros (padding's) stays."""
    lengths = np.linalg.norm(group, axis=1, keepdims=True)
    return np.divide(group, lengths, out=np.zeros_like(group), where=lengths > 0)  # type: ignore[no-any-return]


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
    for name, (colour, marker, size, opacity) in _GROUPS.items():
        points = getattr(plane, name)
        # Tens of thousands of points would make a vector file of megabytes: the background is an image inside it.
        axes.scatter(
            points[:, 0], points[:, 1], size, colour, marker=marker, alpha=opacity, linewidths=0,
            rasterized=name == "vocabulary", label=f"{name} ({len(points)})",
        )  # fmt: skip
    ends = np.stack([plane.image.mean(axis=0), plane.vocabulary.mean(axis=0)])
    axes.plot(*ends.T, color=BLACK, marker="x", linewidth=1, label="means")
    axes.set(
        title=f"{title}: means {plane.distance:.3g} apart",
        xlabel=f"component 1 ({plane.explained[0]:.0%} of the variance)",
        ylabel=f"component 2 ({plane.explained[1]:.0%})",
    )
