"""Errors as a user sees them: the cause first, versions where a library is to blame, a traceback that is found."""

from __future__ import annotations

import re
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lmms_fixattn import cli, make_method, versions
from lmms_fixattn.data.coco import CocoFolder
from lmms_fixattn.engine import memory
from lmms_fixattn.errors import StoppedError, explained, is_told, readable_failures, write_down

VERSIONS = rf"; with {re.escape(versions.described())}: run `lmms-fixattn check`"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where error files go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def trip() -> None:
    nothing: Any = None
    nothing[0]


def raised(function: Callable[[], Any]) -> Exception:
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def raising(error: Exception, *causes: Exception) -> Exception:
    """Raise an error from its causes, the outermost first, and return it."""

    def act() -> None:
        try:
            if causes:
                raise raising(*causes)
        except Exception as cause:
            raise error from cause
        raise error

    return raised(act)


OURS = [
    lambda: make_method("fixatn"),
    lambda: make_method("pai", alpha="much"),
    lambda: CocoFolder("nowhere"),
]
THE_SYSTEMS = [
    lambda: Path("nowhere").read_text(),
    lambda: raise_(MemoryError()),
    lambda: raise_(torch.OutOfMemoryError()),
]
A_LIBRARYS = [
    lambda: trip(),
    lambda: "".nothing,  # type: ignore[attr-defined]
    lambda: {}["a"],
    lambda: [][0],
    lambda: nothing,  # type: ignore[name-defined]  # noqa: F821
    lambda: torch.zeros(3) + torch.zeros(5),
    lambda: torch.zeros(3).reshape(2, 2),
    lambda: int("x"),
    lambda: raise_(NotImplementedError("of a library")),
    lambda: raise_(AssertionError()),
    lambda: raise_(RuntimeError("of a library")),
]


def raise_(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("function", OURS)
def test_an_error_in_our_words_is_those_words(function: Callable[[], Any]) -> None:
    error = raised(function)
    assert is_told(error)
    assert explained(error) == " ".join(str(error).split())


@pytest.mark.parametrize("function", THE_SYSTEMS)
def test_an_error_of_the_system_is_its_type_and_words(function: Callable[[], Any]) -> None:
    assert memory.ran_out_of_memory(torch.OutOfMemoryError())
    error = raised(function)
    assert is_told(error)
    assert explained(error) == f"{type(error).__name__}: {error}" or explained(error).endswith(": no message")


@pytest.mark.parametrize("function", A_LIBRARYS)
def test_an_error_of_a_library_names_the_versions_behind_the_cause(function: Callable[[], Any]) -> None:
    error = raised(function)
    assert not is_told(error)
    said = explained(error, "; there")
    assert said.startswith(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}")
    assert re.search(f"; there{VERSIONS}$", said)


def test_what_our_own_code_trips_over_is_not_taken_for_our_words() -> None:
    def statement() -> None:
        torch.stack([])

    named = {"__file__": str(Path(cli.__file__).with_name("made_up.py")), "torch": torch}
    for body, told in (("torch.stack([])", False), ("assert not 1", False), ("raise ValueError('want 1')", True)):
        code = compile(f"def act():\n    {body}\n", named["__file__"], "exec")
        exec(code, named)
        assert is_told(raised(named["act"])) is told
    assert not is_told(raised(statement))


def test_causes_are_followed_and_ours_comes_first() -> None:
    nested = raising(RuntimeError("attempts\nexhausted"), KeyError("column"), ZeroDivisionError("by zero"))
    assert explained(nested).startswith(
        "RuntimeError: attempts exhausted (from KeyError: 'column') (from ZeroDivisionError: by zero); with lmms-eval"
    )
    repeated = raising(RuntimeError("could not: by zero"), ZeroDivisionError("by zero"))
    assert explained(repeated).startswith("RuntimeError: could not: by zero; with")
    ours = raised(OURS[0])
    assert explained(raising(RuntimeError("RetryError[<Future at 0x7f>]"), ours)) == str(ours)


def test_an_error_that_names_the_versions_names_them_once_and_keeps_its_traceback(temporary: Path) -> None:
    error = raised(OURS[0])
    error.names_versions = True  # type: ignore[attr-defined]
    assert explained(error) == str(error)
    with pytest.raises(StoppedError, match=f"^{re.escape(str(error))}; traceback in ") as caught, readable_failures():
        raise error
    assert str(caught.value).count("tried") == 0
    assert len(list(temporary.iterdir())) == 1


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("filelock._nothing", rf"filelock {re.escape(versions.version('filelock'))} is installed"),
        ("PIL.Nothing", rf"pillow {re.escape(versions.version('pillow'))} is installed"),
        ("no_such_module", "no_such_module is not installed"),
    ],
)
def test_a_failed_import_names_the_package_and_what_to_do(module: str, said: str) -> None:
    error = raised(lambda: __import__(module))
    expected = (
        rf"^ModuleNotFoundError: No module named '{module}'; at start; {said}: `pip install lmms-fixattn` .*check`$"
    )
    assert re.search(expected, explained(error, "; at start"), re.IGNORECASE)
    assert not is_told(error)


