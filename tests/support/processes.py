"""Processes that a test starts, waits for however slow the machine is, and stops in the middle of a run."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST = 600
"""Seconds after which a test takes what it waits for to hang. Nothing that works takes a twentieth of it."""

HEARS_SIGINT = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""First line of a process that is sent SIGINT, which it may have inherited to ignore: a shell's background jobs do."""

_HELD = """
    import sys, time

    sys.path.insert(0, {support!r})
    import scripted_lm  # imports lmms-eval without its warnings
    from lmms_fixattn.harness.model import FixattnModel

    generate, calls = FixattnModel._generate, []

    def held(self, inputs, settings):
        calls.append(1)
        if len(calls) == 2:
            open({mark!r}, "w").close()
            while True:
                time.sleep(0.05)  # not one long sleep, into which a signal that came just before would not break
        return generate(self, inputs, settings)

    FixattnModel._generate = held
    from {module} import main

    sys.exit(main())
"""


def until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait until something is true of what a process does; fail where the process ends before, or hangs."""
    begun = time.monotonic()
    while not condition():
        assert process.poll() is None, f"the process ended with status {process.returncode}"
        assert time.monotonic() - begun < LONGEST, "the process hangs"
        time.sleep(0.01)


@contextmanager
def held_in_its_second_batch(module: str, arguments: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a command line in a folder, and let it wait for ever right before its second batch is generated.

    The block begins when it waits there, and ends it where it still runs. What it prints goes to `folder`/printed.txt.

    Args:
        module: whose `main` reads the command line.
    """
    mark, driver = folder / "mark", folder / "driver.py"
    text = textwrap.dedent(_HELD).format(support=str(Path(__file__).parent), mark=str(mark), module=module)
    driver.write_text(HEARS_SIGINT + text)
    with (folder / "printed.txt").open("w") as printed:
        process = subprocess.Popen(
            [sys.executable, driver, *arguments.split()],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=printed,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        until(mark.exists, process)
        yield process
    finally:
        process.kill()
        process.wait()
