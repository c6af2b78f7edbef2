"""What a finished sweep says: the comparison of its cells, and their figures in a paper's layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmms_fixattn.harness.sweep_config import Cell, SweepPlan
from lmms_fixattn.report.compare import Comparison, Progress, compare
from lmms_fixattn.report.paper_tables import FORMATS, LAYOUTS, PaperRow, paper_table
from lmms_fixattn.report.runs import read_run
from lmms_fixattn.scoring.chair import make_analyser


def compare_cells(plan: SweepPlan, folders: Mapping[str, Path], progress: Progress) -> Comparison:
    """Compare the cells of a sweep with its baseline, scored as the runs themselves were.

    Args:
        folders: {cell: its result folder}, at least two.

    Raises:
        UserError: the cells may not be compared, or a result cannot be read.
        LookupError: the analyser that the runs were scored with is not here.
    """
    runs = [read_run(f"{name}={folder}") for name, folder in folders.items()]
    stated = [task for run in runs for task in run.record.get("tasks", {}).values()]
    analyser = make_analyser(_the_one("analyser", stated, "lexicon"))
    parser = _the_one("parser", stated, "official")
    return compare(runs, plan.baseline, None, analyser, parser=parser, progress=progress)


def paper_tables(plan: SweepPlan, comparison: Comparison) -> dict[str, tuple[str, str]]:
    """Return the sweep's table in its paper's layout: {form: (suffix of its file, text)}, {} without a layout."""
    if plan.layout is None:
        return {}
    rows = {row.name: row for row in comparison.rows}
    lines = [
        PaperRow(_label(cell, LAYOUTS[plan.layout].parameter), row.columns, len(row.captions), cell.published)
        for cell in plan.cells
        for row in (rows[cell.name],)
    ]
    part = f", the first {plan.limit} documents of each task" if plan.limit else ""
    about = f"{plan.model['pretrained']} on {', '.join(plan.tasks)}{part}"
    return {form: (suffix, paper_table(plan.layout, lines, about, form)) for form, suffix in FORMATS.items()}


def _label(cell: Cell, parameter: str | None) -> str:
    value = None if parameter is None else getattr(cell.method, parameter, None)
    return cell.name if value is None else f"{value:g}"


def _the_one(key: str, tasks: list[dict[str, Any]], otherwise: str) -> str:
    """Return the analyser or parser of all cells: they are loaded by the same tasks in the same environment."""
    return next((task[key] for task in tasks if key in task), otherwise)
