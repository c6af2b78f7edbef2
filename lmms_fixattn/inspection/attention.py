"""Where an answer's tokens look, layer by layer and head by head, under one method and another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lmms_fixattn.inspection.recording import SEGMENTS, Recording
from lmms_fixattn.inspection.session import Session
from lmms_fixattn.methods import Method
from lmms_fixattn.models.encoding import Encoded


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
