"""Answers on disk for --use_cache, batch by batch: a killed run goes on where it was, a further one generates none.

lmms-eval's cache stores answers once all of a run are there, as bare texts without token counts and ends, under a key
that knows of the model only the string of --model_args. Journals in its folder, in llava_fixattn/, stand in for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from loguru import logger

from lmms_fixattn.harness.journal import Journal
from lmms_fixattn.harness.requests import Request, as_chat
from lmms_fixattn.harness.tasks.tree import digests


class AnswerCache:
    """Answers of llava_fixattn, under what they depend on: the model's identity, and each task's settings and data.

    Answers that are drawn depend on the seed and on all requests of the run as well. Each process has files of its own.
    """

    def __init__(self, cache: Any, tasks: Mapping[Any, Any]) -> None:
        """Take the place of lmms-eval's ResponseCache in a run of these tasks, as lmms-eval nests them."""
        if getattr(cache, "_cache_root", None) is None:
            raise RuntimeError(
                "--use_cache: this lmms-eval does not say where its cache is; run without, or with lmms-eval 0.7.3"
            )
        self._folder = Path(cache._cache_root) / "llava_fixattn"
        self._versions = digests(tasks)
        cache.close()
        cache._cache_root = None  # so that it merges nothing

    def execute(self, lm: Any, kind: str, requests: Sequence[Any]) -> list[Any]:
        """Answer requests of one output type from the cache, the others by the model."""
        answer: Callable[[Sequence[Any]], list[Any]] = getattr(lm, kind)
        asked = Request.all_of(kind, [as_chat(request) if lm.is_simple else request for request in requests])
        keys = [request.key for request in asked]
        depends = [lm.identity(), lm.rank, lm.world_size]
        if lm.draws or any(request.settings.temperature is not None for request in asked):
            depends += [torch.initial_seed(), keys]
        name = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
        path = self._folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(path.with_suffix(".lock")).acquire(timeout=0)  # the system's, gone with its process
        except Timeout:
            logger.warning(f"llava_fixattn: another process answers into {path}; answers of this one are not kept")
            return answer(requests)
        with lock, Journal(path, self._versions) as journal:
            there = journal.recall(keys)
            logger.info(f"llava_fixattn: {len(there)} of {len(keys)} answers are taken from {path}")
            if len(there) < len(keys):
                with lm.serving(journal, None):
                    return answer(requests)
        return [there[index] for index in range(len(keys))]
