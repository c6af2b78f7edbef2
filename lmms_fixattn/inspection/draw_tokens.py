"""Draw selected tokens over the picture."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lmms_fixattn.inspection.canvas import BLUE, ORANGE, VERMILION, headline
from lmms_fixattn.inspection.tokens import TokenChoice

_COLOURS = {"local": BLUE, "summary": VERMILION, "spatial": ORANGE}
_MEASURES = {
    "local": "CLS attention, first layer",
    "summary": "CLS attention, second-last layer",
    "spatial": "attention received, first layer",
}


def draw_tokens(choice: TokenChoice) -> Figure:
    """Draw a column a set: its patches bright on the faded picture, and below the attention that they are the top of.

    The first column shows the picture as the model sees it, and below it all sets in their colours.
    """
    figure = Figure(figsize=(3.1 * (len(choice.sets) + 1), 7.2), layout="constrained")
    grid = figure.subplots(2, len(choice.sets) + 1)
    patches = next(iter(choice.sets.values())).size
    _picture(grid[0, 0], choice.picture, "as the model sees it")
    _picture(grid[1, 0], choice.picture, "all sets")
    keys = []
    for column, (name, marks) in enumerate(choice.sets.items(), start=1):
        share = f"{name}: {marks.sum()} of {patches}"
        _tint(grid[1, 0], choice.picture, marks, _COLOURS[name])
        _outline(grid[1, 0], choice.picture, marks, _COLOURS[name])
        keys.append(Patch(facecolor=_COLOURS[name], label=share))
        _picture(grid[0, column], choice.picture, share)
        _tint(grid[0, column], choice.picture, ~marks, "white", 0.75)
        _outline(grid[0, column], choice.picture, marks, _COLOURS[name])
        if not marks.any():
            said = "none" if name == "summary" else "none beside\nthe summary ones"
            grid[0, column].text(0.5, 0.5, said, transform=grid[0, column].transAxes, ha="center", va="center")
        axes = grid[1, column]
        image = axes.imshow(
            choice.measures[name], cmap="cividis", extent=_extent(choice.picture), interpolation="nearest"
        )
        if name != "summary":
            _outline(axes, choice.picture, choice.sets["summary"], _COLOURS["summary"])
        _outline(axes, choice.picture, marks, "white")
        axes.set(title=_MEASURES[name], xticks=[], yticks=[])
        axes.title.set_fontsize(10)
        figure.colorbar(image, ax=axes, orientation="horizontal", fraction=0.05, pad=0.03).ax.tick_params(labelsize=8)
    figure.legend(handles=keys, loc="outside lower center", ncols=3, frameon=False)
    unions = np.any(list(choice.sets.values()), axis=0)
    headline(
        figure,
        f"Image tokens that {choice.label} amplifies: {unions.sum()} of {patches}",
        "Below: the attention that patches are selected by; the set in white. What is summary (red) is in no other.",
    )
    return figure


def _extent(picture: np.ndarray) -> tuple[float, float, float, float]:
    height, width = picture.shape[:2]
    return 0, width, height, 0


def _picture(axes: Axes, picture: np.ndarray, title: str) -> None:
    axes.imshow(picture, extent=_extent(picture))
    axes.set(title=title, xticks=[], yticks=[])
    axes.title.set_fontsize(10)


def _tint(axes: Axes, picture: np.ndarray, marks: np.ndarray, colour: str, strength: float = 0.45) -> None:
    layer = np.zeros((*marks.shape, 4))
    layer[..., :3] = to_rgb(colour)
    layer[..., 3] = strength * marks
    axes.imshow(layer, extent=_extent(picture), interpolation="nearest")


def _outline(axes: Axes, picture: np.ndarray, marks: np.ndarray, colour: str) -> None:
    """Draw the border between marked patches and others."""
    high, wide = picture.shape[0] / marks.shape[0], picture.shape[1] / marks.shape[1]
    padded = np.pad(marks, 1)
    lines = [
        [(column * wide, row * high), ((column + 1) * wide, row * high)]
        for row, column in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])
    ] + [
        [(column * wide, row * high), (column * wide, (row + 1) * high)]
        for row, column in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])
    ]
    axes.add_collection(LineCollection(lines, colors=colour, linewidths=1.4, capstyle="projecting"))
