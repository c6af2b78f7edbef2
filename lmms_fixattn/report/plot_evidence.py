"""Draw evidence as a forest plot: what every method does beyond brevity, group by group, coloured by its verdict."""

from __future__ import annotations

import textwrap

from matplotlib.figure import Figure

from lmms_fixattn.report.evidence import Evidence
from lmms_fixattn.report.plot_forest import Point, forest
from lmms_fixattn.report.plot_style import Form, file_of
from lmms_fixattn.scoring.bootstrap import LEVEL

# Okabe and Ito's green and vermilion, darkened; the word stands beside each, for who cannot tell them.
_COLOURS = {"better": "#00735a", "worse": "#b84300"}
_GREY = "#5f5f5f"


def draw(evidence: Evidence, form: Form) -> bytes:
    """Return the plot as a file: the same bytes for the same evidence.

    Its metadata's "Description" says in words what it shows (described).
    """
    return file_of(plot(evidence), form, dpi=120, Description=described(evidence))


def described(evidence: Evidence) -> str:
    """Return what the plot shows, for who cannot see it: a line a method."""
    return "\n".join(
        f"{group.name}, {line.entry.name}: {line.beyond.chair_s.signed}, {line.word}"
        for group in evidence.groups
        for line in group.lines
    )


def plot(evidence: Evidence) -> Figure:
    """Draw CHAIR_s beyond brevity with its interval and the verdict's word, a line a method, under its group's name."""
    panels = {}
    for group in evidence.groups:
        note = f" ({group.baseline.note})" if group.baseline.note else ""
        heading = f"{group.name}: against {group.baseline.name}{note}, n = {group.comparison.n}"
        panels[textwrap.fill(heading, 88)] = [
            Point(line.entry.name, line.beyond.chair_s, _COLOURS.get(line.stands or "", _GREY), word=line.word)
            for line in group.lines
        ]
    better = [line for group in evidence.groups for line in group.lines if line.word == "better"]
    left = sum(line.holm_of_all <= 1 - LEVEL for line in better)
    title = (
        "Hallucination beyond brevity: each method's CHAIR_s minus the best that cutting its baseline's own captions\n"
        "does at the same recall, with 95% intervals. Between groups, each one release, nothing compares.\n"
        "Better: the interval lies below 0, also after Holm over the group; after Holm over all "
        f"{evidence.methods} methods, {left or 'none'} of these {len(better)} {'are' if left > 1 else 'is'} left."
    )
    return forest(panels, title, "points of CHAIR_s; left of 0 is better than saying less", across=1, width=6.5)
