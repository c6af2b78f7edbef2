"""Say in words what the intervals of a run say, and nothing that they do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lmms_fixattn.metrics.bootstrap import Interval
from lmms_fixattn.metrics.truncation import Truncation

FEWEST_IMAGES = 30
"""Below this, percentile intervals are too narrow to conclude from (one image has an interval of width 0)."""


def verdict(
    columns: Mapping[str, Interval],
    differences: Mapping[str, Interval],
    beyond: Truncation | None,
    images: Mapping[str, int],
) -> str:
    """Return a run's verdict against the baseline: clauses parted by "; ", each decided by one 95% interval.

    "Lower", "better", "loses" ... are said only where the interval lies wholly on one side of 0; "no different" and "no
    better" mean that it does not, which at a small n is no proof of equality. No correction is made for the number of
    runs compared.

    hallucination   the paired difference of CHAIR_s
    brevity         the truncation-matched delta of CHAIR_s (metrics.truncation): below 0 is "better than cutting the
                    baseline", above 0 "worse than", across 0 "no better than". The delta of CHAIR_i is said where it
                    points elsewhere; if it is below 0 while that of CHAIR_i with each object counted once is not, the
                    gain is said to be by repeats. Where the run's recall is above the baseline's there is no delta, and
                    brevity cannot be what lowers a lower CHAIR_s.
    recall          the paired difference of recall
    loops, ends     the paired differences of looped and unterminated
    POPE            the paired difference of each split's accuracy

    A run whose differences are 0 in every draw is called identical. Of fewer than FEWEST_IMAGES images nothing is
    concluded.

    columns, differences, beyond: as in report.compare.Row; images: how many a difference's draws were of, by column.
    """
    if differences and all(found.value == found.low == found.high == 0 for found in differences.values()):
        return "identical to the baseline in every column and every draw"
    clauses = []
    if "chair_s" in differences:
        if images["chair_s"] < FEWEST_IMAGES:
            clauses = [f"captions: {_too_few(images['chair_s'])}"]
        else:
            clauses = [_hallucination(differences["chair_s"], beyond), *_manner(columns, differences)]
    accuracies = {name: found for name, found in differences.items() if name.startswith("pope_") and "accuracy" in name}
    enough = {_split(name): found for name, found in accuracies.items() if images[name] >= FEWEST_IMAGES}
    few = {_split(name): images[name] for name in accuracies if images[name] < FEWEST_IMAGES}
    clauses += _pope(enough)
    if few:
        clauses.append(f"{_listed(few)}: {_too_few(min(few.values()))}")
    return "; ".join(clauses)


def _too_few(images: int) -> str:
    return f"too few images for a verdict ({images}; it takes {FEWEST_IMAGES})"


def _split(column: str) -> str:
    """Return what a reader calls a POPE column's split; "" for that of a plain file."""
    return column.removeprefix("pope").removesuffix("accuracy").strip("_").replace("_", " ")


def _listed(splits: Iterable[str]) -> str:
    return f"POPE {', '.join(splits)}".strip()


def _hallucination(difference: Interval, beyond: Truncation | None) -> str:
    said = _told("CHAIR_s", difference, "lower", "higher", "no different")
    if beyond is None:
        return said
    delta, other, once = beyond.chair_s, beyond.chair_i, beyond.chair_i_unique
    if delta.value is None:
        if difference.below_zero:
            return f"{said} at a recall above the baseline's, so brevity is not what does it"
        return f"{said}, with a recall above the baseline's, which no cut of it reaches"
    but = "but" if difference.below_zero and not delta.below_zero else "and"
    how = "better" if delta.below_zero else "worse" if delta.above_zero else "no better"
    said += f", {but} {how} than cutting the baseline after {beyond.baseline_words} words (CHAIR_s {_signed(delta)})"
    if other.above_zero and not delta.above_zero:
        return f"{said}, {'but' if delta.below_zero else 'and'} worse in CHAIR_i ({_signed(other)})"
    if other.below_zero and not delta.below_zero:
        if once.below_zero:
            return f"{said}, though better in CHAIR_i ({_signed(other)})"
        repeats = f"with each object counted once no better ({_signed(once)})"
        return f"{said}; better in CHAIR_i ({_signed(other)}) only by repeats, {repeats}"
    return said


def _manner(columns: Mapping[str, Interval], differences: Mapping[str, Interval]) -> list[str]:
    said = []
    recall = differences["recall"]
    if recall.below_zero:
        said.append(f"loses recall ({_signed(recall)})")
    elif recall.above_zero:
        said.append(f"gains recall ({_signed(recall)})")
    for name, more, less in (
        ("looped", "loops more often", "loops less often"),
        ("unterminated", "ends less often by itself", "ends more often by itself"),
    ):
        difference = differences[name]
        if difference.above_zero or difference.below_zero:
            value = columns[name].value or 0.0
            what = "captions" if name == "looped" else "captions are cut off"
            baseline = value - (difference.value or 0.0)
            said.append(f"{more if difference.above_zero else less} ({value:.1f}% of {what}, baseline {baseline:.1f}%)")
    return said


def _pope(accuracies: Mapping[str, Interval]) -> list[str]:
    said, same = [], []
    for split, found in accuracies.items():
        if found.above_zero or found.below_zero:
            said.append(f"{_listed([split])} {'better' if found.above_zero else 'worse'} (accuracy {_signed(found)})")
        else:
            same.append(split)
    return said + ([f"{_listed(same)} no different"] if same else [])


def _told(name: str, difference: Interval, below: str, above: str, neither: str) -> str:
    word = below if difference.below_zero else above if difference.above_zero else neither
    return f"{name} {word} ({_signed(difference)})"


def _signed(found: Interval) -> str:
    return f"{found.value:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"
