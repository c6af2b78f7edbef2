"""`lmms-fixattn methods`: what there is to choose from."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from lmms_fixattn.commands.console import add_command, add_format


def add(commands: Any) -> None:
    """Describe the command."""
    add_format(
        add_command(commands, "methods", _methods, "list the methods with source, hyper-parameters and defaults")
    )


def _methods(arguments: argparse.Namespace) -> None:
    from lmms_fixattn.methods import METHODS

    methods: list[dict[str, Any]] = [
        {
            "name": name,
            "summary": method.summary,
            "source": method.source,
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
    if arguments.format == "json":
        print(json.dumps(methods, indent=2))
        return
    for method in methods:
        print(f"{method['name']}: {method['summary']} ({method['source']})")
        rows = [
            (row["name"], _written(row["default"]), row["expected"], row["meaning"]) for row in method["parameters"]
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _written(default: Any) -> str:
    """Return a default as --model_args would say it."""
    if isinstance(default, tuple):
        return "-".join("" if bound is None else str(bound) for bound in default)
    return str(default).lower() if isinstance(default, bool) else str(default)
