"""The tasks of a run as lmms-eval nests them: in groups, which are dictionaries or keys of them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any


def leaves(tasks: Mapping[Any, Any]) -> Iterator[Any]:
    """Yield the tasks themselves, each once for every place that it has."""
    for task in tasks.values():
        if isinstance(task, tuple):
            task = task[1]
        if isinstance(task, Mapping):
            yield from leaves(task)
        elif getattr(task, "config", None) is not None:
            yield task


def digests(tasks: Mapping[Any, Any]) -> dict[str, str]:
    """Return of each task, by its name, a digest of its prompt, settings and data (documents.Documents)."""
    found = {}
    for task in leaves(tasks):
        text = json.dumps(task.dump_config(), sort_keys=True, default=str)
        found[task.config.task] = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", text).encode()).hexdigest()
    return found
