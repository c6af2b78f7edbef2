"""The command `lmms-fixattn`.

Figures go to standard output, remarks to standard error. An error is one line there and exit status 1 (2 for a command
line that cannot be read); what a library raised has its traceback in a file that the line names.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from lmms_fixattn.cli import (
    bench,
    calibrate,
    chair,
    check,
    compare,
    data,
    evidence,
    export,
    inspect,
    methods,
    pope,
    sweep,
)
from lmms_fixattn.cli.console import Parser
from lmms_fixattn.errors import readable_failures, stop_signal, stoppable


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], None] = arguments.run
    try:
        with readable_failures(), stoppable():
            run(arguments)
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of a pipe (head, less) has gone; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt as stop:
        what = str(stop) or f"stopped by {stop_signal(stop).name}"
        print(f"lmms-fixattn {arguments.command}: {what}", file=sys.stderr)
        return 128 + stop_signal(stop)
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"lmms-fixattn {arguments.command}: error: {message}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    from lmms_fixattn import __version__

    parser = Parser(
        prog="lmms-fixattn",
        description="Does a fix make a vision-language model hallucinate less? Run, score, compare.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (sweep, compare, evidence, chair, pope, inspect, calibrate, bench, export, data, methods, check):
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
