"""A plugin of pytest: notes in its cache what failed in this run, tests and files that could not be imported.

pytest's own record (--last-failed) also keeps what was not run, and, with several workers, files that are whole again.
"""

from __future__ import annotations

from typing import Any

failed: set[str] = set()


def pytest_runtest_logreport(report: Any) -> None:
    if report.failed:
        failed.add(report.nodeid)


pytest_collectreport = pytest_runtest_logreport


def pytest_sessionfinish(session: Any) -> None:
    if not hasattr(session.config, "workerinput"):  # one of several workers knows only its own
        session.config.cache.set("newest/failed", sorted(failed))
