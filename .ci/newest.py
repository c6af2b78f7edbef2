"""Run the tests on the newest release of everything, and find by experiment which upgrade makes them fail.

Two environments are made in .newest/: one with the newest releases that pip finds, and, where tests fail there, one
with the versions of constraints.txt. In the second one package at a time is upgraded, with what it needs, and the tests
that failed are run again. They are first run again in both as they are, so that neither a test that fails now and then
nor one that fails on the lock is held against a package.

A constraint in pip's own configuration stays in force: it caps what is the newest here.

Exit code: 0 when the tests passed, 1 when some failed, 2 when nothing could be said.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / ".newest"
PLUGINS = ROOT / ".ci"
LOCK = ("--constraint", "constraints.txt")
TOOLS = ("pip", "setuptools", "wheel")
SESSION = "the whole test session"
"""What stands for all tests where pytest could not run any."""

DECLARED = 'import json, importlib.metadata as m; print(json.dumps(m.requires("lmms-fixattn")))'
LOCKED = """
import json
from packaging.requirements import Requirement
lines = [Requirement(line) for line in open("constraints.txt").read().splitlines() if not line.startswith("#")]
valid = [line for line in lines if line.marker is None or line.marker.evaluate()]
print(json.dumps({line.name: str(line.specifier).removeprefix("==") for line in valid}))
"""

Versions = dict[str, str]


class NoVerdictError(Exception):
    """Says why the packages could not be judged."""


def name_of(requirement: str) -> str:
    """Return the name in a requirement, as package indexes spell it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()


def to_install(declared: Iterable[str], *, beyond_bounds: bool) -> list[str]:
    """Return what to ask pip for: the tools, and what is declared, with the dev extra; beyond the bounds its names."""
    lines = [line.partition(";")[0].strip() for line in declared if "extra ==" not in line or "dev" in line]
    return [*TOOLS, *(map(name_of, lines) if beyond_bounds else lines)]


def moved(before: Versions, after: Versions) -> frozenset[str]:
    """Return the packages that are in both at another version."""
    return frozenset(name for name in before.keys() & after.keys() if before[name] != after[name])


def still_failing(failed: frozenset[str], again: Iterable[str]) -> frozenset[str]:
    """Return which of the failed tests failed again. A file that cannot be imported stands for its tests."""
    again = set(again)
    again |= {test.partition("::")[0] for test in again if test.partition("::")[0] in failed}
    return frozenset(test for test in failed if test in again or test.partition("::")[0] in again)


@dataclass(frozen=True)
class Trial:
    """One upgrade on top of the lock: all packages that moved with it, and the tests that failed again."""

    name: str
    moved: frozenset[str]
    failed: frozenset[str]


def unexplained(failed: frozenset[str], trials: Iterable[Trial]) -> frozenset[str]:
    """Return the failed tests that failed in no trial."""
    return failed.difference(*(trial.failed for trial in trials))


def worth_trying(name: str, direct: Sequence[str], failed: frozenset[str], trials: Sequence[Trial]) -> bool:
    """Say whether to try an upgrade: not where it moved along and nothing failed.

    What the project itself asks for is always tried, the rest only while there are failures without a culprit.
    """
    cleared = any(name in trial.moved and not trial.failed for trial in trials)
    return not cleared and (name in direct or bool(unexplained(failed, trials)))


def culprits(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials in which tests failed, without those whose failures a part of the same upgrade explains."""
    guilty = [trial for trial in trials if trial.failed]
    return [t for t in guilty if not any(part.moved < t.moved and t.failed <= part.failed for part in guilty)]


@dataclass
class Environment:
    """A virtual environment with the package in it, editable."""

    folder: Path

    def run(self, *arguments: str) -> str:
        done = subprocess.run([self.folder / "bin/python", *arguments], capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise NoVerdictError(
                "\n".join([f"failed: python {' '.join(arguments)}", *(errors or [done.stderr.strip()])])
            )
        return done.stdout

    def install(self, *arguments: str) -> None:
        self.run("-m", "pip", "install", "--quiet", *arguments)

    def make(self, *constraints: str) -> list[str]:
        """Make it with pip and this package alone; return the requirements that the package declares."""
        subprocess.run([sys.executable, "-m", "venv", self.folder], check=True)
        self.install("--upgrade", "pip", *constraints)
        self.install("--no-deps", "--editable", ".")
        declared: list[str] = json.loads(self.run("-c", DECLARED))
        return declared

    def versions(self) -> Versions:
        found = json.loads(self.run("-m", "pip", "list", "--format", "json", "--exclude-editable"))
        return {name_of(line["name"]): line["version"] for line in found}

    def restore(self, versions: Versions) -> None:
        """Bring earlier versions back."""
        now = self.versions()
        if added := now.keys() - versions.keys():
            self.run("-m", "pip", "uninstall", "--quiet", "--yes", *added)
        if changed := [f"{name}=={version}" for name, version in versions.items() if now.get(name) != version]:
            self.install("--no-deps", *changed)

    def test(self, arguments: Sequence[str]) -> frozenset[str]:
        """Run the tests before everybody's eyes; return what failed."""
        return self._pytest(arguments, output=None)

    def test_again(self, failed: frozenset[str], arguments: Sequence[str]) -> frozenset[str]:
        """Run what failed again; return what still does."""
        if failed == {SESSION}:
            return failed & self._pytest(arguments, output=subprocess.DEVNULL)
        last = ("--last-failed", "--last-failed-no-failures", "none")
        return still_failing(failed, self._pytest([*last, *arguments], output=subprocess.DEVNULL, only=failed))

    def _pytest(self, arguments: Sequence[str], output: int | None, only: Iterable[str] = ()) -> frozenset[str]:
        """Run pytest with `only` as its record of what failed last; return what failed now."""
        cache = self.folder / "pytest-cache"
        shutil.rmtree(cache, ignore_errors=True)
        last_failed, failed_now = cache / "v/cache/lastfailed", cache / "v/newest/failed"
        last_failed.parent.mkdir(parents=True)
        last_failed.write_text(json.dumps(dict.fromkeys(only, True)))
        workers = ("--numprocesses", os.environ.get("PYTEST_WORKERS", "2"))
        options = ("-p", "note_failures", "--continue-on-collection-errors", "--override-ini", f"cache_dir={cache}")
        done = subprocess.run(
            [self.folder / "bin/python", "-m", "pytest", *workers, *options, *arguments],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PLUGINS)},
            stdout=output,
            stderr=output,
        )
        if done.returncode == 5 and not only:
            raise NoVerdictError("pytest found no test to run")
        if done.returncode in (0, 5):
            return frozenset()
        found = json.loads(failed_now.read_text()) if failed_now.is_file() else []
        return frozenset(found) or frozenset({SESSION, *only})


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def some(tests: frozenset[str]) -> str:
    """Name the first three."""
    return ", ".join(sorted(tests)[:3]) + (f" and {len(tests) - 3} more" if len(tests) > 3 else "")


