"""Read a sweep's configuration: which model, which tasks, which cells. Everything in it is checked here."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lmms_fixattn.errors import UserError, did_you_mean
from lmms_fixattn.methods import METHODS, Method, make_method
from lmms_fixattn.report.paper_tables import FIGURES, LAYOUTS

MODEL_ARGS = (
    "pretrained", "revision", "conversation", "dtype", "device", "device_map", "batch_size", "attn_implementation",
    "load_in_4bit", "load_in_8bit", "compile",
)  # fmt: skip
"""The arguments of llava_fixattn that a sweep sets once for all cells."""

_SHIPPED = Path(__file__).with_name("sweeps")
_KEYS = ("model", "tasks", "limit", "baseline", "layout", "cells", "grid")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,79}")


@dataclass(frozen=True)
class Cell:
    """One run of a sweep: a method with its hyper-parameters.

    Attributes:
        given: the hyper-parameters that the configuration names; the others have their defaults.
        published: figures that a paper prints for this cell, in percent.
    """

    name: str
    method: Method
    given: Mapping[str, Any] = field(default_factory=dict)
    published: Mapping[str, float] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The name of the cell's folder."""
        return self.name.replace(" ", "_")


@dataclass(frozen=True)
class SweepPlan:
    """A sweep, checked.

    Attributes:
        name: of the configuration.
        model: arguments of llava_fixattn that hold for all cells, among :data:`MODEL_ARGS`.
        limit: documents of each task; None is all.
        baseline: name of the cell that the others are compared with.
        layout: name of a paper's table in :data:`lmms_fixattn.report.paper_tables.LAYOUTS`.
    """

    name: str
    model: Mapping[str, Any]
    tasks: tuple[str, ...]
    limit: int | None
    baseline: str
    layout: str | None
    cells: tuple[Cell, ...]


