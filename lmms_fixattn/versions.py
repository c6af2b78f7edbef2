"""The library versions that were tried, a clear word about any other, and the error where one does the unexpected."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

TRIED = {
    "lmms-eval": ("0.7.3", "0.7.3"),
    "torch": ("2.11.0", "2.15.0"),
    "transformers": ("5.17.0", "5.24.0"),
}
"""The lowest and the highest version of each library that the tests passed with."""
INSIST = "LMMS_FIXATTN_ANY_VERSION"
"""The environment variable that, set to 1, lets a run go on outside the bounds."""


class EngineError(RuntimeError):
    """transformers did something else than an intervention needs, so that no answer can be trusted.

    The message says what was expected, what came, and which versions are installed.
    """

    names_versions = True
    """Tells whoever reports an unexpected error that this one needs no further word on versions."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"{what}. No answer was made. Installed: {described()}; see what `lmms-fixattn check` says")


def installed() -> dict[str, str]:
    """Return the versions that a result depends on: this package, Python and the libraries.

    Where a run was insisted on outside the bounds, ``outside_bounds`` names the libraries that lie outside.
    """
    libraries = ("lmms-fixattn", *TRIED, "accelerate", "pycocotools", "tokenizers", "pillow", "numpy")
    found = {"python": ".".join(map(str, sys.version_info[:3])), **{name: version(name) for name in libraries}}
    outside = [library for library in TRIED if not _inside_bounds(library)]
    return {**found, "outside_bounds": ", ".join(outside)} if outside else found


def bounds(library: str) -> SpecifierSet:
    """Return the versions of a library that this package's own metadata allows."""
    for line in requires("lmms-fixattn") or ():
        requirement = Requirement(line)
        if requirement.name.replace("_", "-").lower() == library and not requirement.marker:
            return requirement.specifier
    return SpecifierSet()


def described() -> str:
    """Say of each library which version is installed and whether it was tried, in one line."""
    words = []
    for library in TRIED:
        try:
            words.append(f"{library} {version(library)} ({_standing(library)})")
        except PackageNotFoundError:
            words.append(f"{library} (not installed)")
    return ", ".join(words)


def check_versions() -> list[str]:
    """Refuse libraries outside the bounds; return a remark on each one inside them that was not tried.

    The environment variable ``LMMS_FIXATTN_ANY_VERSION=1`` insists: a refusal becomes a remark, and results record it.

    Raises:
        RuntimeError: a library lies outside the bounds; says what is installed, what to install, and how to insist.
    """
    remarks = []
    for library in TRIED:
        found = version(library)
        if not _inside_bounds(library):
            allowed = f"{library}{bounds(library)}"
            problem = f'{library} {found} is outside what lmms-fixattn works with: pip install "{allowed}"'
            if os.environ.get(INSIST) != "1":
                raise RuntimeError(
                    f"{problem}; to run it all the same, set {INSIST}=1 and see what `lmms-fixattn check` says"
                )
            remarks.append(f"{problem}; {INSIST}=1 insists: see what `lmms-fixattn check` says before you trust it")
        elif _standing(library) != "tried":
            remarks.append(
                f"{library} {found} is {_standing(library)}: run `lmms-fixattn check` before you trust the numbers"
            )
    return remarks


def _inside_bounds(library: str) -> bool:
    return bounds(library).contains(Version(version(library)).base_version)


def _standing(library: str) -> str:
    lowest, highest = TRIED[library]
    found = Version(version(library))
    if found.release < Version(lowest).release:
        return f"older than the oldest tried, {lowest}"
    if found.release > Version(highest).release:
        return f"newer than the newest tried, {highest}"
    return "tried"
