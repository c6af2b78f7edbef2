"""A killed run with --use_cache goes on where it was: its answers stand in the cache's folder, batch by batch.

lmms-eval's cache stores answers once all requests of a run are answered, into a folder of this run alone, which is
merged into the cache at the run's end: of a run that was killed before, no other run reads anything. The journal is
what a sweep's cell has, under CACHE/llava_fixattn/; it goes when its answers have been merged.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from loguru import logger

from lmms_fixattn.harness.journal import Journal

_PATIENCE = 60
"""Seconds that lmms-eval itself waits for the lock."""


@contextmanager
def resumable(cache: Any, lm: Any, request_type: str, requests: Sequence[Any]) -> Iterator[None]:
    """Let what the model answers in this block be kept as it comes, and what a killed run had kept be taken.

    Args:
        cache: lmms-eval's ResponseCache, already keyed on the model.
        requests: all that the block is asked, those included that the cache holds.
    """
    root = getattr(cache, "_cache_root", None)
    if root is None or not hasattr(lm, "serving") or len(requests) < 2:  # one answer is kept at once anyway
        yield
        return
    folder = Path(root) / "llava_fixattn"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_digest(cache, request_type, requests)}.jsonl"
    lock = FileLock(path.with_suffix(".lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        logger.warning(
            f"llava_fixattn: another process answers the same requests into {root}; this one answers them too, and "
            "if it is killed begins anew"
        )
        yield
        return
    try:
        with Journal(path) as journal, lm.serving(journal, None):
            if len(journal):
                logger.info(f"llava_fixattn: {len(journal)} answers of a run that was stopped are taken from {path}")
            yield
    finally:
        lock.release()
    _remove_once_merged(cache, path)


def free_merge_lock(cache: Any) -> None:
    """Remove lmms-eval's lock on the cache where its owner was killed: it would never be merged into again."""
    root = getattr(cache, "_cache_root", None)
    lock = Path(root or "", "runs", ".merge.lock")
    if root is None or not lock.is_dir():
        return
    try:
        owner = json.loads((lock / "owner.json").read_text())
        dead = owner["hostname"] == socket.gethostname() and not _is_running(int(owner["pid"]))
    except (OSError, ValueError, KeyError, TypeError):  # killed before it said who it was
        dead = lock.is_dir() and time.time() - lock.stat().st_mtime > _PATIENCE
    if dead:
        logger.warning(f"llava_fixattn: removed {lock}, which a killed run left")
        shutil.rmtree(lock, ignore_errors=True)


def _digest(cache: Any, request_type: str, requests: Sequence[Any]) -> str:
    """Tell one run's requests from those of any other: answers are of these only."""
    asked = [[repr(part) for part in request.args if not callable(part)] for request in requests]
    depends = [
        cache._model_fingerprint_hash,
        getattr(cache, "_task_fingerprints", {}),
        getattr(cache, "_eval_version", ""),
        torch.initial_seed(),
        request_type,
        asked,
    ]
    return sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]


def _remove_once_merged(cache: Any, path: Path) -> None:
    finalize = cache.finalize

    def finalize_and_remove(*, success: bool, **others: Any) -> None:
        finalize(success=success, **others)
        if success and Path(cache._run_dir, ".merged").exists():
            with suppress(OSError):
                path.unlink()
                path.with_suffix(".lock").unlink()
                path.parent.rmdir()

    cache.finalize = finalize_and_remove


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
