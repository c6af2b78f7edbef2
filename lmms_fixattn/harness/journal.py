"""Answers on disk, batch by batch: what a killed run had answered is not asked again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lmms_eval.api.instance import GenerationResult, TokenCounts

from lmms_fixattn import __version__
from lmms_fixattn.engine.generation import Answer

_BUDGET = {"rows", "positions", "fitting", "largest"}
"""What a batch says of the size of batches: ``MemoryBudget.state``."""


class JournalError(RuntimeError):
    """Answers could not be written down. The message says where, why and what to do."""


class Journal:
    """The answers of one model to one list of requests, in a file of JSON lines, one a batch.

    A line is written, and forced to disk, as soon as its batch is answered: a process killed at any moment loses the
    batch that it was at. A last line without its end was being written then, and is cut off. The file knows nothing of
    the model: whoever opens it says that it is the one that the file was begun for.

    Args:
        versions: of tasks, by name, what tells each from another of its name; part of what is stored of a request.

    Raises:
        ValueError: a whole line that is no batch of answers; it names file and line.
    """

    def __init__(self, path: Path, versions: Mapping[str, str] = MappingProxyType({})) -> None:
        self._versions = versions
        self._answers: dict[str, Any] = {}
        self._spent: dict[str, tuple[float, int]] = {}
        self.budget: dict[str, Any] | None = None
        """What the latest batch said of the size of batches, for the batches after it to be the same."""
        self._path = path
        self._file = path.open("a+b", buffering=0)  # nothing is left over to be written when it is closed
        self._file.seek(0)
        *lines, torn = self._file.readall().split(b"\n")
        if torn:
            self._file.truncate(self._file.tell() - len(torn))
        for number, line in enumerate(lines, start=1):
            try:
                batch = json.loads(line)
                for answer in batch["answers"].values():
                    from_json(answer)
                if batch["budget"] is not None and not batch["budget"].keys() >= _BUDGET:
                    raise KeyError
                self._add(batch)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                self._file.close()
                raise ValueError(
                    f"{path}, line {number}: expected a batch of answers as lmms-fixattn {__version__} writes it; "
                    "delete the file to have its answers generated again"
                ) from None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        """The number of answered requests."""
        return len(self._answers)

    def recall(self, keys: Sequence[str]) -> dict[int, Any]:
        """Return the answers that are here: {index of the key: answer}."""
        stored = map(self._stored, keys)
        return {index: from_json(self._answers[key]) for index, key in enumerate(stored) if key in self._answers}

    def spent(self, kind: str) -> tuple[float, int]:
        """Return the seconds and generated tokens of all answers to requests of this kind."""
        return self._spent.get(kind, (0.0, 0))

    def keep(
        self,
        kind: str,
        keys: Sequence[str],
        answers: Sequence[Any],
        seconds: float,
        tokens: int,
        budget: dict[str, Any] | None = None,
    ) -> None:
        """Write down one batch; it is on disk when this returns.

        Raises:
            JournalError: it is not; what was written before it is whole.
        """
        stored = {self._stored(key): to_json(answer) for key, answer in zip(keys, answers, strict=True)}
        batch = {"kind": kind, "seconds": seconds, "tokens": tokens, "budget": budget, "answers": stored}
        whole = os.fstat(self._file.fileno()).st_size
        line = memoryview(json.dumps(batch).encode() + b"\n")
        try:
            while line:
                line = line[self._file.write(line) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(whole)
            raise JournalError(
                f"{self._path}: a batch of answers could not be written: {error.strerror or error}; mend that, and the "
                "same command goes on after the batches before it"
            ) from error
        if not self._is_in_its_place():
            raise JournalError(
                f"{self._path} was deleted or replaced while it was written, and the answers with it; the same "
                "command generates again what is missing"
            )
        self._add(batch)

    def _stored(self, key: str) -> str:
        return key + self._versions.get(key.rsplit("/", 3)[0], "")

    def _is_in_its_place(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except OSError:
            return False

    def _add(self, batch: dict[str, Any]) -> None:
        seconds, tokens = self.spent(batch["kind"])
        self._spent[batch["kind"]] = seconds + batch["seconds"], tokens + batch["tokens"]
        self._answers.update(batch["answers"])
        self.budget = batch["budget"]


def to_json(response: Any) -> dict[str, Any]:
    """Return an answer, or the answers of a conversation, as JSON can hold it: text, how it ended, token counts."""
    counts = None if isinstance(response, list) else response.token_counts
    rounds = response if counts is None else [response.text]
    return {
        "rounds": [{"text": str(one), "terminated": one.terminated, "tokens": one.tokens} for one in rounds],
        "counts": counts and {"input_tokens": counts.input_tokens, "output_tokens": counts.output_tokens},
    }


def from_json(stored: dict[str, Any]) -> Any:
    """Return what :func:`to_json` was given."""
    rounds = [Answer(**answer) for answer in stored["rounds"]]
    if stored["counts"] is None:
        return rounds
    (answer,) = rounds
    return GenerationResult(text=answer, token_counts=TokenCounts(**stored["counts"]))
