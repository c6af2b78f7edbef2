"""Read the entries of anybody's file, and the values in them, so that nothing of another type goes by unnoticed.

The content decides what a file is, never its name: one JSON value, JSON values one after another (one a line, as in
.jsonl and many a released .json), or a table of comma- or tab-separated columns under a header; any of them also
gzipped, and with a byte order mark. Whatever is wrong becomes a UserError that names the file and the line or entry.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from lmms_fixattn.errors import UserError
from lmms_fixattn.scoring.files.image_names import coco_id

_OTHERS = {
    b"\xff\xfe": "UTF-16; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
    b"PK\x03\x04": "a zip archive; unpack it",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}
"""How files begin that are taken for text by mistake, and what they are."""

_LARGEST = 2**63 - 1  # what data sets and arrays can hold


def read_entries(path: Path, form: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where it stands, object) for the objects of a file: of a JSON list, one a line, or the rows of a table.

    The sentences of an object with "sentences", which is what the reference CHAIR scorer writes, are its entries.
    """
    text = _read(path)
    if not text.strip():
        return
    entries = _json_entries(text, path, form) if text.lstrip()[0] in "[{" else _table(text, path)
    for place, entry in entries:
        if not isinstance(entry, dict):
            raise UserError(f"{place}: expected a {form} object, not {kind(entry)}")
        yield place, entry


def read_object(path: Path, form: str) -> dict[str, Any]:
    """Return the one JSON object that a file holds."""
    content = _whole(_read(path), path)
    if len(content) != 1 or not isinstance(content[0][1], dict):
        found = kind(content[0][1]) if len(content) == 1 else f"{len(content)} values"
        raise UserError(f"{path}: expected one object {form}, not {found}")
    return dict(content[0][1])


def overall_metrics(path: Path, names: Collection[str]) -> dict[str, float]:
    """Return those of these names that an object with "sentences" states as its "overall_metrics"; {} of another file.

    Raises UserError for one that is no finite number.
    """
    text = _read(path)
    content = _whole(text, path)[0][1] if text.lstrip().startswith("{") and '"overall_metrics"' in text else None
    if not isinstance(content, dict) or not isinstance(content.get("sentences"), list):
        return {}
    metrics = content.get("overall_metrics")
    if not isinstance(metrics, dict):
        raise UserError(f"{path}: 'overall_metrics' must be an object, not {kind(metrics)}")
    return {
        name: number(metrics[name], f"{path}", f"{name!r} of 'overall_metrics'") for name in names if name in metrics
    }


def number(value: Any, place: str, what: str) -> float:
    """Return a number from 0 to 2**63 - 1; UserError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LARGEST:
        raise UserError(f"{place}: {what} must be a number from 0 to 2**63 - 1, not {shown(value)}")
    return float(value)


def whole_number(value: Any, place: str, what: str) -> int:
    """Return a whole number from 0 to 2**63 - 1, given as one or as text of digits; UserError for anything else."""
    if isinstance(value, str) and value.isascii() and value.strip().isdecimal() and len(value) < 100:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST:
        raise UserError(f"{place}: {what} must be a whole number from 0 to 2**63 - 1, not {shown(value)}")
    return value


def image_number(value: Any, place: str) -> int:
    """Return an image's id: a whole number, or a file name that states one as COCO's do; UserError for anything else.

    42, "42", "000000000042.jpg", "val2014/COCO_val2014_000000000042.jpg" are image 42; "cam1_0007.png" is no number.
    """
    if not isinstance(value, str) or value.strip().isdecimal():
        return whole_number(value, place, "an image id")
    if (image_id := coco_id(value)) is None:
        raise UserError(
            f"{place}: an image id must be a whole number or a file name such as COCO_val2014_000000000042.jpg, not "
            f"{shown(value)}"
        )
    return image_id


def text_of(value: Any, place: str, what: str) -> str:
    """Return a text; UserError for anything else."""
    if not isinstance(value, str):
        raise UserError(f"{place}: {what} must be text, not {kind(value)}")
    return value


def kind(value: Any) -> str:
    """Return what a JSON value is, in words."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: "a boolean", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")


