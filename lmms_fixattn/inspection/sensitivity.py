"""How much each head looks at the image: its visual sensitivity, and the gain that a method gives it for that."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure

from lmms_fixattn.inspection.canvas import BLUE, headline, heat_map, whole_ticks
from lmms_fixattn.inspection.recording import SEGMENTS
from lmms_fixattn.inspection.session import Session
from lmms_fixattn.methods import Method
from lmms_fixattn.methods.fixattn import FixAttn
from lmms_fixattn.models.encoding import Encoded

_RATIOS = [1, 0.45, 1]
"""Widths of the sensitivity, its mean by layer, and the gains."""


@dataclass(frozen=True)
class HeadSensitivity:
    """The heads under one method.

    Attributes:
        label: the method.
        sensitivity: [layers, heads], r[l, h] as in ``FixAttn``: the weight on the image of the newest row at
            prefill, before the layer's own amplification.
        gains: [layers, heads], what each head's amplification is multiplied by, not-a-number in layers that are not
            edited; None where the method treats heads alike.
    """

    label: str
    sensitivity: np.ndarray
    gains: np.ndarray | None


def measure_sensitivity(
    session: Session, prompt: Encoded, methods: Mapping[str, Method]
) -> tuple[HeadSensitivity, ...]:
    """Measure r of every head at the prompt's end under each method, with the method's gains where it has them."""
    return tuple(_measure(session, prompt, label, method) for label, method in methods.items())


def _measure(session: Session, prompt: Encoded, label: str, method: Method) -> HeadSensitivity:
    end_of_sequence = [session.encoder.tokenizer.eos_token_id]
    recording = session.read(prompt, end_of_sequence, method)
    sensitivity = recording.before[0, :, :, SEGMENTS.index("image")]
    if not isinstance(method, FixAttn) or method.head_modulation == "off":
        return HeadSensitivity(label, sensitivity, None)
    gains = np.full_like(sensitivity, np.nan)
    edited = slice(*method.layers)
    gains[edited] = method.head_gains(torch.from_numpy(sensitivity[edited])).numpy()
    return HeadSensitivity(label, sensitivity, gains)


def draw_sensitivity(heads: Sequence[HeadSensitivity], question: str) -> Figure:
    """Draw a row a method: the heads' sensitivity, its mean by layer, and the gains where the method has them."""
    widest = 3 if any(head.gains is not None for head in heads) else 2
    size = (5.0 * sum(_RATIOS[:widest]), 1.0 + 4.0 * len(heads))
    figure = Figure(figsize=size, layout="constrained")
    rows = figure.subfigures(len(heads), 1, squeeze=False)[:, 0]
    top = max(float(head.sensitivity.max()) for head in heads)
    most = max([2.0, *(float(np.nanmax(head.gains)) for head in heads if head.gains is not None)])
    for part, head in zip(rows, heads, strict=True):
        columns = 2 if head.gains is None else 3
        row = part.subplots(1, columns, squeeze=False, width_ratios=_RATIOS[:columns], gridspec_kw={"wspace": 0.08})[0]
        heat_map(row[0], head.sensitivity, (0, top), "viridis", "weight on the image, r")
        row[0].set_title(textwrap.fill(f"{head.label}: visual sensitivity", 44), fontsize=10)
        mean, layers = head.sensitivity.mean(axis=1), range(len(head.sensitivity))
        row[1].barh(layers, mean, 0.8, color=BLUE)
        row[1].set_title("mean of heads", fontsize=10)
        row[1].set(xlabel="r", ylim=(len(mean) - 0.5, -0.5), xlim=(0, top))
        whole_ticks(row[1].yaxis)
        if head.gains is not None:
            heat_map(row[2], head.gains, (0, most), "PuOr", "gain, 1 changes nothing")
            row[2].set_title("gain of the amplification (grey: not edited)", fontsize=10)
    headline(figure, "Attention of each head to the image, at the prompt's last token", f"Question: {question}")
    return figure
