"""Set runs against a baseline: every column with its interval, paired differences, and the baseline cut short.

Images are resampled (scoring.bootstrap), with one matrix of draws for the captions of all runs and one a POPE split, so
that a difference to the baseline is paired. What the intervals say in words comes from report.verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lmms_fixattn.errors import UserError, did_you_mean
from lmms_fixattn.report import recorded
from lmms_fixattn.report.agreement import Agreement, CaptionKey, agree
from lmms_fixattn.report.columns import Figures, answer_figures, caption_figures, times
from lmms_fixattn.report.controls import BESIDE, BaselineControls, control_runs
from lmms_fixattn.report.runs import AnswerEntry, Run
from lmms_fixattn.report.verdict import Kind, kinds, verdict
from lmms_fixattn.scoring import bootstrap, chair, pope
from lmms_fixattn.scoring.bootstrap import Interval
from lmms_fixattn.scoring.silence import said_of_silence, too_silent
from lmms_fixattn.scoring.staircase import Staircase
from lmms_fixattn.scoring.truncation import Curve, PrefixCounts, Truncation, count_prefixes

Scored = dict[str, Any]
"""A caption's row: scoring.chair.score_caption, and "task", "image", "tokens"."""
Progress = Callable[[Sequence[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class Row:
    """One run of a comparison.

    Attributes:
        columns: "n" (captions; of a run without captions, answers), columns.CAPTION_COLUMNS, pope_SPLIT_FIGURE and
            pope_SPLIT_n, "seconds" (a request) and "tokens_per_second"; only what the run has. Percent but for counts,
            words and times.
        differences: this run minus the baseline, paired, of each column with an interval in both; {} for the baseline.
        vs_truncation: what it does beyond the baseline cut to its recall; None for the baseline, and without captions.
        holm: the p of its two claims on CHAIR_s after Holm over the rows that are compared with the baseline, each
            claim a family of its own: "chair_s" (the paired difference is not 0) and "beyond" (vs_truncation.chair_s is
            below 0). Intervals are raw. {} for the baseline, and without captions.
        verdict: what the intervals say, in words (report.verdict).
        kinds: what that comes to, of "captions" and each "POPE split" (report.verdict.kinds); {} for the baseline.
        captions: its scored captions (scoring.chair.score_caption), with "task", "image" (path or None) and "tokens".
        length_matched: CHAIR_s minus that of the best of the baseline's cuts with as many mean words; None for the
            baseline, without captions, and for a run of more words than the baseline's.
        rate_ratio: hallucinated objects for one of the baseline's in captions of equal length, by a count model
            (scoring.count_model), 1 is no difference; None for the baseline, and without captions.
        vs_controls: CHAIR_s minus the staircase of the control runs at its recall (scoring.staircase); None for the
            baseline and the control runs, and where there is no control run.
    """

    name: str
    columns: dict[str, Interval]
    differences: dict[str, Interval] = field(default_factory=dict)
    vs_truncation: Truncation | None = None
    holm: dict[str, float] = field(default_factory=dict)
    verdict: str = ""
    kinds: dict[str, Kind] = field(default_factory=dict)
    captions: tuple[dict[str, Any], ...] = ()
    length_matched: Interval | None = None
    rate_ratio: Interval | None = None
    vs_controls: Interval | None = None


@dataclass(frozen=True)
class Comparison:
    """Runs over the same images, the baseline's row first.

    Attributes:
        by_task: rows of each caption task, where runs hold several; `rows` then pool all their captions.
        curve: the best of the baseline's cuts at each recall, with its 95% band; None without captions.
        staircase: of the control runs and the baseline; None where there is no control run.
        notes: what a reader has to know beside the figures.
        n: images that are captioned, or without captions answers that are compared.
        settings: analyser, parser, draws, seed, level.
        records: what each lmms-eval result states of itself (report.runs.Run.record), by run.
        answers: POPE split -> run -> its answers, to the same questions in the same order.
    """

    baseline: str
    rows: tuple[Row, ...]
    by_task: dict[str, tuple[Row, ...]]
    curve: Curve | None
    notes: tuple[str, ...]
    n: int
    settings: dict[str, Any]
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    answers: Mapping[str, Mapping[str, tuple[AnswerEntry, ...]]] = field(default_factory=dict)
    staircase: Staircase | None = None


def compare(
    runs: Sequence[Run],
    baseline: str | None,
    truth: Mapping[int, frozenset[str]] | None,
    analyser: chair.Analyser,
    draws: int = bootstrap.DRAWS,
    seed: int = 0,
    allow_differences: bool = False,
    parser: str = "official",
    progress: Progress = lambda items, _unit: items,
    controls: Collection[str] | None = None,
) -> Comparison:
    """Compare runs with a baseline over the images that they share.

    baseline: a run's name; None for the one run whose method is "vanilla", or else the first run. truth: image id ->
    true node words; None for what the runs logged beside their captions. analyser, parser: how captions become objects
    and answers yes or no, the same for every run. progress: wraps what takes long, as (items, unit). controls: the
    control runs, by name; None for those whose record says so (report.controls).

    Raises UserError where runs may not be compared (agreement.agree), for two runs of one name, an unknown baseline,
    captions without truth, and runs that disagree about the truth of an image.
    """
    runs = _baseline_first(runs, baseline)
    agreement = agree(runs, allow_differences)
    _check_shares(runs, agreement)
    scored = _score(agreement, _truths(agreement, truth), analyser, progress)
    prefixes = None
    if own := scored.get(runs[0].name):
        captions = [(row["caption"], frozenset(row["truth"])) for row in own]
        prefixes = count_prefixes(progress(captions, "captions cut short"), analyser)
    controls = control_runs(runs) if controls is None else controls
    rows, held = _rows(runs, scored, prefixes, _answers(agreement, parser, draws, seed), draws, seed, controls)
    # Times are of a whole run, not of a caption task.
    rows = tuple(replace(row, columns=row.columns | times(run)) for row, run in zip(rows, runs, strict=True))
    by_task: dict[str, tuple[Row, ...]] = {}
    of_row = [row["task"] for row in next(iter(scored.values()), [])]
    for task in dict.fromkeys(of_row) if own and len(set(of_row)) > 1 else ():
        places = [place for place, name in enumerate(of_row) if name == task]
        cut_short = prefixes and prefixes.of(places)
        chosen = {name: [captions[place] for place in places] for name, captions in scored.items()}
        having = [run for run in runs if run.name in scored]
        by_task[task], _ = _rows(having, chosen, cut_short, {}, draws, seed, controls)
    notes = [*recorded.misnamed(runs), *recorded.methods(runs), *recorded.alike(runs), *agreement.notes]
    notes += _remarks(runs, scored, agreement, analyser, parser)
    if longer := [row.name for row in rows if row.vs_truncation and row.length_matched is None]:
        notes.append(f"no cut of {runs[0].name} has as many words as {', '.join(longer)}: no length-matched difference")
    notes += [f"{row.name}: {row.vs_truncation.note}" for row in rows if row.vs_truncation and row.vs_truncation.note]
    if (several := sum(row.vs_truncation is not None for row in rows)) > 1:
        notes.append(
            f"several runs: the {several} differences of CHAIR_s are a family of tests and the {several} of CHAIR_s "
            f"beyond brevity another, each corrected by Holm at {100 * (1 - bootstrap.LEVEL):.0f}%; every interval is "
            "raw, as of one run alone"
        )
    return Comparison(
        baseline=runs[0].name,
        rows=rows,
        by_task=by_task,
        curve=None if held is None else held.cuts.curve(),
        notes=tuple(notes),
        n=len(of_row) or sum(map(len, agreement.clusters.values())),
        settings={"analyser": analyser.name, "parser": parser, "draws": draws, "seed": seed, "level": bootstrap.LEVEL},
        records={run.name: run.record for run in runs if run.record},
        answers=agreement.answers,
        staircase=None if held is None else held.staircase,
    )


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON can hold it, without the captions."""

    def row(one: Row) -> dict[str, Any]:
        beyond = one.vs_truncation
        return {
            "name": one.name,
            **{name: asdict(column) for name, column in one.columns.items()},
            "differences": {name: asdict(column) for name, column in one.differences.items()},
            "vs_truncation": beyond and asdict(beyond) | {"smallest_shown": beyond.chair_s.smallest_fall},
            **{name: None if (held := getattr(one, name)) is None else asdict(held) for name in BESIDE},
            "holm": one.holm,
            "verdict": one.verdict,
            "kinds": one.kinds,
        }

    return {
        "baseline": comparison.baseline,
        "n": comparison.n,
        "settings": comparison.settings,
        "notes": list(comparison.notes),
        "rows": [row(one) for one in comparison.rows],
        "by_task": {task: [row(one) for one in rows] for task, rows in comparison.by_task.items()},
        "curve": comparison.curve and {name: list(values) for name, values in asdict(comparison.curve).items()},
        "staircase": comparison.staircase and asdict(comparison.staircase),
    }


def _baseline_first(runs: Sequence[Run], baseline: str | None) -> list[Run]:
    names = [run.name for run in runs]
    if not runs:
        raise UserError("a comparison needs at least one run: a folder or file, or NAME=path")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"two runs are called {twice[0]!r}; name them apart as NAME=path")
    if baseline is None:
        methods = [run.record.get("lmms_fixattn", {}).get("method", {}).get("name") for run in runs]
        chosen = methods.index("vanilla") if methods.count("vanilla") == 1 else 0
    elif baseline in names:
        chosen = names.index(baseline)
    else:
        raise UserError(f"baseline {baseline!r} is none of the runs {', '.join(names)}{did_you_mean(baseline, names)}")
    return [runs[chosen], *runs[:chosen], *runs[chosen + 1 :]]


def _check_shares(runs: Sequence[Run], agreement: Agreement) -> None:
    """Refuse a run that has neither captions nor a POPE split that the baseline has as well."""
    data = {f"answers of POPE {split}".strip(): set(having) for split, having in agreement.answers.items()}
    data["captions"] = set(agreement.captions)
    parts = {run.name: {what for what, having in data.items() if run.name in having} for run in runs}
    (first, ours), *others = parts.items()
    for name, theirs in others:
        if not ours & theirs:
            raise UserError(
                f"{name} has {' and '.join(sorted(theirs))}, the baseline {first} has {' and '.join(sorted(ours))}: "
                "nothing to compare"
            )
        if ours != theirs:
            agreement.notes.append(f"{name} and {first} do not both have {', '.join(sorted(ours ^ theirs))}")


def _truths(agreement: Agreement, truth: Mapping[int, frozenset[str]] | None) -> dict[CaptionKey, frozenset[str]]:
    keys = next(iter(agreement.captions.values()), {})
    found = {key: truth[key[1]] for key in keys if key[1] in truth} if truth is not None else {}
    source: dict[CaptionKey, str] = {}
    for name, entries in agreement.captions.items() if truth is None else ():
        for key, entry in entries.items():
            if entry.truth is None:
                continue
            if found.setdefault(key, entry.truth) != entry.truth:
                raise UserError(
                    f"{source[key]} and {name} disagree about what image {key[1]} shows: {sorted(found[key])} and "
                    f"{sorted(entry.truth)}; give the truth with --ground-truth or --coco"
                )
            source.setdefault(key, name)
    if lacking := [key[1] for key in keys if key not in found]:
        raise UserError(
            f"{len(lacking)} of {len(keys)} captioned images have no known truth, the first is image {lacking[0]}; "
            "give the truth with --ground-truth or --coco"
        )
    return found


def _score(
    agreement: Agreement, truth: Mapping[CaptionKey, frozenset[str]], analyser: chair.Analyser, progress: Progress
) -> dict[str, list[Scored]]:
    every = [(name, *item) for name, entries in agreement.captions.items() for item in entries.items()]
    scored: dict[str, list[Scored]] = {name: [] for name in agreement.captions}
    for name, key, entry in progress(every, "captions"):
        row = chair.score_caption(entry.image_id, entry.text, truth[key], analyser, entry.terminated)
        image = None if entry.image is None else str(entry.image)
        scored[name].append(row | {"task": key[0], "image": image, "tokens": entry.tokens})
    return scored


def _answers(agreement: Agreement, parser: str, draws: int, seed: int) -> dict[str, list[Figures]]:
    """Return each run's figures of its POPE splits."""
    found: dict[str, list[Figures]] = {}
    for split, having in agreement.answers.items():
        clusters = agreement.clusters[split]
        weights = bootstrap.draw_weights(max(clusters) + 1, draws, seed)
        for name, answers in having.items():
            found.setdefault(name, []).append(answer_figures(split, answers, clusters, weights, parser))
    return found


def _rows(
    runs: Sequence[Run],
    scored: Mapping[str, Sequence[Scored]],
    prefixes: PrefixCounts | None,
    answers: Mapping[str, Sequence[Figures]],
    draws: int,
    seed: int,
    control_names: Collection[str],
) -> tuple[tuple[Row, ...], BaselineControls | None]:
    """Return the runs' rows in order, and the controls of the first one's captions, whose prefixes are counted."""
    first = runs[0].name
    figures: dict[str, list[Figures]] = {run.name: list(answers.get(run.name, ())) for run in runs}
    controls = None
    if scored:
        weights = bootstrap.draw_weights(len(next(iter(scored.values()))), draws, seed)
        of_captions = {name: caption_figures(captions, weights) for name, captions in scored.items()}
        for name, found in of_captions.items():
            figures[name].insert(0, found)
        if prefixes is not None:
            controls = BaselineControls(first, prefixes, scored, of_captions, weights, control_names)
    rows: list[Row] = []
    images: dict[str, dict[str, int]] = {}
    p_values: dict[str, dict[str, float]] = {"chair_s": {}, "beyond": {}}
    for run in runs:
        parts, captions = figures[run.name], tuple(scored.get(run.name, ()))
        row = Row(run.name, {"n": Interval(len(captions) or sum(part.entries for part in parts))}, captions=captions)
        for part in parts:
            row.columns.update({part.counted: Interval(part.entries), **part.intervals()})
        if run.name != first:
            pairs = [(part, other) for part in parts for other in figures[first]]
            minus = [part.minus(other) for part, other in pairs if part.columns.keys() == other.columns.keys()]
            images[run.name] = {name: part.images for part in minus for name in part.columns}
            for part in minus:
                row.differences.update(part.intervals())
            if controls is not None and captions:
                held = controls.hold(run.name)
                row = replace(row, **held)
                p_values["beyond"][run.name] = held["vs_truncation"].p
                p_values["chair_s"][run.name] = bootstrap.p_value(minus[0].columns["chair_s"][1])
        rows.append(row)
    for claim, of_run in p_values.items():
        for name, p in zip(of_run, bootstrap.holm(list(of_run.values())), strict=True):
            next(row for row in rows if row.name == name).holm[claim] = p
    tests = len(p_values["beyond"])
    judged = [_judged(row, images[row.name], tests, _withheld(row.name, first, scored)) for row in rows[1:]]
    return (replace(rows[0], verdict="the baseline"), *judged), controls


def _judged(row: Row, images: Mapping[str, int], tests: int, withheld: str) -> Row:
    """Return a row with its verdict; withheld: why there is none on its captions, "" where there is one."""
    compared, beyond = row.differences, row.vs_truncation
    if withheld:
        compared = {name: found for name, found in compared.items() if name.startswith("pope_")}
        beyond = None
    said = "; ".join(filter(None, [withheld, verdict(row.columns, compared, beyond, images, row.holm, tests)]))
    told: dict[str, Kind] = {"captions": "withheld"} if withheld else {}
    return replace(row, verdict=said, kinds=told | kinds(compared, beyond, images, row.holm))


def _withheld(name: str, first: str, scored: Mapping[str, Sequence[Scored]]) -> str:
    """Return why no verdict is given on a run's captions, "" where one is: CHAIR finds no fault in silence."""
    for silent, whose in ((name, "its"), (first, "the baseline's")):
        if name in scored and too_silent(rows := scored.get(silent, ())):
            number = sum(not row["objects"] for row in rows)
            return (
                f"captions: no verdict, {number} of {whose} {len(rows)} name no object, which CHAIR takes for faultless"
            )
    return ""


def _remarks(
    runs: Sequence[Run],
    scored: Mapping[str, Sequence[Scored]],
    agreement: Agreement,
    analyser: chair.Analyser,
    parser: str,
) -> list[str]:
    notes = [note for run in runs for note in run.notes]
    for name, rows in scored.items():
        if said := said_of_silence(rows):
            notes.append(f"{name}: {said.removeprefix('careful: ')}")
    for split, having in agreement.answers.items():
        for name, answers in having.items():
            if empty := sum(pope.is_unparsed(answer.answer) for answer in answers):
                what = f"answers of POPE {split}".strip()
                notes.append(f"{name}: {empty} of {len(answers)} {what} hold neither a yes nor a no word")
    for run in runs:
        answered = [{"label": one.label, "answer": one.answer} for having in run.answers.values() for one in having]
        otherwise = pope.read_otherwise(answered, parser)
        if any(otherwise.values()):
            read = ", ".join(f"{name} {count}" for name, count in otherwise.items())
            notes.append(
                f"{run.name}: of {len(answered)} POPE answers other parsers read otherwise than {parser}: {read}"
            )
    for key, used in (("analyser", analyser.name), ("parser", parser)):
        for run in runs:
            stated = {task[key] for task in run.record.get("tasks", {}).values() if key in task} - {used}
            if stated:
                notes.append(f"{run.name} was scored with {key} {', '.join(sorted(stated))}, here with {used}")
    timed = [run for run in runs if run.seconds]
    if len({tuple(sorted([*run.captions, *run.answers])) for run in timed}) > 1:
        notes.append("the timed runs answered different tasks: their seconds an answer do not compare")
    return notes
