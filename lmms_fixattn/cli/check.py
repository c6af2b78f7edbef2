"""`lmms-fixattn check`: does this installation work, and does every method do here what it should?"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from contextlib import redirect_stderr
from io import StringIO
from typing import Any

from lmms_fixattn.cli.console import add_command
from lmms_fixattn.errors import UserError


def add(commands: Any) -> None:
    """Describe the command."""
    add_command(
        commands,
        "check",
        _check,
        "check this installation offline: versions, what lmms-eval finds, and every method against known answers",
    )


def _check(arguments: argparse.Namespace) -> None:
    from loguru import logger

    logger.remove()  # the report is all there is to say
    warnings.simplefilter("ignore")
    off, start = [], time.perf_counter()
    with redirect_stderr(StringIO()):
        from lmms_fixattn.harness.check import findings

        for finding in findings():
            mark = {True: "ok", False: "OFF", None: "--"}[finding.well]
            print(f"{mark:4}{finding.what:28}{finding.found}", flush=True)
            if finding.well is False:
                off.append(finding)
    if off:
        raise UserError(f"{len(off)} of the above are off: {'; '.join(dict.fromkeys(one.advice for one in off))}")
    print(f"All as it should be, in {time.perf_counter() - start:.0f} s.")
    sys.stdout.flush()
