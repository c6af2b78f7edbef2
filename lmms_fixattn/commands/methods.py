"""`lmms-fixattn methods`: what there is to choose from."""

from __future__ import annotations

import argparse
import json
from typing import Any

from lmms_fixattn.commands.console import add_command, add_format


def add(commands: Any) -> None:
    """Describe the command."""
    command = add_command(
        commands, "methods", _methods, "list the methods: source, hooks, cost, what they were compared with, parameters"
    )
    add_format(command, ("text", "markdown", "json"))


def _methods(arguments: argparse.Namespace) -> None:
    from lmms_fixattn.catalogue import catalogue, markdown, measured

    if arguments.format == "json":
        print(json.dumps(catalogue(), indent=2))
        return
    if arguments.format == "markdown":
        print(markdown())
        return
    found = measured()
    for method in catalogue():
        print(f"{method['name']}: {method['summary']} ({method['source']})")
        cost = "not measured" if method["decode_cost"] is None else f"{method['decode_cost']:.2f} x vanilla"
        print(f"  hooks: {', '.join(method['hooks']) or 'none'}; decode: {cost}; compared with {method['verified']}")
        rows = [
            (row["name"], _written(row["default"]), row["expected"], row["meaning"]) for row in method["parameters"]
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"decode: {found['on']}; the unmodified model measured again: {found['again']:.2f}")
    print("Every method is written anew from its formula; no released code was copied.")


def _written(default: Any) -> str:
    """Return a default as --model_args would say it."""
    if isinstance(default, tuple):
        return "-".join("" if bound is None else str(bound) for bound in default)
    return str(default).lower() if isinstance(default, bool) else str(default)
