"""Set runs against a baseline: every column with its interval, paired differences, and the baseline cut short.

Images are resampled (metrics.bootstrap), with one matrix of draws for the captions of all runs and one a POPE split, so a
difference to the baseline is paired. Words for what the intervals say come from report.verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lmms_fixattn.metrics import bootstrap, chair, pope
from lmms_fixattn.metrics.bootstrap import Floats, Interval
from lmms_fixattn.metrics.degeneration import LOOPED_ABOVE
from lmms_fixattn.metrics.reading import FileError
from lmms_fixattn.metrics.truncation import Curve, Truncation, TruncationControl, count_prefixes
from lmms_fixattn.report.agreement import Agreement, CaptionKey, agree
from lmms_fixattn.report.runs import AnswerEntry, CaptionEntry, Run
from lmms_fixattn.report.verdict import verdict

CAPTION_COLUMNS = (
    "chair_s",
    "chair_i",
    "recall",
    "precision",
    "f1",
    "words",
    "chair_i_unique",
    "rep_4",
    "looped",
    "unterminated",
)
"""Columns of captions, as metrics.chair.corpus_figures names and defines them."""
POPE_FIGURES = ("accuracy", "f1", "yes_ratio")
"""Figures of each POPE split, as metrics.pope.figures defines them: columns pope_SPLIT_accuracy ..."""

Progress = Callable[[Sequence[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class Row:
    """One run of a comparison.

    Attributes:
        columns: "n" (captions; of a comparison without captions, answers), CAPTION_COLUMNS, pope_SPLIT_FIGURE, "seconds"
            (an answer) and "tokens_per_second"; only what the run has. Percent but for n, words and times.
        differences: this run minus the baseline, paired, of every column that has an interval in both; {} for the baseline.
        vs_truncation: what it does beyond the baseline cut to the same recall; None for the baseline, or without captions.
        verdict: what the intervals say, in words (report.verdict).
        captions: its scored captions (metrics.chair.score_caption), with "task", "image" (path or None) and "tokens".
    """

    name: str
    columns: dict[str, Interval]
    differences: dict[str, Interval] = field(default_factory=dict)
    vs_truncation: Truncation | None = None
    verdict: str = ""
    captions: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Runs over the same images, the baseline's row first.

    Attributes:
        by_task: rows of each caption task, where runs hold several; `rows` then pool all their captions.
        curve: the baseline's captions cut after k words; None without captions.
        notes: what a reader has to know beside the figures.
        n: images that are captioned, or without captions answers that are compared.
        settings: analyser, parser, draws, seed, level.
    """

    baseline: str
    rows: tuple[Row, ...]
    by_task: dict[str, tuple[Row, ...]]
    curve: Curve | None
    notes: tuple[str, ...]
    n: int
    settings: dict[str, Any]