def shown(value: Any) -> str:
    """Return the beginning of a JSON value, for a message."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _LARGEST:
        return "a number beyond them"
    if isinstance(value, dict | list):
        return kind(value)
    written = json.dumps(value)
    return written if len(written) <= 80 else f"{written[:77]}..."


def _json_entries(text: str, path: Path, form: str) -> Iterator[tuple[str, Any]]:
    values = _whole(text, path)
    _, value = values[0]
    if len(values) > 1 or not isinstance(value, dict | list):
        yield from ((f"{path}, line {number}", value) for number, value in values)
    elif isinstance(value, list):
        yield from ((f"{path}, entry {place}", entry) for place, entry in enumerate(value, start=1))
    elif isinstance(value.get("sentences"), list):
        yield from ((f"{path}, sentence {place}", entry) for place, entry in enumerate(value["sentences"], start=1))
    elif value and all(key.strip().isdecimal() for key in value):
        raise UserError(f"{path}: expected a list of {form} objects, not one object by image id")
    else:
        yield f"{path}, line {values[0][0]}", value


def _table(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    header = text.lstrip().split("\n", 1)[0]
    delimiter = "\t" if "\t" in header else ","
    if delimiter not in header:
        raise UserError(
            f"{path}: expected a JSON list, JSON lines (.json or .jsonl), or a table (.csv, .tsv) whose first line "
            f"names its columns, not {shown(header.strip())}"
        )
    rows = csv.reader(io.StringIO(text.lstrip(), newline=""), delimiter=delimiter, strict=True)
    skipped = text[: len(text) - len(text.lstrip())].count("\n")
    try:
        columns = [column.strip() for column in next(rows)]
        if twice := [column for column in columns if columns.count(column) > 1]:
            raise UserError(f"{path}, line {skipped + 1}: two columns are called {twice[0]!r}")
        first = skipped + rows.line_num + 1
        for row in rows:
            place, first = f"{path}, line {first}", skipped + rows.line_num + 1
            if not row:
                continue
            if len(row) != len(columns):
                raise UserError(f"{place}: {len(row)} cells under {len(columns)} columns")
            yield place, {column: _cell(column, cell) for column, cell in zip(columns, row, strict=True)}
    except csv.Error as error:
        raise UserError(f"{path}, line {skipped + rows.line_num}: malformed table: {error}") from None


def _cell(column: str, cell: str) -> Any:
    """Return what a cell of a table says in the words of JSON; what is a text stays one, though it be empty."""
    if column == "terminated":
        return {"true": True, "false": False, "": None}.get(cell.strip().lower(), cell)
    if column == "tokens" and cell.strip().isdecimal() and len(cell) < 20:
        return int(cell)
    return None if not cell and column in ("tokens", "image_id", "image", "question_id", "split", "category") else cell


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(found := dict(pairs)) < len(pairs):
        raise KeyError(next(key for key in found if keys.count(key) > 1))
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
_BLANK = re.compile(r"[ \t\r\n]*")


def _whole(text: str, path: Path) -> list[tuple[int, Any]]:
    """Return (line, value) of the JSON values of a text; UserError for a malformed one."""
    found: list[tuple[int, Any]] = []
    end, line = 0, 1
    try:
        while True:
            start = _BLANK.match(text, end).end()  # type: ignore[union-attr]  # it matches nothing, too
            line += text.count("\n", end, start)
            if found and start == len(text):
                return found
            value, end = _DECODER.raw_decode(text, start)
            found.append((line, value))
            line += text.count("\n", start, end)
    except json.JSONDecodeError as error:
        wrong = f"malformed JSON: {error.msg}"
        raise UserError(f"{path}, line {error.lineno}, column {error.colno}: {wrong}") from None
    except KeyError as error:
        wrong = f"an object has the key {error} twice; keep one"
    except RecursionError:
        wrong = "lists or objects are nested too deep to read"
    except ValueError:
        wrong = "a number has too many digits to read"
    raise UserError(f"{path}, line {line}: {wrong}")


def _read(path: Path) -> str:
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UserError(f"{path}: a pipe or a device, of which a part would be read; write it to a file")
        content = path.read_bytes()
        if path.suffix == ".gz" or content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file or folder") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: not a complete gzip file: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        what = next((f", but {what}" for start, what in _OTHERS.items() if content.startswith(start)), "")
        raise UserError(f"{path}: not UTF-8 at byte {error.start}{what}") from None
