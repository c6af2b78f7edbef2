"""A headless Chromium for pages on disk, without a network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from processes import LONGEST

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Opened(NamedTuple):
    """A page after its scripts ran: its DOM as HTML, and what it wrote to the console."""

    dom: str
    console: list[str]


def open_page(path: Path, fragment: str = "", width: int = 1280) -> Opened:
    """Open a page from disk in a window of that width and return what became of it."""
    done = _run(path, fragment, "--dump-dom", f"--window-size={width},900")
    return Opened(done.stdout, re.findall(r":CONSOLE[:(].*", done.stderr))


def photograph(path: Path, picture: Path, width: int, height: int) -> None:
    """Write a PNG of a page as it looks in a window of that size."""
    _run(path, "", f"--window-size={width},{height}", "--hide-scrollbars", f"--screenshot={picture}")


def _run(path: Path, fragment: str, *what: str) -> subprocess.CompletedProcess[str]:
    own = os.environ.get("BROWSER_FOR_TESTS")
    browser = next(filter(None, map(shutil.which, [own] if own else _NAMES)), None)
    if browser is None:
        pytest.skip("opens the page in Chromium, of which there is none: .ci/browser installs it")
    profile = path.parent / "browser-profile"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
               "--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9", "--enable-logging=stderr",
               "--v=0", f"--user-data-dir={profile}", *what, f"{path.resolve().as_uri()}{fragment}"]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=True)
