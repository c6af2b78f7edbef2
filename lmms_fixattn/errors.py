"""Errors that can be read: one line that begins with the cause, and the traceback in a file that the line names."""

from __future__ import annotations

import difflib
import dis
import os
import platform
import re
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

_PACKAGE = f"{Path(__file__).parent}{os.sep}"
_CHECK = "run `lmms-fixattn check`"
_log: Path | None = None
"""Where tracebacks go; None: a new file each."""


class UserError(ValueError):
    """What a user gave cannot be used: a file, a folder, a configuration, an option. One line says what to do."""


class StoppedError(RuntimeError):
    """Something stopped. The message is one line: the cause, what is known of it, and where the traceback is."""


class Terminated(KeyboardInterrupt):
    """The system or a batch queue asks the process to end (SIGTERM), as a user does with Ctrl-C."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, by an exception, so that what is open is closed; see Terminated.

    Outside the main thread, and where somebody else handles the signal already, nothing changes.
    """

    def stop(*_: object) -> None:
        raise Terminated

    alone = threading.current_thread() is threading.main_thread()
    if not alone or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def stop_signal(stop: KeyboardInterrupt) -> signal.Signals:
    """Return the signal that stopped something: a process's exit status is 128 more."""
    return signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT


@contextmanager
def readable_failures(log: Path | None = None) -> Iterator[None]:
    """Let every error that leaves the block say in one line what a user has to know.

    What a library raises becomes a StoppedError, with its traceback in a file. Errors in this package's own words, and
    the system's (a file that is not there, memory that ran out), pass as they are.

    Args:
        log: the file at whose end tracebacks are written, also by :func:`write_down` inside the block. By default it is
            that of a block around this one, or a new file for each.
    """
    global _log
    before, _log = _log, log or _log
    try:
        yield
    except Exception as error:
        if is_told(error):
            raise
        raise StoppedError(f"{explained(error)}; {write_down(error)}") from error
    finally:
        _log = before


def is_told(error: BaseException) -> bool:
    """Say whether an error's own message is all that a user needs, so that its traceback may go unseen."""
    # An error that names the versions is of a library that is not as expected, and its traceback is wanted.
    return (_in_own_words(error) and not getattr(error, "names_versions", False)) or _of_the_system(error)


def explained(error: BaseException, where: str = "") -> str:
    """Return an error in one line that begins with the cause.

    An error in this package's words is its message, whatever was raised on top of it. Another one begins with its type,
    and says what it came from and which versions are installed; a failed import says whose module is missing.

    Args:
        where: what to say right after the cause, with its "; ".
    """
    errors = [error]
    while (under := errors[-1].__cause__) is not None:
        errors.append(under)
    if told := [each for each in errors if _in_own_words(each)]:
        return _line(told[0]) + where
    cause = f"{type(error).__name__}: {_line(error)}"
    for under in errors[1:]:
        if _line(under) not in cause:
            cause += f" (from {type(under).__name__}: {_line(under)})"
    imports = [each.name for each in errors if isinstance(each, ImportError) and each.name]
    if imports:
        return f"{cause}{where}; {_owner(imports[-1])}: `pip install lmms-fixattn` brings versions that fit; {_CHECK}"
    if any(map(_of_the_system, errors)):
        return cause + where
    from lmms_fixattn.versions import described

    return f"{cause}{where}; with {described()}: {_CHECK}"


def write_down(error: BaseException, about: Mapping[str, str] | None = None) -> str:
    """Write an error's traceback into the log, or into a new file that none but the user can read.

    It never fails: what cannot be written is logged instead, which by default goes to standard error.

    Args:
        about: what else is known, by headings.

    Returns:
        Where it is, for the end of a message.
    """
    from lmms_fixattn import __version__
    from lmms_fixattn.versions import described

    now = datetime.now()
    software = f"lmms-fixattn {__version__}, Python {platform.python_version()}, {described()}"
    heads = [f"{heading}: {text}" for heading, text in {**(about or {}), "versions": software}.items()]
    trace = "".join(traceback.format_exception(error))
    text = "\n".join([f"{now:%Y-%m-%d %H:%M:%S} an error stopped the run", *heads, trace])
    try:
        if _log is None:
            place, name = tempfile.mkstemp(".txt", f"lmms-fixattn-error-{now:%Y%m%d-%H%M%S}-")
            os.close(place)
        else:
            name = str(_log)
            _log.parent.mkdir(parents=True, exist_ok=True)
            sys.stderr.flush()  # which may be the same file
        with open(name, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as unwritten:
        from loguru import logger

        logger.error(text)
        return f"traceback above, as no file could be written ({unwritten})"
    return f"traceback in {name}"


def _in_own_words(error: BaseException) -> bool:
    """Say whether a statement of this package raised an error, and not what it called."""
    trace = error.__traceback__
    if trace is None or isinstance(error, AssertionError | AttributeError):
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    raised = dis.opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"
    return raised and code.co_filename.startswith(_PACKAGE)


def _of_the_system(error: BaseException) -> bool:
    # Where nothing has loaded the module, nothing was put on a device.
    memory = sys.modules.get("lmms_fixattn.engine.memory")
    return isinstance(error, OSError | MemoryError) or (memory is not None and memory.ran_out_of_memory(error))


def _owner(module: str) -> str:
    """Say which packages a module's top-level name is of, and their versions."""
    top = module.partition(".")[0]
    # Not packages_distributions, which in Python 3.10 knows few packages.
    start = re.compile(rf"^{re.escape(top)}(/|\.py,)", re.MULTILINE)
    owners = {found.name for found in distributions() if start.search(found.read_text("RECORD") or "")} or {top}
    try:
        return f"{', '.join(f'{name} {version(name)}' for name in sorted(owners))} is installed"
    except PackageNotFoundError:
        return f"{top} is not installed"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or "no message"


def did_you_mean(word: Any, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the known name nearest to word, or nothing when none is near."""
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
