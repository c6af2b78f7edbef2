"""What lmms-eval asks: requests, conversations of several rounds, and errors that name their document."""

from __future__ import annotations

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lmms_eval.api.instance import Instance
from loguru import logger

from lmms_fixattn.engine.finite import NotFiniteError
from lmms_fixattn.engine.generation import Settings
from lmms_fixattn.engine.memory import ran_out_of_memory
from lmms_fixattn.errors import StoppedError, explained, is_told, write_down


class DocumentError(StoppedError):
    """A document could not be answered, and the run ends. The message is one line: the cause, the document, the log."""

    documents: tuple[str, ...] = ()
    """All that were answered at once: any of them may be to blame."""


@dataclass(frozen=True)
class Request:
    """What lmms-eval asks: an answer to one document of a task."""

    context: str
    doc_to_messages: Callable[..., Any]
    settings: Settings
    ignored: tuple[str, ...]
    doc_id: Any
    task: str
    split: str
    key: str
    """Task, document and a digest of what is asked, and the how manieth of that in a run it is."""

    @classmethod
    def all_of(cls, kind: str, instances: Sequence[Instance]) -> list[Request]:
        """Read the requests of one call; ``kind`` is its output type.

        Raises:
            ValueError: generation settings that cannot be meant; names the task.
        """
        found: list[Request] = []
        times: Counter[str] = Counter()
        for instance in instances:
            context, doc_to_messages, kwargs, doc_id, task, split = instance.args
            try:
                settings, ignored = Settings.of(kwargs)
            except ValueError as error:
                raise ValueError(f"task {task}, generation_kwargs: {error}") from error
            what = repr((kind, task, split, doc_id, context, settings))
            digest = hashlib.sha256(what.encode()).hexdigest()[:16]
            times[digest] += 1
            key = f"{task}/{doc_id}/{digest}/{times[digest]}"
            found.append(cls(context, doc_to_messages, settings, ignored, doc_id, task, split, key))
        return found

    def __str__(self) -> str:
        return f"document {self.doc_id} of {self.task} (split {self.split})"


class Dialogue:
    """A conversation of several rounds, of which the task writes every one."""

    def __init__(self, request: Request, document: Any) -> None:
        self.request = request
        self._document = document
        self.answers: list[str] = []
        self.messages: Any = None  # of the round to answer; None: it has ended
        self._round = 0
        self._info: Any = None

    def open_round(self) -> None:
        """Ask the task for the next round's conversation."""
        write = self.request.doc_to_messages
        if self._round == 0:
            self.messages = write(self._document)
        else:
            written = write(
                self._document,
                round_idx=self._round,
                previous_output=list(self.answers),
                previous_round_info=self._info,
            )
            # A task of one round takes no round_idx, and writes its messages again.
            ended = not isinstance(written, tuple)
            if not ended:
                self.messages, ended, answers, self._info = written
                self.answers = self.answers if answers is None else list(answers)
            self.messages = None if ended else self.messages
        self._round += 1


@contextmanager
def document_errors(*requests: Request) -> Iterator[None]:
    """Turn an error inside the block into one that names the documents; an answer is never made up in its place.

    Out-of-memory errors of several requests are raised again, for the caller to split the batch.
    """
    try:
        yield
    except Exception as error:
        out_of_memory = ran_out_of_memory(error)
        if len(requests) > 1 and out_of_memory:
            raise
        hint = "; ask for fewer new tokens, or load the model in fewer bits" if out_of_memory else ""
        if isinstance(error, NotFiniteError):  # which knows whose answer it is
            requests = (requests[min(error.prompt, len(requests) - 1)],)
        others = f" and {len(requests) - 1} more" if len(requests) > 1 else ""
        named = DocumentError(explained(error, f"{hint}; at {requests[0]}{others}"))
        named.documents = tuple(map(str, requests))
        raise named from error


@contextmanager
def stopping(model: Any) -> Iterator[None]:
    """Let an error that ends a run say in one line why, and write down its traceback, the documents and the model.

    The line is logged as well: lmms-eval prints only the message of an error that it catches, and exits with status 0.

    Raises:
        DocumentError: where documents could not be read or answered.
        StoppedError: a library's error elsewhere; other errors in this package's words pass as they are.
    """
    try:
        yield
    except DocumentError as error:
        cause = error.__cause__ or error
        message = _last_words(str(error), cause, model, {"documents": ", ".join(error.documents)})
        raise DocumentError(message) from cause
    except Exception as error:
        if is_told(error):
            raise
        raise StoppedError(_last_words(explained(error), error, model, {})) from error


def _last_words(what: str, cause: BaseException, model: Any, about: Mapping[str, str]) -> str:
    known = {**about, "model": json.dumps(model.record(), default=str)}
    message = f"llava_fixattn stopped: {what}; {write_down(cause, known)}"
    logger.critical(message)
    return message


def as_chat(instance: Instance) -> Instance:
    """Return a request of a simple task in the shape of a chat task's."""
    context, kwargs, doc_to_visual, *doc_to_text, doc_id, task, split = instance.args

    def doc_to_messages(document: Any, round_idx: int | None = None, **earlier: Any) -> Any:
        if round_idx is None:
            return _user_turn(doc_to_visual(document), context)
        written = doc_to_text[0](document, round_idx=round_idx, **earlier)
        if not isinstance(written, tuple):
            return _user_turn([], written)
        visuals, text, *others = written
        return _user_turn(visuals, text), *others

    chat = copy.copy(instance)
    chat.arguments = (context, doc_to_messages, kwargs, doc_id, task, split)
    return chat


def _user_turn(pictures: Sequence[Any] | None, text: str) -> list[dict[str, Any]]:
    images = [{"type": "image", "url": picture} for picture in pictures or []]
    return [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]
