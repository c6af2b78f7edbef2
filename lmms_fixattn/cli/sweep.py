"""`lmms-fixattn sweep`: run a grid of methods and settings, and compare them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmms_fixattn.cli.compare import add_full, say_what_to_open, write_comparison
from lmms_fixattn.cli.console import add_command, positive, progress, remark
from lmms_fixattn.cli.truth import make_analyser
from lmms_fixattn.errors import readable_failures, stop_signal
from lmms_fixattn.report import terminal

if TYPE_CHECKING:
    from lmms_fixattn.harness.sweep_config import Cell, SweepPlan
    from lmms_fixattn.report.compare import Comparison
    from lmms_fixattn.report.tables import Table


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
        help="a .yaml file (docs/sweep.md), or a shipped one: table1 to table5, heads and tokens for LLaVA-1.5-7B, "
        "demo and demo_... of each for the packaged model",
    )
    command.add_argument(
        "--dry-run", action="store_true", help="list the cells and check everything that can be without the weights"
    )
    add_full(command)
    command.add_argument("--output", type=Path, metavar="DIR", help="of results and comparison (default: sweep-CONFIG)")
    command.add_argument("--limit", type=positive, metavar="N", help="documents of each task (default: CONFIG's)")


def _sweep(arguments: argparse.Namespace) -> None:
    from lmms_fixattn.harness.sweep_config import read_plan

    plan = read_plan(arguments.config, arguments.limit)
    output = arguments.output or Path(f"sweep-{plan.name}")
    if arguments.dry_run:
        remark("loading lmms-eval and the tasks; the weights are left out")
        _rehearse(plan, output)
        return
    remark(f"{len(plan.cells)} cells of {', '.join(plan.tasks)} into {output}")
    log = output / "log.txt"
    remark(f"loading lmms-eval and the model; what they say goes to {log}")
    try:
        with readable_failures(log):
            _run(plan, output, log, arguments.full)
    except KeyboardInterrupt as stop:
        kept = f"what was answered is kept in {output}, and the same command goes on from there"
        stop.args = (f"stopped by {stop_signal(stop).name}; {kept}",)
        raise


def _rehearse(plan: SweepPlan, output: Path) -> None:
    from tempfile import TemporaryDirectory

    from lmms_fixattn.harness.sweep import rehearse, stderr_to

    with TemporaryDirectory() as folder, stderr_to(Path(folder) / "log.txt"):
        cells = rehearse(plan, output)
    lines = [(cell.name, _written(cell), f"{kept} of {asked}") for cell, kept, asked in cells]
    print(terminal.table(("cell", "method", "answers there"), lines, (24, 56, None)))
    left = sum(asked - kept for _, kept, asked in cells)
    about = f"{plan.model['pretrained']} on {', '.join(plan.tasks)}"
    print(f"\n{about}: tasks and data are there, every method fits; {left} answers to go into {output}")


def _written(cell: Cell) -> str:
    settings = (f"{name}={value}" for name, value in cell.given.items())
    return ", ".join([cell.method.name, *settings])


def _run(plan: SweepPlan, output: Path, log: Path, full: bool) -> None:
    from lmms_fixattn.harness.sweep import run_sweep, stderr_to
    from lmms_fixattn.report import forms

    with stderr_to(log) as screen:
        folders = run_sweep(plan, output, screen)
    if len(folders) < 2:
        remark(f"one cell, so nothing to compare; its result is {next(iter(folders.values()))}")
        return
    comparison = _compared(plan, folders)
    write_comparison(comparison, output)
    if plan.layout is not None:
        table = _paper_table(plan, plan.layout, comparison)
        for suffix, text in (("txt", table.text()), ("md", table.markdown), ("tex", table.latex)):
            (output / f"paper_{plan.layout}.{suffix}").write_text(f"{text}\n", encoding="utf-8")
        print(f"{table.text()}\n")
    print(forms.render(comparison, "full" if full else "table"), end="", flush=True)
    say_what_to_open(output, full)


def _compared(plan: SweepPlan, folders: Mapping[str, Path]) -> Comparison:
    """Compare the cells with the sweep's baseline, scored as the runs themselves were: all by the same tasks."""
    from lmms_fixattn.report.compare import compare
    from lmms_fixattn.report.runs import read_run

    runs = [read_run(f"{name}={folder}") for name, folder in folders.items()]
    stated: dict[str, str] = {"analyser": "lexicon", "parser": "official"}
    for run in runs:
        for task in run.record.get("tasks", {}).values():
            stated |= {key: task[key] for key in stated if key in task}
    analyser = make_analyser(stated["analyser"])
    return compare(runs, plan.baseline, None, analyser, parser=stated["parser"], progress=progress)


def _paper_table(plan: SweepPlan, layout: str, comparison: Comparison) -> Table:
    from lmms_fixattn.report.paper_tables import LAYOUTS, PaperRow, paper_table

    rows = {row.name: row for row in comparison.rows}
    lines = []
    for cell in plan.cells:
        value = getattr(cell.method, LAYOUTS[layout].parameter or "", None)
        row = rows[cell.name]
        label = cell.name if value is None else f"{value:g}"
        lines.append(PaperRow(label, row.columns, len(row.captions), cell.published))
    part = f", the first {plan.limit} documents of each task" if plan.limit else ""
    return paper_table(layout, lines, f"{plan.model['pretrained']} on {', '.join(plan.tasks)}{part}")
