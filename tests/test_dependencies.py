"""What pyproject.toml declares: all that the package imports, nothing without a reason, and each in the lock."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterable
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUNTIME = {canonicalize_name(line.name): line for line in map(Requirement, PROJECT["dependencies"])}
DEV = {canonicalize_name(line.name): line for line in map(Requirement, PROJECT["optional-dependencies"]["dev"])}
OURS = sorted((ROOT / "lmms_fixattn").rglob("*.py"))
LOCK = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
PYTHONS = ("3.10.13", "3.11.7", "3.12.1", "3.13.0")

FOR_LMMS_EVAL = {"dill", "pytz"}
"""What lmms-eval 0.7.3 imports at start and does not declare: there only while others happen to need it."""


def imported_by(files: Iterable[Path]) -> set[str]:
    """Names of the top-level modules that files import, inside functions too, but for Python's own and ours."""
    found = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"lmms_fixattn"}


@functools.cache
def bringers() -> dict[str, set[str]]:
    """Names of the distributions that bring a top-level module, by their lists of files.

    importlib.metadata.packages_distributions knows few of them in Python 3.10.
    """
    found: dict[str, set[str]] = {}
    for distribution in distributions():
        name = canonicalize_name(distribution.name)
        # Not distribution.files, which makes a path of each of tens of thousands.
        for line in (distribution.read_text("RECORD") or "").splitlines():
            file = line.partition(",")[0]
            if file.endswith((".py", ".so")):
                module = file.partition("/")[0].partition(".")[0]
                found.setdefault(module, set()).add(name)
    return found


def locked(python: str) -> dict[str, Version]:
    """Versions that the lock names for a Python on Linux."""
    environment = {
        "python_version": python.rpartition(".")[0],
        "python_full_version": python,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    found = {}
    for line in LOCK:
        if line.marker is None or line.marker.evaluate(environment):
            name = canonicalize_name(line.name)
            assert name not in found, f"two versions of {name} for Python {python}"
            (pin,) = line.specifier
            assert pin.operator == "==", f"{line} is not an exact version"
            found[name] = Version(pin.version)
    return found


def test_everything_that_the_package_imports_is_declared():
    modules = imported_by(OURS)
    assert {"torch", "transformers", "yaml", "filelock"} <= modules
    assert not {module for module in modules if not bringers()[module] & RUNTIME.keys()}


def test_everything_that_is_declared_is_imported_by_the_package_or_needed_by_lmms_eval():
    brought = set().union(*(bringers()[module] for module in imported_by(OURS)))
    assert RUNTIME.keys() - brought == FOR_LMMS_EVAL


def test_what_is_declared_for_lmms_eval_alone_is_what_it_imports():
    (folder,) = find_spec("lmms_eval").submodule_search_locations
    files = [path for path in Path(folder).rglob("*.py") if not {"tasks", "models"} & set(path.parts)]
    brought = set().union(*(bringers().get(module, set()) for module in imported_by(files)))
    assert brought >= FOR_LMMS_EVAL


def test_what_the_package_hooks_into_has_an_upper_bound():
    for name in ("transformers", "lmms-eval"):
        assert "<" in {bound.operator for bound in RUNTIME[name].specifier}


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_has_every_dependency_at_a_version_inside_its_bounds(python):
    versions = locked(python)
    for name, line in (RUNTIME | DEV).items():
        assert name in versions, f"constraints.txt lacks {name}: run .ci/lock"
        assert versions[name] in line.specifier, f"constraints.txt has {name} {versions[name]}: run .ci/lock"
    assert {"pip", "setuptools", "wheel"} <= versions.keys()


def test_the_lock_names_no_place_that_packages_come_from():
    text = (ROOT / "constraints.txt").read_text()
    assert not any(mark in text for mark in ("://", "--", " @ ", "["))
