"""Say in words what the intervals of a run say, and nothing that they do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

from lmms_fixattn.report.columns import accuracies, split_name
from lmms_fixattn.scoring.bootstrap import LEVEL, POWER, Interval
from lmms_fixattn.scoring.truncation import Truncation

FEWEST_IMAGES = 30
"""Below this, percentile intervals are too narrow to conclude from (one image has an interval of width 0)."""

Kind: TypeAlias = Literal["better", "not told apart", "worse", "too few", "withheld"]


Standing: TypeAlias = Literal["better", "not shown", "worse"]
"""What a verdict says of a run beside saying less: better than it, not shown to be, or worse than every cut."""


def standing(chair_s: Interval, beyond: Truncation) -> Standing:
    """Return what the intervals of a run's paired difference of CHAIR_s and of its distance from the cuts bear."""
    if beyond.chair_s.below_zero:
        return "better"
    return "worse" if beyond.chair_s_worst.above_zero and (chair_s.value or 0.0) > 0 else "not shown"


def verdict(
    columns: Mapping[str, Interval],
    differences: Mapping[str, Interval],
    beyond: Truncation | None,
    images: Mapping[str, int],
    holm: Mapping[str, float] | None = None,
    tests: int = 1,
) -> str:
    """Return a run's verdict against the baseline: clauses parted by "; ", each decided by one 95% interval.

    "Lower", "better", "loses" ... are said only where the interval lies wholly on one side of 0. "Not told apart" and
    "not shown to be" mean that it does not, which is no proof of equality: beside the second stands the smallest gain
    that these images would have shown in 8 of 10 samples.

    hallucination   the paired difference of CHAIR_s
    brevity         the distance of CHAIR_s from the best of the baseline's cuts at its recall (scoring.truncation):
                    only below 0 is "better than saying less". "Worse than every cut" takes a distance from the worst of
                    them above 0, and a CHAIR_s above the baseline's own: captions of unequal lengths lie above the best
                    cut though only brevity made them, but no cut raises CHAIR_s. Of CHAIR_i is said only what points
                    elsewhere; if it is better while that with each object counted once is not, the gain is by repeats.
    several runs    where the p of one of these two claims is above 5% after Holm over the compared runs, that is said
    recall          the paired difference of recall
    loops, ends     the paired differences of looped and unterminated
    POPE            the paired difference of each split's accuracy

    A run whose differences are 0 in every draw is called identical. Of fewer than FEWEST_IMAGES images nothing is
    concluded.

    columns, differences, beyond, holm: as in report.compare.Row; images: how many a difference's draws were of, by
    column; tests: how many runs Holm's correction is over.
    """
    if differences and all(found.value == found.low == found.high == 0 for found in differences.values()):
        return "identical to the baseline in every column and every draw"
    clauses = []
    if "chair_s" in differences:
        if images["chair_s"] < FEWEST_IMAGES:
            clauses = [f"captions: {_too_few(images['chair_s'])}"]
        else:
            corrected = {claim: p for claim, p in (holm or {}).items() if tests > 1}
            clauses = [_hallucination(differences, beyond, corrected, tests), *_manner(columns, differences)]
    return "; ".join([*clauses, *_pope(differences, images)])


def kinds(
    differences: Mapping[str, Interval],
    beyond: Truncation | None,
    images: Mapping[str, int],
    holm: Mapping[str, float] | None = None,
) -> dict[str, Kind]:
    """Return what a verdict comes to, of "captions" and of each "POPE split", from the same intervals as its words.

    Captions are "better" only where they are better than saying less and stay so after Holm, and "worse" where they are
    worse than every cut, or have a higher CHAIR_s and no more recall for it. Arguments as for verdict.
    """
    found: dict[str, Kind] = {}
    if "chair_s" in differences:
        if images["chair_s"] < FEWEST_IMAGES:
            found["captions"] = "too few"
        else:
            stands = "not shown" if beyond is None else standing(differences["chair_s"], beyond)
            if stands == "better" and (holm or {}).get("beyond", 0.0) <= 1 - LEVEL:
                found["captions"] = "better"
            elif stands == "worse" or (differences["chair_s"].above_zero and not differences["recall"].above_zero):
                found["captions"] = "worse"
            else:
                found["captions"] = "not told apart"
    for name, accuracy in accuracies(differences).items():
        told: Kind = "better" if accuracy.above_zero else "worse" if accuracy.below_zero else "not told apart"
        found[_listed([split_name(name)])] = told if images[name] >= FEWEST_IMAGES else "too few"
    return found


