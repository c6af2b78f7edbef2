"""The controls that a run's captions are held against: the baseline cut short, equal length, and runs without a fix."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from lmms_fixattn.report.columns import Display, Figures
from lmms_fixattn.report.runs import Run
from lmms_fixattn.scoring.bootstrap import Floats, ratios
from lmms_fixattn.scoring.count_model import rate_ratio
from lmms_fixattn.scoring.staircase import Staircase, StaircaseControl
from lmms_fixattn.scoring.truncation import PrefixCounts, TruncationControl

CONTROLS = ("vanilla", "truncate", "brief", "beam", "nucleus", "repetition_penalty", "no_repeat_ngram")
"""Methods of this package that change neither attention nor logits by what the model sees: they ask, choose tokens or
stop. What they achieve is to be had without a fix."""

BESIDE = {
    "length_matched": Display("length-matched", "lower"),
    "rate_ratio": Display("rate ratio", "lower"),
    "vs_controls": Display("vs control runs", "lower"),
}
"""Further controls of a row (report.compare.Row), none of which decides its verdict."""


def control_runs(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the names of the runs whose record says that their method, in all its parts, is one of CONTROLS."""
    methods = {run.name: run.record.get("lmms_fixattn", {}).get("method", {}).get("name") for run in runs}
    return tuple(name for name, method in methods.items() if method and set(method.split("+")) <= set(CONTROLS))


class BaselineControls:
    """The controls of one baseline's captions, over the corpus and in every draw of a bootstrap."""

    def __init__(
        self,
        baseline: str,
        prefixes: PrefixCounts,
        captions: Mapping[str, Sequence[Mapping[str, Any]]],
        figures: Mapping[str, Figures],
        weights: Floats,
        controls: Collection[str],
    ) -> None:
        """Take the baseline's prefixes, and of every run its scored captions and their figures in the draws' weights.

        controls: the control runs, by name; the baseline goes with them.
        """
        self._captions, self._figures, self._weights = captions, figures, weights
        self._baseline = baseline
        self._runs = {name for name in controls if name in captions and name != baseline}
        self.cuts = TruncationControl(prefixes, weights)
        self._steps = (
            StaircaseControl({name: _columns(figures[name]) for name in captions if name in {baseline, *self._runs}})
            if self._runs
            else None
        )

    @property
    def staircase(self) -> Staircase | None:
        """The steps of the control runs and the baseline; None where there is no control run."""
        return None if self._steps is None else self._steps.staircase()

    def hold(self, name: str) -> dict[str, Any]:
        """Return what a run, which is not the baseline, does beside the controls: fields of report.compare.Row."""
        own = _columns(self._figures[name])
        counts, base = _counts(self._captions[name]), _counts(self._captions[self._baseline])
        one = np.ones(len(counts[1]))
        words = float(counts[1].mean()), ratios(self._weights, counts[1], one, scale=1.0)
        apart = self._steps is None or name in self._runs
        return {
            "vs_truncation": self.cuts.compare(own),
            "length_matched": self.cuts.at_length(words, own["chair_s"]),
            "rate_ratio": rate_ratio(counts, base),
            "vs_controls": None if apart or self._steps is None else self._steps.minus(own["recall"], own["chair_s"]),
        }


def _columns(figures: Figures) -> dict[str, tuple[float, Floats]]:
    return {name: figures.columns[name] for name in ("recall", "chair_s", "chair_i", "chair_i_unique")}


def _counts(captions: Sequence[Mapping[str, Any]]) -> tuple[Floats, Floats]:
    """Return (hallucinated objects, each once; words between blanks) of scored captions, each [n]."""
    wrong = [row["unique_objects"] - row["unique_true_objects"] for row in captions]
    words = [len(row["caption"].split()) for row in captions]
    return np.array(wrong, dtype=np.float64), np.array(words, dtype=np.float64)
