"""What runs say of their method: in a line each, and where a reader could take one for another."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from lmms_fixattn.report.runs import Run

_FOLDER = Path(__file__).parents[1] / "methods"
_STATED = re.compile(r'^    name: ClassVar\[str\] = "(\w+)"$', re.MULTILINE)
METHOD_NAMES = frozenset(name for path in _FOLDER.glob("*.py") for name in _STATED.findall(path.read_text("utf-8")))
"""As the files of the methods state them: importing them would load torch."""
_OF_MODEL = ("method", "conversation", "pretrained", "commit", "quantization")
_OF_TASK = ("image_list_sha256", "data_sha256", "generation_kwargs", "prompt", "version")


def methods(runs: Sequence[Run]) -> list[str]:
    """Return a line a recorded run: its method and the settings that are not the method's defaults.

    Of a result that does not say which these are, all settings are given.
    """
    return [f"{run.name} ran {_method(_model(run))}" for run in runs if _model(run).get("method")]


def misnamed(runs: Sequence[Run]) -> list[str]:
    """Return a warning for each run that is called by the name of a method which it did not run."""
    warnings = []
    for run in runs:
        ran = _model(run).get("method", {}).get("name")
        called = run.name.lower()
        if ran and called != ran and set(called.split("+")) <= METHOD_NAMES:
            by_default = ", the default of llava_fixattn" if _model(run).get("method_is_default") else ""
            warnings.append(f"careful: the run called {run.name} ran method={ran}{by_default}")
    return warnings


def alike(runs: Sequence[Run]) -> list[str]:
    """Return a note for each two runs of one method with the same settings on the same data."""
    recorded = [run for run in runs if _model(run).get("method")]
    return [
        f"{one.name} and {other.name} ran the same method with the same settings on the same data: "
        "what differs between them is not the method"
        for one, other in combinations(recorded, 2)
        if _identity(one, other) == _identity(other, one)
    ]


def written(value: Any) -> str:
    """Return a setting as a reader would write it: nested settings as name=value."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={written(inner)}" for key, inner in value.items())
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _model(run: Run) -> dict[str, Any]:
    return run.record.get("lmms_fixattn") or {}


def _method(model: dict[str, Any]) -> str:
    method = dict(model["method"])
    name = method.pop("name", "unknown")
    default = " (default)" if model.get("method_is_default") else ""
    settings = model.get("changed_settings", method)
    return f"method={name}{default}" + (f" with {written(settings)}" if settings else "")


def _identity(run: Run, other: Run) -> list[Any]:
    """Return what makes a run's answers, of the tasks that both have."""
    tasks, shared = run.record["tasks"], sorted({*run.record["tasks"]} & {*other.record["tasks"]})
    return [
        *(_model(run).get(key) for key in _OF_MODEL),
        *((task, *(tasks[task].get(key) for key in _OF_TASK)) for task in shared),
    ]