def look_for_culprits(
    failed: frozenset[str], newest: Versions, requirements: list[str], arguments: Sequence[str]
) -> None:
    """Try one upgrade after the other on top of the lock, and print what is to blame for the failed tests."""
    environment = Environment(WORK / "locked")
    say("Installing the locked versions, to upgrade one package at a time on them (minutes)")
    environment.make(*LOCK)
    environment.install(*LOCK, "--build-constraint", "constraints.txt", *requirements)
    locked = environment.versions()
    if on_lock := environment.test_again(failed, arguments):
        print(f"Fails on the locked versions, too, so that no upgrade is to blame: {some(on_lock)}")
    failed -= on_lock
    direct = [name_of(line) for line in requirements]
    differing = moved(locked, newest)
    suspects = [name for name in direct if name in differing] + sorted(differing - set(direct))
    trials: list[Trial] = []
    for number, name in enumerate(suspects, 1):
        if not failed or not worth_trying(name, direct, failed, trials):
            continue
        upgrade = f"{name} {locked[name]} -> {newest[name]}"
        say(f"[{number}/{len(suspects)}] {upgrade}")
        try:
            environment.install(f"{name}=={newest[name]}", *requirements)
        except NoVerdictError as problem:
            say(f"    cannot be installed alone: {str(problem).splitlines()[-1]}")
            continue
        moves = moved(locked, environment.versions())
        if moves not in [trial.moved for trial in trials]:
            trials.append(Trial(name, moves, environment.test_again(failed, arguments)))
            say(f"    {len(trials[-1].failed)} of {len(failed)} fail")
        environment.restore(locked)
    for trial in culprits(trials):
        along = f", with {', '.join(sorted(trial.moved - {trial.name}))}" if len(trial.moved) > 1 else ""
        print(f"blame: {trial.name} {locked[trial.name]} -> {newest[trial.name]}{along}")
        print(f"       {len(trial.failed)} of {len(failed)} failures: {some(trial.failed)}")
    if alone := unexplained(failed, trials):
        print(f"blame: no upgrade alone, but several together, for {len(alone)} failures: {some(alone)}")


def main(arguments: Sequence[str]) -> int:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    usage = ".ci/newest [--beyond-bounds] [-- PYTEST_ARGUMENTS]"
    parser = argparse.ArgumentParser(usage=usage, description=__doc__.splitlines()[0])
    parser.add_argument("--beyond-bounds", action="store_true", help="ignore the bounds in pyproject.toml")
    beyond_bounds = parser.parse_args(arguments[:end]).beyond_bounds
    for_pytest = arguments[end + 1 :]

    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    newest = Environment(WORK / "newest")
    where = f"the newest of everything {'beyond' if beyond_bounds else 'inside'} the bounds"
    say(f"Installing {where} into .newest/ (several GB with torch: minutes)")
    requirements = to_install(newest.make(), beyond_bounds=beyond_bounds)
    newest.install(*requirements)
    versions, locked = newest.versions(), json.loads(newest.run("-c", LOCKED))
    for name in sorted(moved(locked, versions)):
        print(f"    {name} {locked[name]} -> {versions[name]}")
    say(f"{len(moved(locked, versions))} packages differ from the lock. Running the tests")
    failed = newest.test(for_pytest)
    if not failed:
        say(f"The tests pass on {where}")
        shutil.rmtree(WORK)
        return 0
    again = newest.test_again(failed, for_pytest)
    say(f"{len(failed)} failed, {len(again)} when run again")
    if again < failed:
        print(f"Passed when run again: {some(failed - again)}")
    if again:
        look_for_culprits(again, versions, requirements, for_pytest)
    print("The environments stay in .newest/ to look into")
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except NoVerdictError as problem:
        print(f".ci/newest: {problem}", file=sys.stderr)
        sys.exit(2)
