"""How much each head looks at the image: its visual sensitivity, and the gain that a method gives it for that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from lmms_fixattn.inspection.recording import SEGMENTS
from lmms_fixattn.inspection.session import Session
from lmms_fixattn.methods import Method
from lmms_fixattn.methods.fixattn import FixAttn
from lmms_fixattn.models.encoding import Encoded


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
