"""Set released runs against the baselines that were released with them: an index of files, group by group.

An index is a JSON list of files. Each has a "group", whose files are compared with each other and with no other, a
"name" in it, its "file" under one folder and the "method" that made it: "baseline" for exactly one file of every group;
those of report.controls.CONTROLS are its control runs.
It may have a "note" for the reader, "lines" (how many captions there must be), the "sha256" of the content, unpacked
where it is gzipped, and where it was released: "repository" (owner/name on GitHub), "commit" and "path". The captions
themselves can stay where their authors put them.
"""

from __future__ import annotations

import gzip
import hashlib
import shlex
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from lmms_fixattn.errors import UserError, did_you_mean
from lmms_fixattn.report.compare import Comparison, Progress, Row, compare, to_json
from lmms_fixattn.report.controls import CONTROLS
from lmms_fixattn.report.runs import Run, read_run
from lmms_fixattn.report.verdict import FEWEST_IMAGES, Standing, standing
from lmms_fixattn.scoring import bootstrap, chair
from lmms_fixattn.scoring.files.entries import read_entries
from lmms_fixattn.scoring.truncation import Truncation

BASELINE = "baseline"
_NEEDED = ("group", "name", "file", "method")
_ORIGIN = ("repository", "commit", "path")
_FORM = '{"group", "name", "file", "method"}'


@dataclass(frozen=True)
class Entry:
    """One file of an index; "" and None for what it does not say."""

    group: str
    name: str
    file: str
    method: str
    note: str = ""
    repository: str = ""
    commit: str = ""
    path: str = ""
    sha256: str = ""
    lines: int | None = None


@dataclass(frozen=True)
class Line:
    """A method in the table.

    Attributes:
        beyond: what it does beyond its baseline cut to its recall.
        stands: the verdict's word; None for too few images, or too many captions without objects, to conclude from.
        holm: p of CHAIR_s beyond brevity being 0 or more, after Holm over the methods of its group.
        holm_of_all: the same after Holm over all methods of all groups.
    """

    entry: Entry
    row: Row
    beyond: Truncation
    stands: Standing | None
    holm: float
    holm_of_all: float

    @property
    def word(self) -> str:
        """What a table says of it; "alone" where it is better by itself and not among so many methods of its group."""
        if self.stands is None:
            return "no verdict" if self.row.kinds.get("captions") == "withheld" else "too few images"
        return "better, alone" if self.stands == "better" and self.holm > 1 - bootstrap.LEVEL else self.stands


@dataclass(frozen=True)
class Group:
    """Files that were released together; lines: its methods, in the index's order."""

    name: str
    baseline: Entry
    comparison: Comparison
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Evidence:
    """Every group of an index, in its order.

    Attributes:
        methods: how many there are, of all groups: the family of Line.holm_of_all.
        settings: analyser, draws, seed, level.
    """

    groups: tuple[Group, ...]
    methods: int
    settings: Mapping[str, Any] = field(default_factory=dict)


def read_index(path: Path) -> list[Entry]:
    """Return the files of an index. UserError where it has another form, or a group has no baseline or no method."""
    entries, places = [], set()
    for place, given in read_entries(path, _FORM):
        entry = _entry(place, given)
        if (entry.group, entry.name) in places:
            raise UserError(f"{place}: a second {entry.name!r} in the group {entry.group!r}; name them apart")
        places.add((entry.group, entry.name))
        entries.append(entry)
    if not entries:
        raise UserError(f"{path}: no files; expected a list of {_FORM} objects")
    for group, files in _grouped(entries).items():
        baselines = [entry.name for entry in files if entry.method == BASELINE]
        if len(baselines) != 1 or len(files) < 2:
            found = f"{len(baselines)} ({', '.join(baselines) or 'none'}) among {len(files)} files"
            raise UserError(
                f"{path}: the group {group!r} needs one file of method {BASELINE!r} and others beside it, not {found}"
            )
    return entries


def _entry(place: str, given: Mapping[str, Any]) -> Entry:
    known = [field.name for field in fields(Entry)]
    for key, value in given.items():
        if key not in known:
            raise UserError(f"{place}: {key!r} is none of the keys {', '.join(known)}{did_you_mean(key, known)}")
        if key == "lines" and (type(value) is not int or value < 1):
            raise UserError(f"{place}: 'lines' must be how many captions the file has, not {value!r}")
        if key != "lines" and (not isinstance(value, str) or not value.strip()):
            raise UserError(f"{place}: {key!r} must be text, not {value!r}")
    if lacking := [key for key in _NEEDED if key not in given]:
        raise UserError(f"{place}: no key {lacking[0]!r}; a file needs {', '.join(_NEEDED)}")
    if PurePosixPath(given["file"]).is_absolute() or ".." in PurePosixPath(given["file"]).parts:
        raise UserError(f"{place}: 'file' must lie under the index's folder, not at {given['file']!r}")
    if (stated := [key for key in _ORIGIN if key in given]) and len(stated) < len(_ORIGIN):
        raise UserError(f"{place}: {', '.join(_ORIGIN)} go together; only {', '.join(stated)} is there")
    return Entry(**given)


