"""What the pictures share: colours, heat maps, and files that are the same bytes for the same numbers."""

from __future__ import annotations

import json
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, GREY = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#BBBBBB",
)  # fmt: skip
T = TypeVar("T")
_HEADLINE = 10.0  # points
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ufffe\uffff]")


def save(figure: Figure, data: Mapping[str, Any], folder: Path, name: str) -> tuple[Path, Path, Path]:
    """Write FOLDER/NAME.png, .svg (text as text) and .json (the numbers drawn); return their paths.

    Control characters, which XML cannot hold, are drawn as U+FFFD, and what the font lacks as a box: only the JSON has
    an answer as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for text in figure.findobj(Text):
        text.set_text(drawable(text.get_text()))
    png, svg, numbers = (folder / f"{name}{suffix}" for suffix in (".png", ".svg", ".json"))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lmms-fixattn"}), any_glyph():
        figure.savefig(png, dpi=160, metadata={"Software": None})
        figure.savefig(svg, dpi=160, metadata={"Date": None})
    numbers.write_text(json.dumps(data, ensure_ascii=False, default=_plain) + "\n", encoding="utf-8")
    return png, svg, numbers


def drawable(text: str) -> str:
    """Return a text without control characters, each of which becomes U+FFFD."""
    return _CONTROL.sub("\ufffd", text)


@contextmanager
def any_glyph() -> Iterator[None]:
    """Let what a font lacks be drawn or measured as a box, without a warning, inside the block."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def heat_map(axes: Axes, values: np.ndarray, limits: tuple[float, float], colours: str, bar_label: str) -> None:
    """Draw [layers, heads], layer 0 at the top, with a colour bar; not-a-number stays grey."""
    palette = mpl.colormaps[colours].with_extremes(bad=GREY)
    image = axes.imshow(values, cmap=palette, vmin=limits[0], vmax=limits[1], aspect="auto", interpolation="nearest")
    axes.set(xlabel="head", ylabel="layer")
    whole_ticks(axes.xaxis, axes.yaxis)
    axes.figure.colorbar(image, ax=axes, fraction=0.05, pad=0.03, label=bar_label)


def whole_ticks(*axes: Axis) -> None:
    """Label a few whole numbers alone, as of layers and heads."""
    for axis in axes:
        axis.set_major_locator(MaxNLocator(nbins=8, integer=True))


def in_rows(items: Sequence[T], most: int) -> list[Sequence[T]]:
    """Split into rows of at most so many, as equally long as can be."""
    down = -(-len(items) // most)
    across = -(-len(items) // down)
    return [items[start : start + across] for start in range(0, len(items), across)]


def headline(figure: Figure, title: str, *lines: str) -> None:
    """Put a title over the figure, and under it what was asked and measured, wrapped to the figure's width."""
    width = int(figure.get_figwidth() * 72 / (_HEADLINE * 0.58))
    short = (textwrap.shorten(line, 3 * width - 20, placeholder=" ...") for line in (title, *lines))
    text = [textwrap.fill(line, width) for line in short]
    figure.suptitle("\n".join(text), fontsize=_HEADLINE, x=0.01, ha="left", parse_math=False)


def _plain(value: Any) -> Any:
    """Return what JSON can write: arrays as nested lists of five digits, not-a-number as null."""
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{type(value).__name__} cannot be written as JSON")
    nested = np.round(value.astype(float), 5).astype(object)
    nested[~np.isfinite(value)] = None
    return nested.tolist()
