"""Write evidence as tables, a line a method, and as files with its picture."""

from __future__ import annotations

import json
from pathlib import Path

from tabulate import tabulate

from lmms_fixattn.errors import UserError
from lmms_fixattn.report.evidence import Evidence, Group, Line, evidence_json
from lmms_fixattn.report.plot_evidence import draw
from lmms_fixattn.scoring.bootstrap import LEVEL, Interval

_FULL = (
    "run",
    "CHAIR_s",
    "minus baseline",
    "CHAIR_i",
    "recall",
    "words",
    "loops",
    "CHAIR_s beyond brevity",
    "verdict",
    "shown from",
    "best cut",
    "Holm p: group, all",
)
# For a terminal: what stands behind the name, by its place.
_IN_SHORT = tuple(_FULL.index(name) for name in ("CHAIR_s", "recall", "words", "CHAIR_s beyond brevity", "verdict"))
_SHORT = ("run", "CHAIR_s", "recall", "words", "beyond brevity", "verdict")


def markdown(evidence: Evidence) -> str:
    """Return a table a group in Markdown, with the repository that its files are from."""
    blocks = []
    for group in evidence.groups:
        # A bar would end the cell.
        lines = [tuple(cell.replace("|", "\\|") for cell in line) for line in _lines(group)]
        table = tabulate(lines, _FULL, tablefmt="github", disable_numparse=True)
        blocks.append(f"### {group.name}\n\n{_heading(group)}\n\n{table}")
    return "\n\n".join([*blocks, _settings(evidence)]) + "\n"


def text(evidence: Evidence) -> str:
    """Return the same for a terminal, in fewer columns."""
    blocks = []
    for group in evidence.groups:
        names = [group.baseline.name, *(line.entry.name for line in group.lines)]
        lines = [(name, *(row[at] for at in _IN_SHORT)) for name, row in zip(names, _lines(group), strict=True)]
        table = tabulate(lines, _SHORT, tablefmt="simple", disable_numparse=True)
        blocks.append(f"{group.name}: {_against(group)}\n{table}")
    return "\n\n".join([*blocks, _settings(evidence)]) + "\n"


def write(evidence: Evidence, directory: Path) -> list[Path]:
    """Write evidence.md, evidence.json, evidence.png and evidence.svg into a directory, which is made."""
    found = json.dumps(evidence_json(evidence), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    contents = {
        "evidence.md": markdown(evidence).encode(),
        "evidence.json": found.encode(),
        "evidence.png": draw(evidence, "png"),
        "evidence.svg": draw(evidence, "svg"),
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (directory / name).write_bytes(content)
    except OSError as error:
        raise UserError(f"{directory}: cannot be written: {error.strerror or error}") from None
    return [directory / name for name in contents]


def _lines(group: Group) -> list[tuple[str, ...]]:
    base = group.comparison.rows[0].columns
    chair_s, *others = (_figure(base[name]) for name in ("chair_s", "chair_i", "recall", "words", "looped"))
    first = (f"{group.baseline.name} (baseline)", chair_s, "", *others, *[""] * 5)
    return [first, *map(_of_method, group.lines)]


def _of_method(line: Line) -> tuple[str, ...]:
    columns, delta = line.row.columns, line.beyond.chair_s
    return (
        f"{line.entry.name} ({line.entry.note})" if line.entry.note else line.entry.name,
        _figure(columns["chair_s"]),
        line.row.differences["chair_s"].signed,
        *(_figure(columns[name]) for name in ("chair_i", "recall", "words", "looped")),
        delta.signed,
        line.word,
        "" if delta.smallest_fall is None else f"{delta.smallest_fall:.1f}",
        line.beyond.cut,
        f"{line.holm:.3f}, {line.holm_of_all:.3f}",
    )


def _figure(column: Interval) -> str:
    return "" if column.value is None else f"{column.value:.1f}"


def _heading(group: Group) -> str:
    base = group.baseline
    if not base.repository:
        return f"{_against(group)}."
    where = f"[{base.repository}](https://github.com/{base.repository}/tree/{base.commit})"
    return f"Released in {where}. {_against(group)}."


def _against(group: Group) -> str:
    note = f" ({group.baseline.note})" if group.baseline.note else ""
    return f"Baseline: {group.baseline.name}{note}; n = {group.comparison.n}"


def _settings(evidence: Evidence) -> str:
    stated = evidence.settings
    return (
        f"{evidence.methods} methods, each against the baseline of its own group; {100 * LEVEL:.0f}% bootstrap "
        f"intervals over images ({stated['draws']} draws, seed {stated['seed']}), of each method alone; Holm p: of "
        f"CHAIR_s beyond brevity, over the methods of its group and over all {evidence.methods}; analyser "
        f"{stated['analyser']}."
    )
