"""How much a model's heads look at its own answer where it names objects: measured once, kept in a file, for AdaIAT.

A file FILE.safetensors holds two float32 tensors [layers, heads], ``true`` and ``hallucinated``: the mean weight on a
generated token, over the places where an object was named that the image shows, and over those where it was not.
FILE.json beside it says what was measured, on which model, and the sha256 of the tensors' file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from lmms_fixattn.methods.text_model import TextModel

_KIND = "lmms-fixattn attention statistics"
_HOW = "make one with `lmms-fixattn calibrate adaiat`"


@dataclass(frozen=True, eq=False)
class AttentionStatistics:
    """Mean attention weight on a generated token, by layer and head, at the naming of objects."""

    true: torch.Tensor
    """float32 [layers, heads], above 0."""
    hallucinated: torch.Tensor
    """float32 [layers, heads], above 0."""
    text_model: TextModel
    about: Mapping[str, Any]
    """How they were measured: checkpoint, images, counts, versions."""

    def ratios(self) -> torch.Tensor:
        """Return true / hallucinated of each head: [layers, heads]."""
        return self.true / self.hallucinated

    def thresholds(self, beta: float) -> torch.Tensor:
        """Return h + beta * (t - h) of each layer, with t and h the sums over heads: [layers]."""
        return torch.lerp(self.hallucinated.sum(dim=-1), self.true.sum(dim=-1), beta)

    def save(self, path: Path) -> str:
        """Write FILE.safetensors and FILE.json; return the sha256 of the former.

        Raises:
            ValueError: another suffix.
        """
        if path.suffix != ".safetensors":
            raise ValueError(f"statistics are kept in a .safetensors file, not in {path.name}")
        content = save({"true": self.true.contiguous(), "hallucinated": self.hallucinated.contiguous()})
        digest = hashlib.sha256(content).hexdigest()
        record = {"kind": _KIND, "sha256": digest, "text_model": dataclasses.asdict(self.text_model), **self.about}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        return digest

    @classmethod
    def read(cls, path: Path) -> tuple[AttentionStatistics, str]:
        """Read FILE.safetensors and the FILE.json beside it; return the statistics and the sha256 of the former.

        Raises:
            ValueError: one of them is missing, is no such file, or they do not belong together.
        """
        try:
            content = path.read_bytes()
            record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"{error.filename}: no statistics can be read ({error.strerror}); {_HOW}") from None
        except ValueError:
            record = None
        if not isinstance(record, dict) or record.get("kind") != _KIND:
            raise ValueError(f"{path.with_suffix('.json')} is no record of statistics; {_HOW}")
        digest = hashlib.sha256(content).hexdigest()
        if digest != record.get("sha256"):
            raise ValueError(f"{path} has sha256 {digest}, its record says {record.get('sha256')}: not the same files")
        try:
            tensors = load(content)
            model = TextModel(**record.pop("text_model"))
            true, hallucinated = tensors["true"].float(), tensors["hallucinated"].float()
        except (SafetensorError, KeyError, TypeError) as error:
            raise ValueError(f"{path} holds no statistics ({error}); {_HOW}") from None
        shape = (model.layers, model.heads)
        for tensor in (true, hallucinated):
            if tensor.shape != shape or not tensor.isfinite().all() or not (tensor > 0).all():
                raise ValueError(f"{path}: expected {shape[0]} x {shape[1]} weights above 0, got {list(tensor.shape)}")
        about = {key: value for key, value in record.items() if key not in ("kind", "sha256")}
        return cls(true, hallucinated, model, about), digest
