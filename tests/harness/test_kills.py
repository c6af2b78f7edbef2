"""A few of the kills of benchmarks/kills.py, of which the whole series is in docs/robustness.md."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from processes import LONGEST

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kills.py"


@pytest.mark.system
@pytest.mark.parametrize("of", ["sweep", "lmms-eval"])
def test_runs_that_are_killed_anywhere_end_as_if_never_killed(of: str) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--kills", "2", "--seed", "5", "--of", of],
        env={name: value for name, value in os.environ.items() if not name.startswith("LMMS_FIXATTN_")},
        capture_output=True,
        text=True,
        timeout=3 * LONGEST,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(
        rf"^{of}: 2 kills, \d+ runs got through, every one equal to the whole run$", done.stdout, re.MULTILINE
    )