def _too_few(images: int) -> str:
    return f"too few images for a verdict ({images}; it takes {FEWEST_IMAGES})"


def _listed(splits: Iterable[str]) -> str:
    return f"POPE {', '.join(splits)}".strip()


def _hallucination(
    differences: Mapping[str, Interval], beyond: Truncation | None, holm: Mapping[str, float], tests: int
) -> str:
    def after(claim: str) -> str:
        """Return what Holm's correction leaves of a claim that its own interval makes."""
        p = holm.get(claim, 0.0)
        return f", by itself alone: p {p:.3f} after Holm over {tests} runs" if p > 1 - LEVEL else ""

    difference = differences["chair_s"]
    differs = "lower" if difference.below_zero else "higher" if difference.above_zero else ""
    said = f"CHAIR_s {differs or 'not told apart'} ({difference.signed}{differs and after('chair_s')})"
    if beyond is None:
        return said
    delta, once = beyond.chair_s, beyond.chair_i_unique
    stands = standing(difference, beyond)
    better = stands == "better"
    if better:
        said += f", and better than saying less ({beyond.cut}: CHAIR_s {delta.signed}{after('beyond')})"
    elif stands == "worse":
        said += f", and worse than every cut of the baseline (CHAIR_s {beyond.chair_s_worst.signed} from the worst)"
    else:
        but = "but" if difference.below_zero else "and"
        least = f", where a gain of {delta.smallest_fall:.1f} would show in {10 * POWER:.0f} of 10 samples"
        said += f", {but} not shown to be better than saying less ({beyond.cut}: CHAIR_s {delta.signed}{least})"
    if better and beyond.chair_i_worst.above_zero and (differences["chair_i"].value or 0.0) > 0:
        return f"{said}, but worse than every cut in CHAIR_i ({beyond.chair_i_worst.signed})"
    if beyond.chair_i.below_zero and not better:
        if once.below_zero:
            return f"{said}, though better in CHAIR_i ({beyond.chair_i.signed})"
        repeats = f"with each object counted once not shown to be ({once.signed})"
        return f"{said}; better in CHAIR_i ({beyond.chair_i.signed}) only by repeats, {repeats}"
    return said


def _manner(columns: Mapping[str, Interval], differences: Mapping[str, Interval]) -> list[str]:
    said = []
    recall = differences["recall"]
    if recall.below_zero:
        said.append(f"loses recall ({recall.signed})")
    elif recall.above_zero:
        said.append(f"gains recall ({recall.signed})")
    for name, what, more, less in (
        ("looped", "captions", "loops more often", "loops less often"),
        ("unterminated", "captions are cut off", "ends less often by itself", "ends more often by itself"),
    ):
        if (found := differences[name]).above_zero or found.below_zero:
            value = columns[name].value or 0.0
            baseline = f"baseline {value - (found.value or 0.0):.1f}%"
            said.append(f"{more if found.above_zero else less} ({value:.1f}% of {what}, {baseline})")
    return said


def _pope(differences: Mapping[str, Interval], images: Mapping[str, int]) -> list[str]:
    said, same, few = [], [], {}
    for column, found in accuracies(differences).items():
        split = split_name(column)
        if images[column] < FEWEST_IMAGES:
            few[split] = images[column]
        elif found.above_zero or found.below_zero:
            said.append(f"{_listed([split])} {'better' if found.above_zero else 'worse'} (accuracy {found.signed})")
        else:
            same.append(split)
    said += [f"{_listed(same)} not told apart"] if same else []
    return said + ([f"{_listed(few)}: {_too_few(min(few.values()))}"] if few else [])
