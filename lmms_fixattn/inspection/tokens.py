"""Which image tokens a method selects, with the attention of the vision tower that it selects them by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lmms_fixattn.inspection.canvas import BLUE, ORANGE, VERMILION, headline
from lmms_fixattn.inspection.session import Session
from lmms_fixattn.methods import Method
from lmms_fixattn.methods.fixattn import FixAttn
from lmms_fixattn.models.encoding import Encoded

_DRAWN = {
    "local": (BLUE, "CLS attention, first layer"),
    "summary": (VERMILION, "CLS attention, second-last layer"),
    "spatial": (ORANGE, "attention received, first layer"),
}
"""Of each set its colour and what its measure is."""


@dataclass(frozen=True)
class TokenChoice:
    """The token sets of one picture.

    Attributes:
        label: the method.
        picture: float32 [height, width, 3] in 0..1, as the model sees it.
        sets: "local", "summary" and, where the method has them, "spatial" -> bool [rows, columns] over the patches.
            One may be local and spatial, which amplifies it once; neither holds summary ones.
        measures: the same names -> float32 [rows, columns], the attention that the set is the top of.
    """

    label: str
    picture: np.ndarray
    sets: dict[str, np.ndarray]
    measures: dict[str, np.ndarray]


def measure_tokens(session: Session, prompt: Encoded, label: str, method: Method) -> TokenChoice:
    """Select the tokens of the prompt's picture as the method does.

    Raises:
        ValueError: a method that selects no tokens.
    """
    if not isinstance(method, FixAttn):
        raise ValueError(f"method {label} selects no image tokens; choose fixattn")
    if not method.vision_parts:
        raise ValueError(f"method {label} selects image tokens in each layer of the text model, not in the tower")
    vision = session.vision(prompt, method.vision_parts)
    chosen = method.token_sets(vision)
    sets = {"local": chosen.local, "summary": chosen.summary}
    measures = {"local": vision.cls_first, "summary": vision.cls_second_last}
    if method.spatial_ratio:
        sets["local"] = replace(method, spatial_ratio=0).token_sets(vision).local
        sets["spatial"] = replace(method, local_ratio=0).token_sets(vision).local
        measures["spatial"] = getattr(vision, f"{method.spatial}_first")
    grid = session.grid(prompt)

    def on_grid(values: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        return {name: value[0].reshape(grid).cpu().numpy() for name, value in values.items()}

    return TokenChoice(label, session.picture(prompt), on_grid(sets), on_grid(measures))


def draw_tokens(choice: TokenChoice) -> Figure:
    """Draw a column a set: its patches bright on the faded picture, and below the attention that they are the top of.

    The first column shows the picture as the model sees it, and below it all sets in their colours.
    """
    figure = Figure(figsize=(3.1 * (len(choice.sets) + 1), 7.2), layout="constrained")
    grid = figure.subplots(2, len(choice.sets) + 1)
    union = np.any(list(choice.sets.values()), axis=0)
    _show(grid[0, 0], choice.picture, union.shape, "as the model sees it")
    _show(grid[1, 0], choice.picture, union.shape, "all sets")
    keys = []
    for (above, below), (name, marks) in zip(grid.T[1:], choice.sets.items(), strict=True):
        colour, measure = _DRAWN[name]
        share = f"{name}: {marks.sum()} of {marks.size}"
        keys.append(Patch(facecolor=colour, label=share))
        _mark(grid[1, 0], marks, to_rgba(colour, 0.45))
        _outline(grid[1, 0], marks, colour)
        _show(above, choice.picture, marks.shape, share)
        _mark(above, ~marks, to_rgba("white", 0.75))
        _outline(above, marks, colour)
        if not marks.any():
            said = "none" if name == "summary" else "none beside\nthe summary ones"
            above.text(0.5, 0.5, said, transform=above.transAxes, ha="center", va="center")
        image = _show(below, choice.measures[name], marks.shape, measure, cmap="cividis")
        if name != "summary":
            _outline(below, choice.sets["summary"], _DRAWN["summary"][0])
        _outline(below, marks, "white")
        figure.colorbar(image, ax=below, orientation="horizontal", fraction=0.05, pad=0.03).ax.tick_params(labelsize=8)
    figure.legend(handles=keys, loc="outside lower center", ncols=3, frameon=False)
    headline(
        figure,
        f"Image tokens that {choice.label} amplifies: {union.sum()} of {union.size}",
        "Below: the attention that patches are selected by; the set in white. What is summary (red) is in no other.",
    )
    return figure


def _show(axes: Axes, values: np.ndarray, patches: tuple[int, ...], title: str, **style: Any) -> Any:
    """Draw a picture, or a number a patch, in coordinates whose unit is a patch; return the image drawn."""
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=10)
    return axes.imshow(values, extent=(0, patches[1], patches[0], 0), **style)


def _mark(axes: Axes, marks: np.ndarray, colour: tuple[float, ...]) -> None:
    """Lay a colour, red, green, blue and opacity, over the marked patches."""
    axes.imshow(marks[..., None] * np.array(colour), extent=(0, marks.shape[1], marks.shape[0], 0))


def _outline(axes: Axes, marks: np.ndarray, colour: str) -> None:
    """Draw the border between marked patches and others."""
    padded = np.pad(marks, 1)
    flat = np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])[:, ::-1]  # x and y of the left end
    upright = np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])[:, ::-1]  # of the upper end
    lines = [*np.stack([flat, np.add(flat, (1, 0))], axis=1), *np.stack([upright, np.add(upright, (0, 1))], axis=1)]
    axes.add_collection(LineCollection(lines, colors=colour, linewidths=1.4, capstyle="projecting"))
