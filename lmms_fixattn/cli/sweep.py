"""`lmms-fixattn sweep`: run a grid of methods and settings, and compare them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmms_fixattn.cli.compare import write_comparison
from lmms_fixattn.cli.console import add_command, positive, progress, remark
from lmms_fixattn.failures import readable_failures, stop_signal

if TYPE_CHECKING:
    from lmms_fixattn.harness.sweep_config import Plan


def add(commands: Any) -> None:
    """Describe the command."""
    command = add_command(
        commands,
        "sweep",
        _sweep,
        "run methods and settings through lmms-eval with one load of the model, and compare them",
    )
    command.add_argument(
        "config",
        metavar="CONFIG",
        help="a .yaml file (docs/sweep.md), or a shipped one: table1 to table5 for LLaVA-1.5-7B, demo_table1 to "
        "demo_table5 for the packaged model",
    )
    command.add_argument("--output", type=Path, metavar="DIR", help="of results and comparison (default: sweep-CONFIG)")
    command.add_argument("--limit", type=positive, metavar="N", help="documents of each task (default: CONFIG's)")


def _sweep(arguments: argparse.Namespace) -> None:
    from lmms_fixattn.harness.sweep_config import read_plan

    plan = read_plan(arguments.config, arguments.limit)
    output = arguments.output or Path(f"sweep-{plan.name}")
    remark(f"{len(plan.cells)} cells of {', '.join(plan.tasks)} into {output}")
    log = output / "log.txt"
    remark(f"loading lmms-eval and the model; what they say goes to {log}")
    try:
        with readable_failures(log):
            _run(plan, output, log)
    except KeyboardInterrupt as stop:
        kept = f"what was answered is kept in {output}, and the same command goes on from there"
        stop.args = (f"stopped by {stop_signal(stop).name}; {kept}",)
        raise


def _run(plan: Plan, output: Path, log: Path) -> None:
    from lmms_fixattn.cli.sweep_report import compare_cells, paper_tables
    from lmms_fixattn.harness.sweep import chatter_in, run_sweep

    with chatter_in(log) as screen:
        folders = run_sweep(plan, output, screen)
    if len(folders) < 2:
        remark(f"one cell, so nothing to compare; its result is {next(iter(folders.values()))}")
        return
    comparison = compare_cells(plan, folders, progress)
    write_comparison(comparison, output)
    for form, (suffix, text) in paper_tables(plan, comparison).items():
        (output / f"paper_{plan.layout}.{suffix}").write_text(text, encoding="utf-8")
        if form == "text":
            print(text)
    from lmms_fixattn.report import table

    print(table.render(comparison, "table"), end="")
