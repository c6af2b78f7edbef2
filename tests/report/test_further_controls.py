"""What the further controls say of released captions, and of nothing but cuts and repeats, as docs/report.md shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lmms_fixattn.report.compare import Row, compare
from lmms_fixattn.report.runs import Run, read_run
from lmms_fixattn.scoring import chair
from lmms_fixattn.scoring.files.reading import read_ground_truth
from lmms_fixattn.scoring.truncation import cut

PAGE = Path(__file__).parents[2] / "docs" / "report.md"


def changed(run: Run, name: str, change: Callable[[str], str]) -> Run:
    captions = {task: tuple(replace(e, text=change(e.text)) for e in entries) for task, entries in run.captions.items()}
    return replace(run, name=name, captions=captions)


def line(row: Row) -> str:
    """A line of the page's table."""
    assert row.vs_truncation is not None
    assert row.rate_ratio is not None
    ratio = row.rate_ratio
    length = "-" if row.length_matched is None else row.length_matched.signed
    figures = (row.vs_truncation.chair_s.signed, length, f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]")
    return f"| {row.name} | {row.columns['words'].value:.1f} | {' | '.join(figures)} |"


@pytest.mark.system
def test_the_page_shows_what_they_say_of_released_captions_and_of_cuts_and_repeats(reference: Path) -> None:
    folder = reference / "chair"
    names = {"a0.3 b0.7": "a0.3_b0.7_g1.1", "a0.7 b0.3": "a0.7_b0.3_g1.1", "a0.7 b0.4 s0.05": "a0.7_b0.4_g1.1_s0.05"}
    base = replace(read_run(str(folder / "r0.25_a0.1_b0.3_g1.1.jsonl.gz")), name="base")
    runs = [replace(read_run(str(folder / f"r0.25_{file}.jsonl.gz")), name=name) for name, file in names.items()]
    runs += [
        changed(base, "*baseline, first 75 words*", lambda text: cut(text, 75)),
        changed(base, "*baseline, 60% of the words*", lambda text: cut(text, round(0.6 * len(text.split())))),
        changed(base, "*baseline, every caption twice*", lambda text: f"{text} {text}"),
    ]
    truth = read_ground_truth(folder / "ground_truth.json")
    comparison = compare([base, *runs], "base", truth, chair.make_analyser())
    page = PAGE.read_text(encoding="utf-8")
    for row in comparison.rows[1:]:
        assert line(row) in page