def compare(
    runs: Sequence[Run],
    baseline: str | None,
    truth: Mapping[int, frozenset[str]] | None,
    analyser: chair.Analyser,
    draws: int = 1000,
    seed: int = 0,
    allow_differences: bool = False,
    parser: str = "official",
    progress: Progress = lambda items, _unit: items,
) -> Comparison:
    """Compare runs with a baseline over the images that they share.

    baseline: a run's name; None for the one run whose method is "vanilla", or else the first run. truth: image id ->
    true node words; None for what the runs logged beside their captions. analyser, parser: how captions become objects
    and answers yes or no, the same for every run. progress: wraps what takes long, as (items, unit).

    Raises FileError where runs may not be compared (agreement.agree), for two runs of one name, an unknown baseline,
    captions without truth, and runs that disagree about the truth of an image.
    """
    runs = _baseline_first(runs, baseline)
    agreement = agree(runs, allow_differences)
    _check_shares(runs, agreement)
    scored = _score(agreement, _truths(agreement, truth), analyser, progress)
    answers = _answer_figures(agreement, parser, draws, seed)
    tasks = list(dict.fromkeys(row["task"] for rows in scored.values() for row in rows))
    rows, curve = _rows(runs, scored, answers, draws, seed, analyser, progress)
    by_task: dict[str, tuple[Row, ...]] = {}
    if len(tasks) > 1:
        for task in tasks:
            of_task = {name: [row for row in rows if row["task"] == task] for name, rows in scored.items()}
            by_task[task], _ = _rows(runs, of_task, {}, draws, seed, analyser, progress)
    notes = [*agreement.notes, *_remarks(runs, scored, agreement, analyser, parser)]
    notes += [f"{row.name}: {row.vs_truncation.note}" for row in rows if row.vs_truncation and row.vs_truncation.note]
    return Comparison(
        baseline=runs[0].name,
        rows=rows,
        by_task=by_task,
        curve=curve,
        notes=tuple(notes),
        n=int(rows[0].columns["n"].value or 0),
        settings={
            "analyser": analyser.name,
            "parser": parser,
            "draws": draws,
            "seed": seed,
            "level": bootstrap.LEVEL,
        },
    )


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON can hold it, without the captions."""

    def row(one: Row) -> dict[str, Any]:
        beyond = one.vs_truncation
        return {
            "name": one.name,
            **{name: _bounds(column) for name, column in one.columns.items()},
            "differences": {name: _bounds(column) for name, column in one.differences.items()},
            "vs_truncation": beyond
            and {
                "chair_s": _bounds(beyond.chair_s),
                "chair_i": _bounds(beyond.chair_i),
                "baseline_words": beyond.baseline_words,
                "note": beyond.note,
            },
            "verdict": one.verdict,
        }

    return {
        "baseline": comparison.baseline,
        "n": comparison.n,
        "settings": comparison.settings,
        "notes": list(comparison.notes),
        "rows": [row(one) for one in comparison.rows],
        "by_task": {task: [row(one) for one in rows] for task, rows in comparison.by_task.items()},
        "curve": comparison.curve
        and {
            "recall": list(comparison.curve.recall),
            "chair_s": list(comparison.curve.chair_s),
            "chair_i": list(comparison.curve.chair_i),
        },
    }


def _bounds(column: Interval) -> dict[str, float | None]:
    return {"value": column.value, "low": column.low, "high": column.high}


def _baseline_first(runs: Sequence[Run], baseline: str | None) -> list[Run]:
    from difflib import get_close_matches

    names = [run.name for run in runs]
    if len(runs) < 2:
        raise FileError(f"a comparison needs at least two runs, not {len(runs)}")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise FileError(f"two runs are called {twice[0]!r}; name them apart as NAME=path")
    if baseline is None:
        methods = [run.record.get("lmms_fixattn", {}).get("method", {}).get("name") for run in runs]
        chosen = methods.index("vanilla") if methods.count("vanilla") == 1 else 0
    elif baseline in names:
        chosen = names.index(baseline)
    else:
        close = get_close_matches(baseline, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise FileError(f"baseline {baseline!r} is none of the runs {', '.join(names)}{hint}")
    return [runs[chosen], *runs[:chosen], *runs[chosen + 1 :]]


def _check_shares(runs: Sequence[Run], agreement: Agreement) -> None:
    """Refuse a run that has neither captions nor a POPE split that the baseline has as well."""

    def parts(run: Run) -> set[str]:
        splits = {
            f"answers of POPE {split}".strip() for split, having in agreement.answers.items() if run.name in having
        }
        return splits | ({"captions"} if run.name in agreement.captions else set())

    ours = parts(runs[0])
    for run in runs[1:]:
        theirs = parts(run)
        if not ours & theirs:
            raise FileError(
                f"{run.name} has {' and '.join(sorted(theirs))}, the baseline {runs[0].name} has "
                f"{' and '.join(sorted(ours))}: nothing to compare"
            )
        if ours != theirs:
            which = sorted(ours ^ theirs)
            agreement.notes.append(f"{run.name} and {runs[0].name} do not both have {', '.join(which)}")


def _truths(agreement: Agreement, truth: Mapping[int, frozenset[str]] | None) -> dict[CaptionKey, frozenset[str]]:
    keys = next(iter(agreement.captions.values()), {})
    if truth is not None:
        if lacking := [image_id for _, image_id in keys if image_id not in truth]:
            raise FileError(
                f"{len(lacking)} of {len(keys)} captioned images have no truth, the first is image {lacking[0]}"
            )
        return {key: truth[key[1]] for key in keys}
    found: dict[CaptionKey, frozenset[str]] = {}
    source: dict[CaptionKey, str] = {}
    for name, entries in agreement.captions.items():
        for key, entry in entries.items():
            if entry.truth is None:
                continue
            if found.setdefault(key, entry.truth) != entry.truth:
                raise FileError(
                    f"{source[key]} and {name} disagree about what image {key[1]} shows: {sorted(found[key])} and "
                    f"{sorted(entry.truth)}; give the truth with --ground-truth or --coco"
                )
            source.setdefault(key, name)
    if lacking := [image_id for task, image_id in keys if (task, image_id) not in found]:
        raise FileError(
            f"no run says what {len(lacking)} of {len(keys)} captioned images show, the first is image {lacking[0]}; "
            "give the truth with --ground-truth or --coco"
        )
    return found


def _score(
    agreement: Agreement, truth: Mapping[CaptionKey, frozenset[str]], analyser: chair.Analyser, progress: Progress
) -> dict[str, list[dict[str, Any]]]:
    def score(key: CaptionKey, entry: CaptionEntry) -> dict[str, Any]:
        row = chair.score_caption(entry.image_id, entry.text, truth[key], analyser, entry.terminated)
        image = None if entry.image is None else str(entry.image)
        return row | {"task": key[0], "image": image, "tokens": entry.tokens}

    every = [(name, *item) for name, entries in agreement.captions.items() for item in entries.items()]
    scored: dict[str, list[dict[str, Any]]] = {name: [] for name in agreement.captions}
    for name, key, entry in progress(every, "captions"):
        scored[name].append(score(key, entry))
    return scored


@dataclass(frozen=True)
class _Figures:
    """Figures of one run: over the corpus [columns] and in every draw [draws, columns]."""

    names: tuple[str, ...]
    values: Floats
    drawn: Floats
    n: int

    def column(self, name: str) -> tuple[float, Floats]:
        place = self.names.index(name)
        return float(self.values[place]), self.drawn[:, place]


def _figures(names: tuple[str, ...], weights: Floats, parts: Floats, wholes: Floats, scales: Floats) -> _Figures:
    ones = bootstrap.corpus_weights(len(parts))
    values = bootstrap.ratios(ones, parts, wholes)[0] * scales
    return _Figures(names, values, bootstrap.ratios(weights, parts, wholes) * scales, len(parts))


def _caption_figures(rows: Sequence[Mapping[str, Any]], weights: Floats) -> _Figures:
    """Return CAPTION_COLUMNS as ratios of sums over captions; F1 of a/b and a/c is 2a / (b + c)."""

    def sums(count: Callable[[Mapping[str, Any]], float]) -> Floats:
        return np.array([count(row) for row in rows], dtype=np.float64)

    one = np.ones(len(rows))
    mentioned, wrong = sums(lambda row: len(row["objects"])), sums(lambda row: len(row["hallucinated"]))
    unique, found = sums(lambda row: row["unique_objects"]), sums(lambda row: row["unique_true_objects"])
    true = sums(lambda row: row["true_objects"])
    columns: dict[str, tuple[Floats, Floats]] = {
        "chair_s": (sums(lambda row: bool(row["hallucinated"])), one),
        "chair_i": (wrong, mentioned),
        "recall": (found, true),
        "precision": (found, unique),
        "f1": (2 * found, true + unique),
        "words": (sums(lambda row: row["words"]), one),
        "chair_i_unique": (unique - found, unique),
        "rep_4": (sums(lambda row: row["rep_4"]), one),
        "looped": (sums(lambda row: row["rep_4"] > 100 * LOOPED_ABOVE), one),
        "unterminated": (sums(lambda row: not row["terminated"]), one),
    }
    parts, wholes = (np.stack(side, axis=1) for side in zip(*(columns[name] for name in CAPTION_COLUMNS), strict=True))
    # Words and rep_4 are means of what is no share.
    scales = np.array([0.01 if name in ("words", "rep_4") else 1.0 for name in CAPTION_COLUMNS])
    return _figures(CAPTION_COLUMNS, weights, parts, wholes, scales)


def _answer_figures(agreement: Agreement, parser: str, draws: int, seed: int) -> dict[str, list[_Figures]]:
    """Return each run's figures of its POPE splits, an image's questions summed before images are drawn."""
    found: dict[str, list[_Figures]] = {}
    for split, having in agreement.answers.items():
        clusters = np.array(agreement.clusters[split])
        images = int(clusters.max()) + 1
        weights = bootstrap.draw_weights(images, draws, seed)
        prefix = f"pope_{split}_" if split else "pope_"
        names = tuple(prefix + figure for figure in POPE_FIGURES)
        for name, answers in having.items():
            counts = np.zeros((images, 5))
            np.add.at(counts, clusters, np.array([_counts(answer, parser) for answer in answers], dtype=np.float64))
            tp, fp, tn, fn, asked = counts.T
            parts = np.stack([tp + tn, 2 * tp, tp + fp], axis=1)
            wholes = np.stack([asked, 2 * tp + fp + fn, asked], axis=1)
            figures = _figures(names, weights, parts, wholes, np.ones(3))
            found.setdefault(name, []).append(replace(figures, n=len(answers)))
    return found


def _counts(answer: AnswerEntry, parser: str) -> tuple[bool, bool, bool, bool, int]:
    predicted, label = pope.parse_answer(answer.answer, parser), answer.label
    return (
        predicted == label == "yes",
        predicted == "yes" != label,
        predicted == label == "no",
        predicted == "no" != label,
        1,
    )


def _rows(
    runs: Sequence[Run],
    scored: Mapping[str, list[dict[str, Any]]],
    answers: Mapping[str, list[_Figures]],
    draws: int,
    seed: int,
    analyser: chair.Analyser,
    progress: Progress,
) -> tuple[tuple[Row, ...], Curve | None]:
    """Return the rows of runs whose captions are scored, in the runs' order, and the baseline's curve."""
    first = runs[0].name
    weights = None
    if scored:
        weights = bootstrap.draw_weights(len(next(iter(scored.values()))), draws, seed)
    control = None
    if weights is not None and first in scored:
        captions = [(row["caption"], frozenset(row["truth"])) for row in scored[first]]
        control = TruncationControl(count_prefixes(progress(captions, "captions cut short"), analyser), weights)
    every = {run.name: list(answers.get(run.name, [])) for run in runs}
    if weights is not None:
        for name, rows in scored.items():
            every[name].insert(0, _caption_figures(rows, weights))
    found = []
    for run in runs:
        figures = every[run.name]
        n = len(scored[run.name]) if run.name in scored else sum(part.n for part in figures)
        columns = {"n": Interval(float(n))}
        for part in figures:
            columns |= {name: bootstrap.interval(*part.column(name)) for name in part.names}
        columns |= _times(run)
        row = Row(run.name, columns, captions=tuple(scored.get(run.name, ())))
        if run.name != first:
            row = replace(row, differences=_differences(figures, every[first]))
            if control is not None and run.name in scored:
                own = [figures[0].column(name) for name in ("recall", "chair_s", "chair_i")]
                row = replace(row, vs_truncation=control.compare([a for a, _ in own], [b for _, b in own]))
        found.append(replace(row, verdict=verdict(row.columns, row.differences, row.vs_truncation, run.name == first)))
    return tuple(found), control and control.curve


def _differences(figures: Sequence[_Figures], baseline: Sequence[_Figures]) -> dict[str, Interval]:
    theirs = {part.names: part for part in baseline}
    found = {}
    for part in figures:
        for name in part.names if part.names in theirs else ():
            (value, drawn), (base, base_drawn) = part.column(name), theirs[part.names].column(name)
            found[name] = bootstrap.interval(value - base, drawn - base_drawn)
    return found


def _times(run: Run) -> dict[str, Interval]:
    if not run.seconds or not run.requests:
        return {}
    times = {"seconds": Interval(run.seconds / run.requests)}
    if run.generated_tokens:
        times["tokens_per_second"] = Interval(run.generated_tokens / run.seconds)
    return times


def _remarks(
    runs: Sequence[Run],
    scored: Mapping[str, Sequence[Mapping[str, Any]]],
    agreement: Agreement,
    analyser: chair.Analyser,
    parser: str,
) -> list[str]:
    notes = []
    for name, rows in scored.items():
        if empty := sum(not row["caption"].strip() for row in rows):
            notes.append(
                f"{name}: {empty} of {len(rows)} captions are empty, which CHAIR takes for free of hallucination"
            )
    for having in agreement.answers.values():
        for name, answers in having.items():
            if empty := sum(pope.is_unparsed(answer.answer) for answer in answers):
                notes.append(f"{name}: {empty} of {len(answers)} answers hold neither a yes nor a no word")
    for key, used in (("analyser", analyser.name), ("parser", parser)):
        for run in runs:
            stated = {task[key] for task in run.record.get("tasks", {}).values() if key in task} - {used}
            if stated:
                notes.append(f"{run.name} was scored with {key} {', '.join(sorted(stated))}, here with {used}")
    timed = [run for run in runs if run.seconds]
    if len({tuple(sorted([*run.captions, *run.answers])) for run in timed}) > 1:
        notes.append("the timed runs answered different tasks: their seconds an answer do not compare")
    return notes
