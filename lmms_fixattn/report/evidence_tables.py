"""Write evidence as tables, a line a method, and as files with its picture."""

from __future__ import annotations

import json
from pathlib import Path

from lmms_fixattn.report.evidence import Evidence, Group, Line, evidence_json
from lmms_fixattn.report.forms import write_files
from lmms_fixattn.report.plot_evidence import draw
from lmms_fixattn.report.plot_style import FORMS
from lmms_fixattn.report.tables import Table
from lmms_fixattn.scoring.bootstrap import LEVEL, Interval

_FIGURES = {"chair_s": "CHAIR_s", "chair_i": "CHAIR_i", "recall": "recall", "words": "words", "looped": "loops"}
_BEYOND = ("minus baseline", "CHAIR_s beyond brevity", "verdict", "shown from", "best cut", "Holm p: group, all")


def markdown(evidence: Evidence) -> str:
    """Return a table a group in Markdown, with the repository that its files are from."""
    tables = [
        Table(group.name, ("run", *_FIGURES.values(), *_BEYOND), _rows(group), _origin(group))
        for group in evidence.groups
    ]
    return "\n\n".join([*(table.markdown for table in tables), _settings(evidence)]) + "\n"


def text(evidence: Evidence) -> str:
    """Return the same for a terminal, in fewer columns."""
    header = ("run", "CHAIR_s", "recall", "words", "beyond brevity", "verdict")
    blocks = []
    for group in evidence.groups:
        names = [group.baseline.name, *(line.entry.name for line in group.lines)]
        rows = [(name, *row[1:2], *row[3:5], *row[7:9]) for name, row in zip(names, _rows(group), strict=True)]
        blocks.append(Table(f"{group.name}: {_against(group)}", header, rows).text())
    return "\n\n".join([*blocks, _settings(evidence)]) + "\n"


def write(evidence: Evidence, directory: Path) -> list[Path]:
    """Write evidence.md, evidence.json, evidence.png and evidence.svg into a directory, which is made."""
    found = json.dumps(evidence_json(evidence), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    contents = {"evidence.md": markdown(evidence).encode(), "evidence.json": found.encode()}
    return write_files(directory, contents | {f"evidence.{form}": draw(evidence, form) for form in FORMS})


def _rows(group: Group) -> list[tuple[str, ...]]:
    base = group.comparison.rows[0].columns
    first = (f"{group.baseline.name} (baseline)", *_figures(base), *[""] * len(_BEYOND))
    return [first, *map(_of_method, group.lines)]


def _of_method(line: Line) -> tuple[str, ...]:
    delta = line.beyond.chair_s
    return (
        f"{line.entry.name} ({line.entry.note})" if line.entry.note else line.entry.name,
        *_figures(line.row.columns),
        line.row.differences["chair_s"].signed,
        delta.signed,
        line.word,
        f"{delta.smallest_fall or 0.0:.1f}",
        line.beyond.cut,
        f"{line.holm:.3f}, {line.holm_of_all:.3f}",
    )


def _figures(columns: dict[str, Interval]) -> list[str]:
    return [f"{Interval(columns[name].value):.1f}" for name in _FIGURES]


def _origin(group: Group) -> str:
    base = group.baseline
    where = f"[{base.repository}](https://github.com/{base.repository}/tree/{base.commit})"
    return f"Released in {where}. {_against(group)}." if base.repository else f"{_against(group)}."


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