def fetch_commands(entries: Sequence[Entry], folder: Path) -> Iterator[str]:
    """Yield a shell command for each file, which gets it from where it was released.

    UserError where the index does not say where a file was.
    """
    for entry in entries:
        if not entry.repository:
            raise UserError(f"{entry.file}: the index does not say its repository, commit and path")
        address = f"https://raw.githubusercontent.com/{entry.repository}/{entry.commit}/{quote(entry.path)}"
        yield f"curl -fL --create-dirs -o {shlex.quote(str(folder / entry.file))} {shlex.quote(address)}"


def read_files(entries: Sequence[Entry], folder: Path) -> list[Run]:
    """Return the runs of an index's files, which lie in a folder as the index says, or with .gz behind that.

    Raises UserError where one is missing, has another content or number of captions than the index says, or is no
    captions; nothing is left out.
    """
    paths = [_path(folder, entry) for entry in entries]
    if missing := [entry for entry, path in zip(entries, paths, strict=True) if path is None]:
        raise UserError(
            f"{len(missing)} of {len(entries)} files are not in {folder}, the first is {missing[0].file}"
            + ("; --commands prints the commands that get them" if missing[0].repository else "")
        )
    return [_run(entry, path) for entry, path in zip(entries, paths, strict=True) if path is not None]


def _path(folder: Path, entry: Entry) -> Path | None:
    return next((path for path in (folder / entry.file, folder / f"{entry.file}.gz") if path.exists()), None)


def _run(entry: Entry, path: Path) -> Run:
    if entry.sha256 and (found := _sha256(path)) != entry.sha256.lower():
        raise UserError(f"{path}: not the released file: expected sha256 {entry.sha256}, got {found}")
    run = replace(read_run(f"{entry.name.replace('=', ' ')}={path}"), name=entry.name)
    captions = sum(map(len, run.captions.values()))
    if not captions:
        raise UserError(f"{path}: expected captions, and it holds none")
    if entry.lines is not None and captions != entry.lines:
        raise UserError(f"{path}: expected {entry.lines} captions, got {captions}")
    return run


def _sha256(path: Path) -> str:
    try:
        content = path.read_bytes()
        return hashlib.sha256(gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content).hexdigest()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


def gather(
    entries: Sequence[Entry],
    runs: Sequence[Run],
    truth: Mapping[int, frozenset[str]] | None,
    analyser: chair.Analyser,
    draws: int = bootstrap.DRAWS,
    seed: int = 0,
    progress: Progress = lambda items, _unit: items,
) -> Evidence:
    """Compare the runs of each group with its baseline.

    runs: those of the entries, in their order (read_files); the rest as for report.compare.compare. Raises UserError
    where a group's runs do not caption the same images, and as compare does.
    """
    having = dict(zip(entries, runs, strict=True))
    compared: list[tuple[Entry, list[Entry], Comparison]] = []
    for group, files in _grouped(entries).items():
        (baseline,) = (entry for entry in files if entry.method == BASELINE)
        controls = [entry.name for entry in files if entry.method in CONTROLS]
        named = [having[entry] for entry in files]
        try:
            found = compare(named, baseline.name, truth, analyser, draws, seed, progress=progress, controls=controls)
        except UserError as error:
            raise UserError(f"group {group!r}: {error}") from None
        compared.append((baseline, files, found))
    p_values = {
        (baseline.group, row.name): row.vs_truncation.p
        for baseline, _, comparison in compared
        for row in comparison.rows
        if row.vs_truncation is not None
    }
    of_all = dict(zip(p_values, bootstrap.holm(list(p_values.values())), strict=True))
    groups = []
    for baseline, files, comparison in compared:
        rows = {row.name: row for row in comparison.rows}
        lines = [_line(entry, rows[entry.name], of_all) for entry in files if entry is not baseline]
        groups.append(Group(baseline.group, baseline, comparison, tuple(lines)))
    settings = {"analyser": analyser.name, "draws": draws, "seed": seed, "level": bootstrap.LEVEL}
    return Evidence(tuple(groups), len(p_values), settings)


def _line(entry: Entry, row: Row, of_all: Mapping[tuple[str, str], float]) -> Line:
    if row.vs_truncation is None:
        raise ValueError(f"{entry.name} was not compared with the cuts")  # compare leaves out the baseline alone
    enough = (row.columns["n"].value or 0) >= FEWEST_IMAGES
    concludes = enough and row.kinds.get("captions") != "withheld"
    stands = standing(row.differences["chair_s"], row.vs_truncation) if concludes else None
    return Line(entry, row, row.vs_truncation, stands, row.holm["beyond"], of_all[entry.group, entry.name])


def _grouped(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.group, []).append(entry)
    return found


def evidence_json(evidence: Evidence) -> dict[str, Any]:
    """Return the evidence as JSON can hold it: of every file what the index says, and of every group its comparison."""
    return {
        "settings": dict(evidence.settings),
        "methods": evidence.methods,
        "groups": [
            {
                "group": group.name,
                "baseline": _stated(group.baseline),
                "methods": [
                    {"stands": line.stands, "holm_of_all": line.holm_of_all, **_stated(line.entry)}
                    for line in group.lines
                ],
                # The curves are most of a comparison's bytes, and no figure of a method.
                "comparison": {key: value for key, value in to_json(group.comparison).items() if key != "curve"},
            }
            for group in evidence.groups
        ],
    }


def _stated(entry: Entry) -> dict[str, Any]:
    return {key: value for key, value in asdict(entry).items() if value not in ("", None)}
