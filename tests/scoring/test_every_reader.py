"""Every reader against files with a changed value or broken bytes: another reading, or one line that refuses; soon."""

from __future__ import annotations

import ast
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from every_reader import OWN, READERS, Change, Reader, broken, changes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lmms_fixattn

pytestmark = [  # of tags that a picture can do without, and of large ones
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]

FEW, MANY = 60, 2000
LONGEST = 2.0  # seconds of a processor, of which a read takes thousandths: a busy machine is nobody's fault
PACKAGE = Path(lmms_fixattn.__file__).parent


def laid(reader: Reader, folder: Path) -> Path:
    """Write a reader's file, and what lies beside it, and return its path."""
    path = folder / reader.name
    path.parent.mkdir(parents=True, exist_ok=True)
    reader.prepare(folder)
    path.write_bytes(reader.written())
    return path


def read_or_refused(reader: Reader, path: Path, content: bytes) -> str | None:
    """Return all that is read of a content, None where it is refused as it should be."""
    path.write_bytes(content)
    found, refusal = None, ""
    start = time.process_time()
    try:
        found = repr(reader.read(path))
    except reader.errors as error:
        refusal = str(error)
    assert time.process_time() - start < LONGEST
    assert "\n" not in refusal
    assert len(refusal) < 2 * len(str(path)) + 1500
    return found


def spoil(name: str, folder: Path, examples: int, chance: st.DataObject | None = None) -> None:
    """Try so many spoiled files: half of them with a changed value, or none where only bytes can be spoiled."""
    each = examples // 2 if READERS[name].good else examples
    reader = READERS[name]
    path = laid(reader, folder)
    content = path.read_bytes()
    expected = repr(reader.read(path))

    @settings(max_examples=each, suppress_health_check=list(HealthCheck), database=None)
    @given(changes(reader), st.sampled_from(reader.writers))
    def a_changed_value_is_refused_or_seen(change: Change, write: Any) -> None:
        spoiled = write(change.content)
        same = change.silent or spoiled == write(reader.good)  # a table has no null, nor true beside "true"
        found = read_or_refused(reader, path, spoiled)
        assert same or found != expected, f"{name} read {change.content!r} as if nothing had changed"

    @settings(max_examples=each, suppress_health_check=list(HealthCheck), database=None)
    @given(broken(content))
    def broken_bytes_are_read_or_refused(spoiled: bytes) -> None:
        read_or_refused(reader, path, spoiled)

    if reader.good:
        a_changed_value_is_refused_or_seen()
    broken_bytes_are_read_or_refused()


@pytest.mark.parametrize("name", READERS)
def test_a_spoiled_file_is_refused_in_one_line_or_read_as_what_it_says(name: str, tmp_path: Path) -> None:
    spoil(name, tmp_path, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_two_thousand_spoiled_files_are_refused_in_one_line_or_read_as_what_they_say(name: str, tmp_path: Path) -> None:
    spoil(name, tmp_path, MANY)


OPENS = {"read_text", "read_bytes", "open", "load", "loads", "reader", "decompress", "safe_open", "load_file"}
OPENS |= {"read_entries", "read_object"}
MODULES = {"json", "yaml", "csv", "gzip", "Image", "os", "safetensors"}


def test_the_documentation_counts_what_is_tried() -> None:
    files = PACKAGE.parent / "docs" / "files.md"
    structured = sum(bool(reader.good) for reader in READERS.values())
    text = " ".join(files.read_text(encoding="utf-8").split())
    assert f"{len(READERS)} readers are tried" in text
    assert f"on {MANY:,} spoiled files each, {MANY * len(READERS):,} in all" in text
    assert f"{structured} of them" in text


def openers() -> Iterator[str]:
    """Yield the functions of the package that open or decode files, as module.Class.function."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield from _openers(ast.parse(path.read_text(encoding="utf-8")), module)


def _openers(node: ast.AST, place: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        inner = f"{place}.{child.name}" if isinstance(child, ast.FunctionDef | ast.ClassDef) else place
        if isinstance(child, ast.Call) and _opens(child):
            yield place
        yield from _openers(child, inner)


def _opens(call: ast.Call) -> bool:
    function = call.func
    name = ast.unparse(function)
    modes = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    if name == "os.open" or (name.endswith("open") and {"w", "a", "x"} & set(modes)):
        return False
    if isinstance(function, ast.Name):
        return function.id in OPENS - {"load", "reader"}
    if not isinstance(function, ast.Attribute) or function.attr not in OPENS:
        return False
    return function.attr not in ("load", "loads", "reader") or ast.unparse(function.value) in MODULES


def test_every_function_that_opens_a_file_is_gone_through_by_a_reader_here(tmp_path: Path) -> None:
    entered: set[str] = set()

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(PACKAGE)):
            module = ".".join(Path(frame.f_code.co_filename).relative_to(PACKAGE).with_suffix("").parts)
            entered.add(f"{module}.{getattr(frame.f_code, 'co_qualname', frame.f_code.co_name)}")

    for number, reader in enumerate(READERS.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = laid(reader, folder)
        contents = [write(reader.good) for write in reader.writers] if reader.good else [reader.content]
        for content in contents:
            path.write_bytes(content)
            sys.setprofile(note)
            try:
                reader.read(path)
            finally:
                sys.setprofile(None)
    found = set(openers())
    names = {name.rpartition(".")[2] for name in entered}  # Python 3.10 has no qualified names of frames
    forgotten = {
        name
        for name in found - OWN.keys()
        if name not in entered and (sys.version_info >= (3, 11) or name.rpartition(".")[2] not in names)
    }
    assert not sorted(forgotten), "a reader of these belongs in tests/support/every_reader.py"
    assert not OWN.keys() - found, "these open no file any more"
    assert not OWN.keys() & entered
