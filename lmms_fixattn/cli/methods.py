"""`lmms-fixattn methods`: what there is to choose from."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from lmms_fixattn.cli.console import add_command, add_format, remark
from lmms_fixattn.report import terminal

if TYPE_CHECKING:
    from lmms_fixattn.methods import Method

HOOKS = (
    *("for_model", "select", "observe_input", "edit_scores", "edit_weights"),
    *("branch", "early_layers", "guide", "generation", "ask", "ends"),
)
"""The hooks by which a method acts, in the order in which they do."""


def add(commands: Any) -> None:
    """Describe the command."""
    command = add_command(
        commands,
        "methods",
        _methods,
        "list the methods, or say of one its formula, source, hooks, hyper-parameters and BibTeX entry",
    )
    command.add_argument("name", nargs="?", metavar="NAME", help="the method to tell about in full")
    add_format(command, ("text", "markdown", "json"))


def _methods(arguments: argparse.Namespace) -> None:
    from lmms_fixattn.methods import METHODS, UNUSABLE, method_class

    shown = METHODS if arguments.name is None else {arguments.name: method_class(arguments.name)}
    entries = [_entry(method) for method in shown.values()]
    for name, why in UNUSABLE.items():
        remark(f"the method {name!r} {why}")
    if arguments.format == "json":
        print(json.dumps(entries if arguments.name is None else entries[0], indent=2))
    elif arguments.format == "markdown":
        print(_markdown(entries))
    elif arguments.name is None:
        width = max(map(len, shown))
        for entry in entries:
            print(f"{entry['name']:{width}}  {entry['summary']} ({entry['source']})")
        print("`lmms-fixattn methods NAME` says of one its formula, its hyper-parameters and how to cite it.")
    else:
        print(_described(method_class(arguments.name), entries[0]))


def _entry(method: type[Method]) -> dict[str, Any]:
    """Return what there is to say of a method, JSON-ready."""
    return {
        "name": method.name,
        "summary": method.summary,
        "source": method.source,
        "cite": method.cite,
        "hooks": [hook for hook in HOOKS if method.has(hook)],
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


def _markdown(entries: list[dict[str, Any]]) -> str:
    """Return a table of methods, as the README has it."""
    lines = ["| `method=` | what it does | source | hooks | compared with |", "|---|---|---|---|---|"]
    for entry in entries:
        own = ", ".join(f"`{hook}`" for hook in entry["hooks"]) or "none"
        source = entry["source"].partition("; ")[0]
        lines.append(f"| `{entry['name']}` | {entry['summary']} | {source} | {own} | {entry['verified']} |")
    return "\n".join(lines)


def _described(method: type[Method], entry: dict[str, Any]) -> str:
    lines = [
        f"{entry['name']}: {entry['summary']}",
        "",
        inspect.cleandoc(method.__doc__ or ""),
        "",
        f"source: {entry['source']}",
        f"hooks: {', '.join(entry['hooks']) or 'none'}",
        f"compared with: {entry['verified']}",
    ]
    rows = [(row["name"], _written(row["default"]), row["expected"], row["meaning"]) for row in entry["parameters"]]
    if rows:
        lines += ["", terminal.table(("parameter", "default", "expected", "meaning"), rows)]
    if entry["cite"]:
        lines += ["", _references().get(entry["cite"], f"cite: {entry['cite']}")]
    return "\n".join(lines)


def _references() -> dict[str, str]:
    """Return the BibTeX entries of references.bib, as they stand there, by their keys."""
    text = (files("lmms_fixattn.methods") / "references.bib").read_text(encoding="utf-8")
    return {found[1]: found[0] for found in re.finditer(r"^@\w+\{([^,\s]+),\n.*?^\}$", text, re.MULTILINE | re.DOTALL)}


def _written(default: Any) -> str:
    """Return a default as --model_args would say it."""
    if isinstance(default, tuple):
        return "-".join("" if bound is None else str(bound) for bound in default)
    return str(default).lower() if isinstance(default, bool) else str(default)
