"""Say in words what the intervals of a run say, and nothing that they do not."""

from __future__ import annotations

from collections.abc import Mapping

from lmms_fixattn.metrics.bootstrap import Interval
from lmms_fixattn.metrics.truncation import Truncation

FEWEST_IMAGES = 30
"""Below this, percentile intervals are too narrow to conclude from (one image has an interval of width 0)."""


def verdict(
    columns: Mapping[str, Interval], differences: Mapping[str, Interval], beyond: Truncation | None, images: int
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

    A run whose differences are 0 in every draw is called identical. Below FEWEST_IMAGES images nothing is concluded.

    columns, differences, beyond: as in report.compare.Row; images: what the draws were of, the fewest of any column.
    """
    if differences and all(found.value == found.low == found.high == 0 for found in differences.values()):
        return "identical to the baseline in every column and every draw"
    if images < FEWEST_IMAGES:
        return f"too few images for a verdict ({images}; it takes {FEWEST_IMAGES})"
    clauses = []
    if "chair_s" in differences:
        clauses = [_hallucination(differences["chair_s"], beyond), *_manner(columns, differences)]
    return "; ".join([*clauses, *_pope(differences)])


def _hallucination(difference: Interval, beyond: Truncation | None) -> str:
    said = _told("CHAIR_s", difference, "lower", "higher", "no different")
    if beyond is None:
        return said
    but = "and" if difference.above_zero else "but"
    delta, other = beyond.chair_s, beyond.chair_i
    if delta.value is None:
        if difference.below_zero:
            return f"{said} at a recall above the baseline's, so brevity is not what does it"
        return f"{said}, with a recall above the baseline's, which no cut of it reaches"
    cut = f"cutting the baseline after {beyond.baseline_words} words"
    points = f"CHAIR_s {_signed(delta)}"
    if delta.below_zero:
        extra = f", but in CHAIR_i worse ({_signed(other)})" if other.above_zero else ""
        return f"{said}, and better than {cut} ({points}){extra}"
    if delta.above_zero:
        said = f"{said}, {but} worse than {cut} ({points})"
    else:
        said = f"{said}, {but if difference.below_zero else 'and'} no better than {cut} ({points})"
    if other.below_zero and not beyond.chair_i_unique.below_zero:
        once = f"with each object counted once no better ({_signed(beyond.chair_i_unique)})"
        return f"{said}; better in CHAIR_i ({_signed(other)}) only by repeats, {once}"
    if other.below_zero:
        return f"{said}, though better in CHAIR_i ({_signed(other)})"
    if other.above_zero and not delta.above_zero:
        return f"{said} and worse in CHAIR_i ({_signed(other)})"
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


def _pope(differences: Mapping[str, Interval]) -> list[str]:
    accuracies = {
        name.removeprefix("pope").removesuffix("accuracy").strip("_").replace("_", " "): difference
        for name, difference in differences.items()
        if name.startswith("pope_") and name.endswith("accuracy")
    }
    clear = {name: found for name, found in accuracies.items() if found.above_zero or found.below_zero}
    said = [
        f"POPE {name} {'better' if found.above_zero else 'worse'} (accuracy {_signed(found)})".replace("  ", " ")
        for name, found in clear.items()
    ]
    if same := [name for name in accuracies if name not in clear]:
        said.append(f"POPE {', '.join(same)} no different".replace("  ", " "))
    return said


def _told(name: str, difference: Interval, below: str, above: str, neither: str) -> str:
    word = below if difference.below_zero else above if difference.above_zero else neither
    return f"{name} {word} ({_signed(difference)})"


def _signed(found: Interval) -> str:
    return f"{found.value:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"
