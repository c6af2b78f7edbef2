"""Draw evidence as a forest plot: what every method does beyond brevity, group by group, coloured by its verdict."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lmms_fixattn.report.evidence import Evidence, Line
from lmms_fixattn.report.plot_style import STYLE, short
from lmms_fixattn.scoring.bootstrap import LEVEL

# Okabe and Ito's green and vermilion, darker for text on white; the word stands beside each, for who cannot tell them.
_COLOURS: Mapping[str | None, str] = {"better": "#00735a", "worse": "#b84300"}
_GREY = "#5f5f5f"
_STYLE = STYLE | {"font.size": 10}
_ROW = 0.25  # inches
_LONGEST = 112  # characters of a group's heading
# Where the picture begins and ends, in widths of the axes.
_LEFT, _RIGHT = -2.4 / 3.9, 7.0 / 3.9


def draw(evidence: Evidence, form: str) -> bytes:
    """Return the plot as a file of a form, "png" or "svg": the same bytes for the same evidence.

    Its metadata's "Description" says in words what it shows (described).
    """
    out = io.BytesIO()
    metadata: dict[str, str | None] = {"Software": None} if form == "png" else {"Date": None}
    more: dict[str, Any] = {"pil_kwargs": {"optimize": True}} if form == "png" else {}
    with mpl.rc_context(_STYLE):
        forest(evidence).savefig(
            out,
            format=form,
            dpi=120,
            metadata=metadata | {"Description": described(evidence)},
            facecolor="white",
            **more,
        )
    return out.getvalue()


def described(evidence: Evidence) -> str:
    """Return what the plot shows, for who cannot see it: a line a method."""
    return "\n".join(
        f"{group.name}, {line.entry.name}: {line.beyond.chair_s.signed}, {line.word}"
        for group in evidence.groups
        for line in group.lines
    )


def forest(evidence: Evidence) -> Figure:
    """Draw CHAIR_s beyond brevity with its interval and the verdict's word, a line a method, under its group's name."""
    rows: list[str | Line] = []
    for group in evidence.groups:
        note = f" ({group.baseline.note})" if group.baseline.note else ""
        rows += [f"{group.name}: against {group.baseline.name}{note}, n = {group.comparison.n}", *group.lines]
    with mpl.rc_context(_STYLE):
        width, height = 9.6, 1.95 + _ROW * len(rows)
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((2.5 / width, 0.95 / height, 3.9 / width, _ROW * len(rows) / height))
        axes.axvline(0, color="black", linewidth=1)
        for place, row in enumerate(rows):
            if isinstance(row, str):
                band = Rectangle((_LEFT, place - 0.5), _RIGHT - _LEFT, 1, transform=axes.get_yaxis_transform())
                band.set(facecolor="#ededed", linewidth=0, clip_on=False, zorder=2.5)
                axes.add_patch(band)
                heading = row if len(row) <= _LONGEST else f"{row[: _LONGEST - 1]}…"
                _write(axes, _LEFT + 0.02, place, heading, weight="bold", fontsize=9)
            else:
                _line(axes, place, row)
        for side in ("top", "left", "right"):
            axes.spines[side].set_visible(False)
        axes.set(
            ylim=(len(rows) - 0.5, -0.5), yticks=[], xlabel="points of CHAIR_s; left of 0 is better than saying less"
        )
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        figure.text(0.1 / width, 1 - 0.3 / height, "Hallucination beyond brevity", fontsize=13, weight="bold")
        figure.text(
            0.1 / width, 1 - 0.78 / height,
            "Each method's CHAIR_s minus the best that cutting its baseline's own captions does at the same recall,\n"
            "with 95% intervals. A group is one release with a baseline of its own: between groups nothing compares.",
            fontsize=9, color="#333333", linespacing=1.4,
        )  # fmt: skip
        better = [line for group in evidence.groups for line in group.lines if line.word == "better"]
        kept = sum(line.holm_of_all <= 1 - LEVEL for line in better)
        figure.text(
            0.1 / width, 0.14 / height,
            "Better: the interval lies below 0, also after Holm over the group. After Holm over all "
            f"{evidence.methods} methods, {kept or 'none'} of these {len(better)} {'are' if kept > 1 else 'is'} left.",
            fontsize=9, color="#333333",
        )  # fmt: skip
    return figure


def _line(axes: Any, place: int, line: Line) -> None:
    delta = line.beyond.chair_s
    value, low, high = (bound or 0.0 for bound in (delta.value, delta.low, delta.high))
    colour = _COLOURS.get(line.stands, _GREY)
    axes.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
    axes.plot([value], [place], "o", color=colour, markersize=6, markeredgecolor="white", markeredgewidth=0.6)
    _write(axes, -0.04, place, short(line.entry.name), horizontalalignment="right")
    _write(axes, 1.03, place, delta.signed.replace("-", "−"), fontsize=9)
    weight = "normal" if colour == _GREY else "bold"
    _write(axes, 1.47, place, line.word, color=colour, weight=weight)


def _write(axes: Any, x: float, place: int, words: str, **look: Any) -> None:
    """Write beside the axes: x in their widths, place in their rows."""
    axes.text(x, place, words, transform=axes.get_yaxis_transform(), verticalalignment="center", clip_on=False, **look)
