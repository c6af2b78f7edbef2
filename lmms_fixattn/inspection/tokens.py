"""Which image tokens a method selects, with the attention of the vision tower that it selects them by."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from lmms_fixattn.inspection.session import Session
from lmms_fixattn.methods import Method
from lmms_fixattn.methods.fixattn import FixAttn
from lmms_fixattn.models.encoding import Encoded


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
    picture = session.picture(prompt)
    rows, columns = session.grid(prompt)

    def grid(values: torch.Tensor) -> np.ndarray:
        return values[0].reshape(rows, columns).cpu().numpy()

    chosen = method.token_sets(vision)
    sets = {"local": chosen.local, "summary": chosen.summary}
    measures = {"local": vision.cls_first, "summary": vision.cls_second_last}
    if method.spatial_ratio:
        sets["local"] = replace(method, spatial_ratio=0).token_sets(vision).local
        sets["spatial"] = replace(method, local_ratio=0).token_sets(vision).local
        measures["spatial"] = getattr(vision, f"{method.spatial}_first")
    return TokenChoice(
        label,
        picture,
        {name: grid(marks) for name, marks in sets.items()},
        {name: grid(values) for name, values in measures.items()},
    )
