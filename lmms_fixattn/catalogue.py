"""What there is to choose from: each method with its source, hooks, measured cost and what it was compared with."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from lmms_fixattn.methods import METHODS
from lmms_fixattn.methods.base import Method

_HOOKS = (
    "for_model",
    "select",
    "note_input",
    "edit_scores",
    "edit_weights",
    "branch",
    "early_layers",
    "guide",
    "generation",
    "ask",
    "ends",
)
_MEASURED = Path(__file__).with_name("measured.json")


def catalogue() -> list[dict[str, Any]]:
    """Return an entry a method, JSON-ready: name, summary, source, hooks, decode_cost, verified and parameters.

    ``decode_cost`` is the time of a decode step over the unmodified model's, see :func:`measured`; None where it was
    not measured.
    """
    costs = measured()["decode"]
    return [
        {
            "name": name,
            "summary": method.summary,
            "source": method.source,
            "hooks": hooks(method),
            "decode_cost": costs.get(name),
            "verified": method.verified,
            "parameters": [
                {
                    "name": parameter.name,
                    "default": parameter.default,
                    "expected": parameter.metadata["expected"],
                    "meaning": parameter.metadata["meaning"],
                }
                for parameter in dataclasses.fields(method)
            ],
        }
        for name, method in METHODS.items()
    ]


def hooks(method: type[Method]) -> list[str]:
    """Return the hooks that a method has of its own, in the order in which they act."""
    return [hook for hook in _HOOKS if getattr(method, hook) is not getattr(Method, hook)]


def measured() -> dict[str, Any]:
    """Return what `lmms-fixattn bench` measured: "decode" ratios by name, "again" (the noise), "on" what and how."""
    found: dict[str, Any] = json.loads(_MEASURED.read_text())
    return found


def markdown() -> str:
    """Return the catalogue as a table for the README."""
    lines = [
        "| `method=` | what it does | source | hooks | decode | compared with |",
        "|---|---|---|---|---|---|",
    ]
    for entry in catalogue():
        own = ", ".join(f"`{hook}`" for hook in entry["hooks"]) or "none"
        cost = "" if entry["decode_cost"] is None else f"{entry['decode_cost']:.2f}"
        source = entry["source"].partition("; ")[0]
        lines.append(f"| `{entry['name']}` | {entry['summary']} | {source} | {own} | {cost} | {entry['verified']} |")
    return "\n".join(lines)