def test_a_traceback_goes_to_a_file_of_the_users_own(temporary: Path) -> None:
    error = raising(TypeError("no\nnumber \udcff"), KeyError("column"))
    where = write_down(error, {"documents": "document 3, document 4"})
    (path,) = temporary.iterdir()
    assert where == f"traceback in {path}"
    assert re.fullmatch(r"lmms-fixattn-error-\d{8}-\d{6}-\w+\.txt", path.name)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    written = path.read_text()
    assert "documents: document 3, document 4\n" in written
    assert versions.described() in written
    assert written.count("Traceback (most recent call last)") == 2
    assert "KeyError: 'column'" in written
    assert "raise error from cause" in written
    write_down(error)
    assert len(list(temporary.iterdir())) == 2


def test_tracebacks_go_to_the_end_of_the_log_of_the_nearest_block(tmp_path: Path, temporary: Path) -> None:
    outer, inner = tmp_path / "outer.txt", tmp_path / "new" / "inner.txt"
    outer.write_text("before\n")

    def nested() -> None:
        with pytest.raises(StoppedError, match=rf"traceback in {inner}$"), readable_failures(inner):
            trip()
        with readable_failures():
            {}["column"]

    with pytest.raises(StoppedError, match=rf"traceback in {outer}$"), readable_failures(outer):
        nested()
    assert outer.read_text().startswith("before\n2")
    assert ("KeyError" in outer.read_text(), "TypeError" in outer.read_text()) == (True, False)
    assert ("KeyError" in inner.read_text(), "TypeError" in inner.read_text()) == (False, True)
    with pytest.raises(StoppedError, match="temporary/lmms-fixattn-error"), readable_failures():
        trip()
    assert len(list(temporary.iterdir())) == 1


def test_what_is_explained_already_passes_as_it_is(temporary: Path) -> None:
    for function in (*OURS, *THE_SYSTEMS):
        error = raised(function)
        with pytest.raises(type(error)) as caught, readable_failures():
            raise error
        assert caught.value is error
    with pytest.raises(StoppedError) as caught, readable_failures(), readable_failures():
        trip()
    assert str(caught.value).count("traceback in") == 1
    assert len(list(temporary.iterdir())) == 1
    with pytest.raises(KeyboardInterrupt), readable_failures():
        raise KeyboardInterrupt


@pytest.mark.parametrize("log", ["", "log.txt"])
def test_where_no_file_can_be_written_the_traceback_is_logged(
    log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from loguru import logger

    nowhere = tmp_path / "file"
    nowhere.write_text("")  # no folder, so that not even root can write into it
    monkeypatch.setattr(tempfile, "tempdir", str(nowhere))
    sink = logger.add(sys.stderr)
    try:
        match = "traceback above, as no file could be written"
        with pytest.raises(StoppedError, match=match), readable_failures(nowhere / log if log else None):
            trip()
    finally:
        logger.remove(sink)
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    assert nowhere.read_text() == ""
