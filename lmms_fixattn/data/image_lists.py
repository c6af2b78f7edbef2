"""Frozen lists of image ids: a run's images never come from a directory listing."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from lmms_fixattn.data import DataError
from lmms_fixattn.errors import did_you_mean

HUB = "hub"
OF_FOLDER = ("all", "sample")
"""In place of a list's name: the hub's own images; all that a COCO folder has, or some of them (tasks.chair)."""

_MOST_DIGITS = 19  # of what data sets hold, 2**63 - 1
_SHIPPED = Path(__file__).with_name("lists")


@dataclass(frozen=True)
class ImageList:
    """Name a set of image ids; `ids` ascend, so that equal sets have equal digests and equal document order."""

    name: str
    ids: tuple[int, ...]

    @property
    def sha256(self) -> str:
        """Digest the canonical form: the ids in ascending order, in decimal, each followed by a newline."""
        return hashlib.sha256("".join(f"{image_id}\n" for image_id in self.ids).encode()).hexdigest()


def names() -> tuple[str, ...]:
    """Return the names of the lists in the package."""
    return tuple(sorted(path.stem for path in _SHIPPED.glob("*.txt")))


def load(name_or_path: str | Path) -> ImageList:
    """Load a list of the package by its name, or any file of ids by its path.

    A file holds one id a line; blank lines are skipped. A file's list is named after the file, without its suffix.

    Raises:
        DataError: neither a name nor a file; a line that is no id or repeats one (with its number); no id at all.
    """
    text = str(name_or_path)
    path = _SHIPPED / f"{text}.txt" if text in names() else Path(text).expanduser()
    if not path.is_file():
        words = (*names(), *OF_FOLDER, HUB)
        raise DataError(
            f"image list {text!r} is neither a file nor one of {', '.join(words)}{did_you_mean(text, words)}"
        )
    return ImageList(path.stem, _read(path))


def sample(name: str, ids: Collection[int], count: int = 500, seed: int = 0) -> ImageList:
    """Draw a list of `count` of these ids by a seed (all of them where there are fewer)."""
    drawn = random.Random(seed).sample(sorted(ids), min(count, len(ids)))
    return ImageList(name, tuple(sorted(drawn)))


def _read(path: Path) -> tuple[int, ...]:
    first_line: dict[int, int] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected one image id a line, but this is no text file ({error})") from error
    for number, line in enumerate(lines, start=1):
        word = line.strip()
        if not word:
            continue
        if not (word.isascii() and word.isdigit() and len(word) < _MOST_DIGITS):
            raise DataError(f"{path}, line {number}: expected an image id such as 310196, not {word[:80]!r}")
        if int(word) in first_line:
            raise DataError(f"{path}, line {number}: image id {int(word)} is already on line {first_line[int(word)]}")
        first_line[int(word)] = number
    if not first_line:
        raise DataError(f"{path}: expected one image id a line, found none")
    return tuple(sorted(first_line))
