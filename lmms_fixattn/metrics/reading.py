"""Read the files that the offline metrics take: captions, their truth, yes/no answers.

A file's name says its form: .json holds one value, .jsonl one object a line; either may end in .gz as well. Whatever is
wrong with a file becomes a FileError that names the file and the line or entry.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from lmms_fixattn.hints import did_you_mean
from lmms_fixattn.metrics.coco_objects import CATEGORIES, NODE_WORD

_CAPTION = '{"image_id", "caption"} or AMBER\'s {"id", "response"}'
_EITHER = f'{_CAPTION} or {{"question", "label", "answer"}}'


class FileError(ValueError):
    """A file that is missing, unreadable or not of the expected form."""


class Caption(NamedTuple):
    """One caption of a file."""

    image_id: int
    text: str
    terminated: bool | None
    """Whether its generator ended it; None where the file does not say."""
    tokens: int | None = None
    """Generated tokens, None where the file does not say."""


def what_is_in(path: Path) -> str:
    """Return "captions" or "answers" by the first entry of a file; FileError where it is neither."""
    for place, entry in read_entries(path, _EITHER):
        if entry.keys() & {"caption", "response", "answer"}:
            return "answers" if "answer" in entry else "captions"
        raise FileError(
            f"{place}: expected {_EITHER}, not the keys {', '.join(map(repr, entry)) or 'of an empty object'}"
        )
    raise FileError(f"{path}: empty; expected {_EITHER} objects")


def read_captions(path: Path) -> list[Caption]:
    """Return the captions of a file of {"image_id", "caption"} objects, in order; other keys are ignored.

    An id is a number or a numeric string. A boolean "terminated" and a whole number "tokens" are kept. Raises FileError
    for anything else, for two captions of one image, and for a file without captions.
    """
    captions: list[Caption] = []
    places: dict[int, str] = {}
    for place, entry in read_entries(path, _CAPTION):
        amber = "response" in entry and "caption" not in entry
        id_key, text_key = ("id", "response") if amber else ("image_id", "caption")
        image_id = _image_id(_value(place, entry, id_key), place)
        text = _text(place, entry, text_key)
        terminated = entry.get("terminated")
        if not isinstance(terminated, bool | None):
            raise FileError(f"{place}: 'terminated' must be true, false or null, not {terminated!r}")
        tokens = entry.get("tokens")
        if tokens is not None and (isinstance(tokens, bool) or not isinstance(tokens, int)):
            raise FileError(f"{place}: 'tokens' must be a whole number or null, not {tokens!r}")
        if image_id in places:
            raise FileError(f"{place}: a second caption for image {image_id}, after {places[image_id]}; keep one")
        places[image_id] = place
        captions.append(Caption(image_id, text, terminated, tokens))
    if not captions:
        raise FileError(f"{path}: no captions; expected {_CAPTION} objects")
    return captions


def read_ground_truth(path: Path) -> dict[int, frozenset[str]]:
    """Return every image's true node words from a JSON file {image id: [node words]}.

    Raises FileError for another form and for a word that is no COCO category.
    """
    content = _json(path)
    if not isinstance(content, dict):
        raise FileError(f"{path}: expected one object {{image id: [node words]}}, not {_kind(content)}")
    truth: dict[int, frozenset[str]] = {}
    for key, words in content.items():
        place = f"{path}, image {key}"
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise FileError(f"{place}: expected a list of node words, not {json.dumps(words)[:80]}")
        for word in words:
            if word not in CATEGORIES:
                hint = did_you_mean(NODE_WORD.get(word, word), CATEGORIES)
                raise FileError(f"{place}: {word!r} is none of the 80 COCO categories{hint}")
        truth[_image_id(key, place)] = frozenset(words)
    return truth


def read_answers(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of {"question", "label", "answer"} objects, in order.

    A label is "yes" or "no". An "image_id", a number or a numeric string, and a text "split" are kept as well; other
    keys are ignored. Raises FileError for another form and for a file without answers.
    """
    rows: list[dict[str, Any]] = []
    for place, entry in read_entries(path, '{"question", "label", "answer"}'):
        row: dict[str, Any] = {key: _text(place, entry, key) for key in ("question", "label", "answer")}
        if row["label"] not in ("yes", "no"):
            raise FileError(f'{place}: \'label\' must be "yes" or "no", not {json.dumps(row["label"])}')
        if entry.get("image_id") is not None:
            row["image_id"] = _image_id(entry["image_id"], place)
        if entry.get("split") is not None:
            row["split"] = _text(place, entry, "split")
        rows.append(row)
    if not rows:
        raise FileError(f'{path}: no answers; expected {{"question", "label", "answer"}} objects')
    return rows


def read_entries(path: Path, form: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where it stands, object) for the objects of a .json list or of a .jsonl file."""
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix == ".json":
        content = _json(path)
        if not isinstance(content, list):
            raise FileError(f"{path}: expected a list of {form} objects, not {_kind(content)}")
        entries = ((f"{path}, entry {number}", entry) for number, entry in enumerate(content, start=1))
    elif suffix == ".jsonl":
        entries = (
            (f"{path}, line {number}", _parse(line, path, number))
            for number, line in enumerate(_read(path).split("\n"), start=1)
            if line.strip()
        )
    else:
        raise FileError(f"{path}: the name must end in .json or .jsonl (or either with .gz)")
    for place, entry in entries:
        if not isinstance(entry, dict):
            raise FileError(f"{place}: expected a {form} object, not {_kind(entry)}")
        yield place, entry


def _json(path: Path) -> Any:
    return _parse(_read(path), path, 1)


def _parse(text: str, path: Path, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise FileError(f"{path}, line {line}, column {error.colno}: malformed JSON: {error.msg}") from None


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise FileError(f"{path}: no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileError(f"{path}: not a complete gzip file: {error}") from None
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: not UTF-8 at byte {error.start}") from None


def _value(place: str, entry: dict[str, Any], key: str) -> Any:
    if key not in entry:
        near = get_close_matches(key, entry, n=1)
        hint = f"; did you mean {key!r} where it says {near[0]!r}?" if near else ""
        raise FileError(f"{place}: no key {key!r}, only {', '.join(map(repr, entry)) or 'an empty object'}{hint}")
    return entry[key]


def _text(place: str, entry: dict[str, Any], key: str) -> str:
    value = _value(place, entry, key)
    if not isinstance(value, str):
        raise FileError(f"{place}: {key!r} must be text, not {_kind(value)}")
    return value


def _image_id(value: Any, place: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    raise FileError(f"{place}: an image id must be a whole number, not {json.dumps(value)[:80]}")


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "a boolean", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")