def shipped() -> list[str]:
    """Return the names of the configurations in this package."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def read_plan(config: str, limit: int | None = None) -> SweepPlan:
    """Read a configuration.

    Args:
        config: a path, or the name of a shipped one (:func:`shipped`).
        limit: takes the place of the configuration's own.

    Raises:
        UserError: no such file, an unknown key, method, hyper-parameter or value, two cells of one name, no cells. The
            message names the file and the place in it.
    """
    path = _find(config)
    try:
        given = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: no YAML: {' '.join(str(error).split())}") from None
    try:
        return _plan(path.stem, given, limit)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _find(config: str) -> Path:
    path = Path(config).expanduser()
    if path.is_file():
        return path
    if config not in shipped():
        hint = did_you_mean(config, shipped())
        raise UserError(f"{config}: no such file{hint}; shipped configurations: {', '.join(shipped())}")
    return _SHIPPED / f"{config}.yaml"


def _plan(name: str, given: Any, limit: int | None) -> SweepPlan:
    _check_mapping("the configuration", given, _KEYS, required=("model", "tasks"))
    model = given["model"]
    _check_mapping("model", model, MODEL_ARGS, required=("pretrained",))
    for key, value in model.items():
        if not isinstance(value, str | int | float):
            raise ValueError(f"model: {key} must be a word or a number, got {value!r}")
    cells = [*_listed_cells(given.get("cells", [])), *_grid_cells(given.get("grid", []))]
    if not cells:
        raise ValueError("expected cells: (a list) or grid: (lists of hyper-parameters), so that there is one cell")
    _check_distinct(cells)
    tasks = _tasks(given["tasks"])
    layout = given.get("layout")
    if layout is not None:
        _check_known("layout", layout, LAYOUTS)
        if not any(task.startswith("chair_") for task in tasks):
            raise ValueError(f"layout: {layout} shows CHAIR; tasks must hold a chair_... task, got {', '.join(tasks)}")
    baseline = _check_known("baseline", given.get("baseline", cells[0].name), [cell.name for cell in cells])
    limit = given.get("limit") if limit is None else limit
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ValueError(f"limit: expected a whole number of documents of at least 1, got {limit!r}")
    return SweepPlan(name, dict(model), tasks, limit, baseline, layout, tuple(cells))


def _tasks(given: Any) -> tuple[str, ...]:
    names = [given] if isinstance(given, str) else given
    words = isinstance(names, list) and all(isinstance(name, str) and name.split() == [name] for name in names)
    if not words or not names:
        raise ValueError(f"tasks: expected a list of lmms-eval's task names, got {given!r}")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"tasks: {twice[0]} is named twice")
    return tuple(names)


def _listed_cells(given: Any) -> Iterable[Cell]:
    if not isinstance(given, list):
        raise ValueError(f"cells: expected a list of mappings, got {given!r}")
    for number, entry in enumerate(given, start=1):
        place = f"cells, entry {number}"
        _check_mapping(place, entry, None, required=("name", "method"))
        published = entry.get("published", {})
        _check_mapping(f"{place}: published", published, FIGURES)
        for key, value in published.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{place}: published {key} must be a number, got {value!r}")
        values = {key: value for key, value in entry.items() if key not in ("name", "published")}
        yield _cell(place, str(entry["name"]), values, published)


def _grid_cells(given: Any) -> Iterable[Cell]:
    """Yield a cell for every combination of the listed values; the name says the method and what is listed."""
    grids = [given] if isinstance(given, Mapping) else given
    if not isinstance(grids, list):
        raise ValueError(f"grid: expected a mapping or a list of mappings, got {given!r}")
    for number, grid in enumerate(grids, start=1):
        place = f"grid, entry {number}"
        _check_mapping(place, grid, None, required=("method",))
        if "name" in grid:
            raise ValueError(f"{place}: cells of a grid are named by what varies; leave out name, or list the cells")
        listed = {key: value for key, value in grid.items() if isinstance(value, list)}
        if empty := [key for key, value in listed.items() if not value]:
            raise ValueError(f"{place}: {empty[0]} is an empty list, so the grid has no cells")
        for combination in itertools.product(*listed.values()):
            chosen = dict(zip(listed, combination, strict=True))
            values = {**grid, **chosen}
            varied = [f"{key} {value}" for key, value in chosen.items() if key != "method"]
            yield _cell(place, " ".join([str(values["method"]), *varied]), values, {})


def _cell(place: str, name: str, values: Mapping[str, Any], published: Mapping[str, float]) -> Cell:
    if not _NAME.fullmatch(name) or name.endswith((" ", ".")):
        raise ValueError(
            f"{place}: a name has letters, digits, spaces and . _ + -, begins with a letter or digit and has at most "
            f"80 characters, got {name!r}"
        )
    method, given = values["method"], {key: value for key, value in values.items() if key != "method"}
    if not isinstance(method, str):
        raise ValueError(f"{place} ({name}): method must be one of {', '.join(METHODS)}, got {method!r}")
    try:
        return Cell(name, make_method(method, **given), given, dict(published))
    except ValueError as error:
        raise ValueError(f"{place} ({name}): {error}") from None


def _check_distinct(cells: Iterable[Cell]) -> None:
    seen: dict[str, Cell] = {}
    for cell in cells:
        # Some file systems do not tell a from A.
        if (other := seen.setdefault(cell.folder.lower(), cell)) is not cell:
            raise ValueError(f"two cells are named alike: {other.name!r} and {cell.name!r}; names must differ")


def _check_known(place: str, given: Any, known: Collection[str]) -> str:
    if not isinstance(given, str) or given not in known:
        raise ValueError(f"{place}: unknown {given!r}{did_you_mean(given, known)}; expected one of {', '.join(known)}")
    return given


def _check_mapping(place: str, given: Any, known: Collection[str] | None, required: Iterable[str] = ()) -> None:
    if not isinstance(given, Mapping):
        raise ValueError(f"{place}: expected a mapping of names to values, got {given!r}")
    for key in given:
        if not isinstance(key, str):
            raise ValueError(f"{place}: expected words for keys, got {key!r}")
        if known is not None:
            _check_known(f"{place}: key", key, known)
    for key in required:
        if key not in given:
            raise ValueError(f"{place}: {key} is missing")


class _Loader(yaml.SafeLoader):
    """YAML in which only true and false are booleans, so that head_modulation: off is a word, and no key is twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if keys.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
        return super().construct_mapping(node, deep)


_BOOLEAN = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [resolver for resolver in resolvers if resolver[0] != _BOOLEAN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOLEAN, re.compile(r"^(?:true|false)$", re.IGNORECASE), list("tTfF"))
