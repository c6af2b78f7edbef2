"""What trivial means achieve that were run: the Pareto staircase of control runs over recall.

Truncation, a prompt for brevity, beams, other sampling, a repetition penalty: each run has a recall and a CHAIR_s. The
least hallucination that one of them, or the baseline, has at a recall of r or more,

    S(r) = min { CHAIR_s(run) : recall(run) >= r },

is a staircase that climbs with r; above the most recall of them all, that run stands in. It is found again in every
draw of a bootstrap. A run below it does what none of these runs does. It is weaker than the cuts of scoring.truncation,
which can be made at every length: between two steps, brevity alone lies below it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lmms_fixattn.scoring.bootstrap import LEVEL, Floats, Interval, interval

# Equal recalls may differ in their last bits: points far below one object of any corpus.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Staircase:
    """The steps, percent, by growing recall: chair_s[i] is the height up to recall[i], from the step before.

    low, high: the pointwise 95% band at recall[i]. runs: which run makes each step.
    """

    runs: tuple[str, ...]
    recall: tuple[float, ...]
    chair_s: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class StaircaseControl:
    """Control runs, over the corpus and in every draw of a bootstrap."""

    def __init__(self, runs: Mapping[str, Mapping[str, tuple[float, Floats]]]) -> None:
        """Take each run's "recall" and "chair_s", percent, over the corpus and in every draw [draws]."""
        self._names = tuple(runs)
        self._corpus = {name: np.array([[run[name][0] for run in runs.values()]]) for name in ("recall", "chair_s")}
        self._draws = {
            name: np.stack([run[name][1] for run in runs.values()], axis=1) for name in ("recall", "chair_s")
        }

    def staircase(self) -> Staircase:
        """Return the steps: the runs that no other equals or beats in both recall and CHAIR_s."""
        recall, chair_s = self._corpus["recall"][0], self._corpus["chair_s"][0]
        # From most recall down, and of equals the least CHAIR_s first: a step is what lowers the least so far.
        order = sorted(range(len(recall)), key=lambda run: (-recall[run], chair_s[run]))
        steps: list[int] = []
        for run in order:
            if not steps or chair_s[run] < chair_s[steps[-1]] - _ROUNDING:
                steps.append(run)
        steps.reverse()
        bounds = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
        draws = len(self._draws["recall"])
        bands = [np.percentile(_height(self._draws, np.full(draws, recall[run])), bounds) for run in steps]
        return Staircase(
            tuple(self._names[run] for run in steps),
            *(tuple(float(values[run]) for run in steps) for values in (recall, chair_s)),
            *(tuple(float(band[side]) for band in bands) for side in (0, 1)),
        )

    def minus(self, recall: tuple[float, Floats], chair_s: tuple[float, Floats]) -> Interval:
        """Return a run's CHAIR_s minus the staircase at its recall, each given over the corpus and in every draw."""
        here = float(_height(self._corpus, np.array([recall[0]]))[0])
        return interval(chair_s[0] - here, chair_s[1] - _height(self._draws, recall[1]))


def _height(runs: Mapping[str, Floats], recall: Floats) -> Floats:
    """Return the staircase at a recall a row; runs: [rows, runs]."""
    reached = np.minimum(recall, runs["recall"].max(axis=1))[:, None]
    height: Floats = np.where(runs["recall"] >= reached - _ROUNDING, runs["chair_s"], np.inf).min(axis=1)
    return height
