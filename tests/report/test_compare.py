from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lmms_fixattn.errors import UserError
from lmms_fixattn.report.columns import CAPTION_COLUMNS, caption_figures
from lmms_fixattn.report.compare import Comparison, compare, to_json
from lmms_fixattn.report.controls import CONTROLS
from lmms_fixattn.report.runs import AnswerEntry, CaptionEntry, Run, read_run
from lmms_fixattn.scoring import bootstrap, chair, pope
from lmms_fixattn.scoring.count_model import rate_ratio
from lmms_fixattn.scoring.files.reading import read_ground_truth
from lmms_fixattn.scoring.objects.coco_objects import CATEGORIES
from lmms_fixattn.scoring.staircase import StaircaseControl
from lmms_fixattn.scoring.truncation import TruncationControl, count_prefixes

LEXICON = chair.make_analyser()
N = 41


def text(draw: random.Random, most: int) -> str:
    names = draw.choices(CATEGORIES[:9], k=draw.randint(0, most))
    return " and ".join(["a photo", *(f"a {name}" for name in names)]) + draw.choice(
        [".", "", " of it of it of it of it."]
    )


TRUTH = {image: frozenset(random.Random(image).sample(CATEGORIES[:11], image % 5)) for image in range(1, N + 1)}


def captioned(name: str, seed: int, most: int = 6, task: str = "") -> Run:
    draw = random.Random(seed)
    entries = tuple(CaptionEntry(image, text(draw, most), draw.choice([True, False, None])) for image in TRUTH)
    return Run(name, Path(name), {task: entries})


def asked(name: str, seed: int, split: str) -> Run:
    draw, same = random.Random(seed), random.Random(99)
    entries = tuple(
        AnswerEntry(image, f"A {word}?", same.choice(["yes", "no"]), draw.choice(["Yes", "No, none.", "Perhaps"]))
        for image in TRUTH
        for word in CATEGORIES[:3]
    )
    return Run(name, Path(name), answers={split: entries})


def both(name: str, seed: int) -> Run:
    return replace(captioned(name, seed), answers=asked(name, seed, "random").answers)


def made(*runs: Run, baseline: str | None = None, draws: int = 60, parser: str = "official") -> Comparison:
    return compare(runs, baseline, TRUTH, LEXICON, draws=draws, seed=3, parser=parser)


def test_every_figure_is_that_of_the_scorers() -> None:
    runs = [both("a", 1), both("b", 2)]
    for parser in pope.PARSERS:
        comparison = made(*runs, parser=parser)
        for run, row in zip(runs, comparison.rows, strict=True):
            expected = chair.corpus_figures(
                [
                    chair.score_caption(e.image_id, e.text, TRUTH[e.image_id], LEXICON, e.terminated)
                    for e in run.captions[""]
                ]
            )
            for name in CAPTION_COLUMNS:
                assert row.columns[name].value == pytest.approx(expected[name]), name
            assert row.columns["n"].value == comparison.n == N
            answers = [{"label": entry.label, "answer": entry.answer} for entry in run.answers["random"]]
            figures = pope.figures(answers, parser)
            for name in ("accuracy", "f1", "yes_ratio"):
                assert row.columns[f"pope_random_{name}"].value == pytest.approx(figures[name]), name


def test_intervals_and_differences_are_those_of_scoring_every_drawn_corpus() -> None:
    runs = [both("a", 1), both("b", 2)]
    comparison = made(*runs, draws=40)
    weights = bootstrap.draw_weights(N, 40, 3)
    drawn: list[dict[str, list[float]]] = [{}, {}]
    for counts in weights:
        images = [image for image, count in zip(TRUTH, counts, strict=True) for _ in range(int(count))]
        for run, figures in zip(runs, drawn, strict=True):
            captions = {entry.image_id: entry for entry in run.captions[""]}
            rows = [chair.score_caption(i, captions[i].text, TRUTH[i], LEXICON, captions[i].terminated) for i in images]
            for name, value in chair.corpus_figures(rows).items():
                figures.setdefault(name, []).append(float(value))
            # The three questions of an image are drawn with it.
            answers = [
                {"label": entry.label, "answer": entry.answer}
                for image in images
                for entry in run.answers["random"]
                if entry.image_id == image
            ]
            for name, value in pope.figures(answers).items():
                figures.setdefault(f"pope_random_{name}", []).append(float(value))
    names = [*CAPTION_COLUMNS, "pope_random_accuracy", "pope_random_f1", "pope_random_yes_ratio"]
    for row, figures in zip(comparison.rows, drawn, strict=True):
        for name in names:
            low, high = np.percentile(figures[name], [2.5, 97.5])
            assert (row.columns[name].low, row.columns[name].high) == pytest.approx((low, high)), name
    for name in names:
        difference = comparison.rows[1].differences[name]
        low, high = np.percentile(np.array(drawn[1][name]) - np.array(drawn[0][name]), [2.5, 97.5])
        assert (difference.low, difference.high) == pytest.approx((low, high)), name
    assert comparison.rows[0].differences == {}
    assert comparison.rows[0].vs_truncation is None


def test_the_same_seed_gives_the_same_comparison_and_order_of_entries_does_not_matter() -> None:
    first, second = captioned("a", 1), captioned("b", 2)
    shuffled = replace(second, captions={"": tuple(reversed(second.captions[""]))})
    assert to_json(made(first, second)) == to_json(made(first, shuffled))
    other = compare([first, second], None, TRUTH, LEXICON, draws=60, seed=4)
    assert to_json(other)["rows"] != to_json(made(first, second))["rows"]


def test_a_run_alone_has_its_intervals_and_curve() -> None:
    comparison = made(both("a", 1))
    (row,) = comparison.rows
    assert row.columns == made(both("a", 1), both("b", 2)).rows[0].columns
    assert comparison.curve == made(both("a", 1), both("b", 2)).curve
    assert (row.differences, row.vs_truncation) == ({}, None)


def test_a_run_compared_with_itself_is_identical() -> None:
    first = both("a", 1)
    row = made(first, replace(first, name="b")).rows[1]
    assert {(found.value, found.low, found.high) for found in row.differences.values()} == {(0, 0, 0)}
    assert row.verdict == "identical to the baseline in every column and every draw"


def test_the_baseline_is_the_named_run_or_the_vanilla_one_or_the_first() -> None:
    runs = [captioned(name, seed) for seed, name in enumerate("abc")]
    vanilla = replace(runs[1], record={"lmms_fixattn": {"method": {"name": "vanilla"}}, "tasks": {}})
    assert [row.name for row in made(*runs, baseline="c").rows] == ["c", "a", "b"]
    assert made(*runs).baseline == "a"
    assert made(runs[0], vanilla, runs[2]).baseline == "b"
    assert made(runs[0], vanilla, runs[2], baseline="a").baseline == "a"
    with pytest.raises(UserError, match=r"baseline 'vanila' is none of the runs vanilla, b \(did you mean 'vanilla'"):
        made(replace(runs[0], name="vanilla"), runs[1], baseline="vanila")
    with pytest.raises(UserError, match="at least one run"):
        made()
    with pytest.raises(UserError, match=r"two runs are called 'a'.*NAME=path"):
        made(runs[0], runs[0])


def test_a_baseline_cut_short_is_between_its_best_cut_and_its_worst() -> None:
    whole = captioned("whole", 5, most=9)
    cut = replace(
        whole,
        name="cut",
        captions={"": tuple(replace(e, text=" ".join(e.text.split()[:9])) for e in whole.captions[""])},
    )
    beyond = made(whole, cut).rows[1].vs_truncation
    assert beyond is not None
    # It is one of the cuts: no better than the best of them in any draw, and no worse than the worst.
    assert beyond.chair_s.low is not None
    assert beyond.chair_s.low >= -1e-9
    assert beyond.chair_s_worst.high is not None
    assert beyond.chair_s_worst.high <= 1e-9
    assert "not shown to be better than saying less" in made(whole, cut).rows[1].verdict


def test_the_two_claims_on_chair_s_are_each_corrected_by_holm_over_the_runs() -> None:
    runs = [captioned(name, seed) for seed, name in enumerate("abcd")]
    every = made(*runs)
    pairs = [made(runs[0], run).rows[1] for run in runs[1:]]
    for claim in ("chair_s", "beyond"):
        raw = [row.holm[claim] for row in pairs]
        assert [row.holm[claim] for row in every.rows[1:]] == bootstrap.holm(raw)
    assert [row.vs_truncation for row in every.rows[1:]] == [row.vs_truncation for row in pairs]
    assert every.rows[0].holm == {}
    assert any("the 3 differences of CHAIR_s are a family" in note for note in every.notes)
    assert not any("family" in note for note in made(*runs[:2]).notes)


def test_runs_of_several_tasks_are_pooled_and_parted() -> None:
    runs = []
    for name, seed in (("a", 1), ("b", 2)):
        entries = captioned(name, seed).captions[""]
        runs.append(Run(name, Path(), {"familiar": entries[:20], "unfamiliar": entries[20:]}))
    comparison = made(*runs)
    pooled = made(*(replace(run, captions={"": sum(run.captions.values(), ())}) for run in runs))
    assert {task: rows[0].columns["n"].value for task, rows in comparison.by_task.items()} == {
        "familiar": 20,
        "unfamiliar": N - 20,
    }
    assert comparison.rows[1].columns == pooled.rows[1].columns
    for task, place in (("familiar", slice(0, 20)), ("unfamiliar", slice(20, N))):
        alone = made(*(Run(run.name, Path(), {"": sum(run.captions.values(), ())[place]}) for run in runs))
        assert comparison.by_task[task][1].columns == alone.rows[1].columns
        assert comparison.by_task[task][1].vs_truncation == alone.rows[1].vs_truncation
    assert not pooled.by_task


def test_truth_of_the_command_line_wins_over_the_logged_one_which_must_agree() -> None:
    def logged(name: str, seed: int, words: frozenset[str] | None) -> Run:
        run = captioned(name, seed)
        return replace(run, captions={"": tuple(replace(entry, truth=words) for entry in run.captions[""])})

    dog, cat = frozenset({"dog"}), frozenset({"cat"})
    comparison = compare([logged("a", 1, dog), logged("b", 2, None)], None, None, LEXICON, draws=9)
    assert {tuple(row["truth"]) for row in comparison.rows[1].captions} == {("dog",)}
    with pytest.raises(UserError, match=r"a and b disagree about what image 1 shows: \['dog'\] and \['cat'\]"):
        compare([logged("a", 1, dog), logged("b", 2, cat)], None, None, LEXICON)
    with pytest.raises(UserError, match="41 of 41 captioned images have no known truth, the first is image 1"):
        compare([logged("a", 1, None), logged("b", 2, None)], None, None, LEXICON)
    lacking = {image: words for image, words in TRUTH.items() if image != 41}
    with pytest.raises(UserError, match="1 of 41 captioned images have no known truth, the first is image 41"):
        compare([logged("a", 1, dog), logged("b", 2, dog)], None, lacking, LEXICON)
    given = compare([logged("a", 1, dog), logged("b", 2, cat)], None, TRUTH, LEXICON, draws=9)
    assert given.rows[0].captions[3]["truth"] == sorted(TRUTH[4])


def test_runs_share_captions_or_answers_or_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"b has answers of POPE random, the baseline a has captions: nothing to compare"
    ):
        made(captioned("a", 1), asked("b", 1, "random"))
    comparison = made(both("a", 1), captioned("b", 2))
    assert "pope_random_accuracy" in comparison.rows[0].columns
    assert "pope_random_accuracy" not in comparison.rows[1].columns | comparison.rows[1].differences
    assert any("b and a do not both have answers of POPE random" in note for note in comparison.notes)
    answers = made(asked("a", 1, "random"), asked("b", 2, "random"))
    assert (answers.n, answers.curve, answers.rows[1].vs_truncation) == (3 * N, None, None)
    assert answers.rows[1].verdict.startswith("POPE random")


def test_what_a_reader_must_know_is_noted() -> None:
    run = captioned("a", 1)
    silent = replace(run, name="b", captions={"": (CaptionEntry(1, " "), *run.captions[""][1:])})
    assert any("b: 1 of 41 captions are empty" in note for note in made(run, silent).notes)
    notes = made(asked("a", 1, "random"), asked("b", 2, "random")).notes
    unparsed = sum(entry.answer == "Perhaps" for entry in asked("b", 2, "random").answers["random"])
    assert f"b: {unparsed} of {3 * N} answers of POPE random hold neither a yes nor a no word" in notes
    record = {"lmms_fixattn": {}, "tasks": {"t": {"analyser": "nltk"}}}
    assert "a was scored with analyser nltk, here with lexicon" in made(replace(run, record=record), silent).notes


def test_times_are_shown_where_they_were_measured() -> None:
    timed = replace(captioned("a", 1), seconds=20.0, generated_tokens=500, requests=40)
    columns = made(timed, captioned("b", 2)).rows[0].columns
    assert (columns["seconds"].value, columns["tokens_per_second"].value) == (0.5, 25)
    assert columns["seconds"].low is None
    assert "seconds" not in made(timed, captioned("b", 2)).rows[1].columns
    other = replace(both("b", 2), seconds=1.0, requests=9)
    assert any("different tasks" in note for note in made(timed, other).notes)


def test_json_holds_every_column_with_its_bounds() -> None:
    found = json.loads(json.dumps(to_json(made(both("a", 1), both("b", 2))), allow_nan=False))
    assert [row["name"] for row in found["rows"]] == ["a", "b"]
    row = found["rows"][1]
    assert set(row["chair_s"]) == {"value", "low", "high"}
    assert row["chair_s"]["low"] <= row["chair_s"]["value"] <= row["chair_s"]["high"]
    bounds = {"chair_s", "chair_i", "chair_i_unique", "chair_s_worst", "chair_i_worst"}
    assert set(row["vs_truncation"]) == bounds | {"cut", "p", "note", "smallest_shown"}
    assert set(row["holm"]) == {"chair_s", "beyond"}
    assert set(row["rate_ratio"]) == set(row["length_matched"]) == {"value", "low", "high"}
    assert row["vs_controls"] is found["staircase"] is found["rows"][0]["rate_ratio"] is None
    assert found["rows"][0]["vs_truncation"] is None
    assert found["settings"] == {"analyser": "lexicon", "parser": "official", "draws": 60, "seed": 3, "level": 0.95}
    assert len(found["curve"]["recall"]) == len(found["curve"]["chair_s"])


@pytest.mark.system
def test_the_released_captions_give_the_published_table_and_the_verdict(reference: Path) -> None:
    folder = reference / "chair"
    runs = [read_run(str(path)) for path in sorted(folder.glob("r*.jsonl.gz"))]
    truth = read_ground_truth(folder / "ground_truth.json")
    comparison = compare(runs, "r0.25_a0.1_b0.3_g1.1", truth, LEXICON)
    rows = {row.name: row for row in comparison.rows}
    names = ("chair_s", "chair_i", "recall", "f1", "words", "rep_4", "unterminated")
    for name, row in rows.items():
        expected = json.loads((folder / f"{name}.expected.json").read_text())
        found = [row.columns[column].value for column in names[:4]]
        # The lexicon reads single captions otherwise than the reference's tagger.
        assert found == pytest.approx([expected[key] for key in ("CHAIRs", "CHAIRi", "Recall", "F1")], abs=0.4), name
    table = {
        "r0.25_a0.1_b0.3_g1.1": (47.4, 12.7, 78.0, 77.5, 96.9, 0.4, 0),
        "r0.25_a0.7_b0.4_g1.1_s0.05": (15.4, 4.8, 56.5, 69.8, 211.1, 45.7, 23),
    }
    for name, figures in table.items():
        found = [rows[name].columns[column].value for column in names]
        assert found[:6] == pytest.approx(figures[:6], abs=0.06)
        assert found[6] == pytest.approx(figures[6], abs=0.5)
    for name, row in rows.items():
        if "_a0.8_" in name:
            assert row.verdict.startswith("captions: no verdict, 77 of its 500 name no object")
        elif "_a0.7_" in name:
            assert "not shown to be better than saying less (" in row.verdict
            if name.startswith("r0.25"):
                assert "loops more often" in row.verdict
                assert "loses recall" in row.verdict


@pytest.mark.system
@pytest.mark.parametrize(
    ("group", "baseline", "method", "delta", "better"),
    [("adaiat", "greedy", "adaiat", -4.1, False), ("deco", "sampling", "deco", -13.2, True)],
)
def test_of_released_fixes_only_those_that_no_way_to_say_less_explains_are_better(
    reference: Path, group: str, baseline: str, method: str, delta: float, better: bool
) -> None:
    folder = reference / "captions" / group
    if not folder.is_dir():
        pytest.skip("no released captions of other groups beside the checkout")
    truth = read_ground_truth(reference / "chair" / "ground_truth_all.json.gz")
    runs = [read_run(str(folder / f"{name}.jsonl.gz")) for name in (baseline, method)]
    row = compare(runs, baseline, truth, LEXICON, draws=1000).rows[1]
    assert row.vs_truncation is not None
    assert row.vs_truncation.chair_s.value == pytest.approx(delta, abs=0.3)
    assert "CHAIR_s lower" in row.verdict
    assert ("and better than saying less (" in row.verdict) == better
    assert ("not shown to be better than saying less (" in row.verdict) != better


def ran(run: Run, method: str) -> Run:
    return replace(run, record={"lmms_fixattn": {"method": {"name": method}}, "tasks": {}})


def shortened(run: Run, name: str, words: int) -> Run:
    return replace(
        run,
        name=name,
        captions={"": tuple(replace(e, text=" ".join(e.text.split()[:words])) for e in run.captions[""])},
    )


def test_runs_of_control_methods_make_a_staircase_that_the_others_are_held_against() -> None:
    base = captioned("base", 5, most=9)
    runs = [
        ran(base, "vanilla"),
        ran(shortened(base, "cut", 9), "beam+truncate"),
        ran(captioned("other", 7, most=9), "nucleus"),
        ran(captioned("fix", 8, most=6), "pai"),
        ran(captioned("mixed", 9, most=6), "pai+truncate"),
    ]
    comparison = made(*runs)
    rows = {row.name: row for row in comparison.rows}
    assert {name for name, row in rows.items() if row.vs_controls is not None} == {"fix", "mixed"}
    assert comparison.staircase is not None
    assert set(comparison.staircase.runs) <= {"base", "cut", "other"}
    weights = bootstrap.draw_weights(N, 60, 3)
    control = StaircaseControl(
        {name: columns_of(run, weights) for name, run in (("base", runs[0]), ("cut", runs[1]), ("other", runs[2]))}
    )
    assert comparison.staircase == control.staircase()
    own = columns_of(runs[3], weights)
    assert rows["fix"].vs_controls == control.minus(own["recall"], own["chair_s"])
    assert to_json(comparison)["staircase"]["runs"] == comparison.staircase.runs
    # Plain files say nothing of their method; who compares them may.
    plain = [replace(run, record={}) for run in runs]
    assert made(*plain).staircase is None
    named = compare(plain, "base", TRUTH, LEXICON, draws=60, seed=3, controls=["cut", "other"])
    assert named.staircase == comparison.staircase


def columns_of(run: Run, weights: bootstrap.Floats) -> dict[str, tuple[float, bootstrap.Floats]]:
    entries = sorted(run.captions[""], key=lambda entry: entry.image_id)
    scored = [chair.score_caption(e.image_id, e.text, TRUTH[e.image_id], LEXICON) for e in entries]
    figures = caption_figures(scored, weights)
    return {name: figures.columns[name] for name in ("recall", "chair_s")}


def test_controls_are_the_methods_that_only_ask_choose_tokens_or_stop() -> None:
    from lmms_fixattn.cli.methods import HOOKS
    from lmms_fixattn.methods import METHODS

    allowed = {"ask", "generation", "ends"}
    trivial = {name for name, method in METHODS.items() if {hook for hook in HOOKS if method.has(hook)} <= allowed}
    assert trivial == set(CONTROLS)


def test_length_matched_and_rate_ratio_are_those_of_the_captions() -> None:
    base = captioned("base", 5, most=9)
    brief, longer = captioned("brief", 6, most=5), captioned("longer", 7, most=14)
    comparison = made(base, brief, longer)
    rows = {row.name: row for row in comparison.rows}

    def counts(run: Run) -> tuple[bootstrap.Floats, bootstrap.Floats]:
        entries = sorted(run.captions[""], key=lambda entry: entry.image_id)
        wrong = [len(set(LEXICON.mentions(e.text).objects) - TRUTH[e.image_id]) for e in entries]
        return np.array(wrong, dtype=float), np.array([len(e.text.split()) for e in entries], dtype=float)

    assert counts(brief)[1].mean() < counts(base)[1].mean() < counts(longer)[1].mean()
    for run in (brief, longer):
        assert rows[run.name].rate_ratio == rate_ratio(counts(run), counts(base))
    pairs = [(e.text, TRUTH[e.image_id]) for e in sorted(base.captions[""], key=lambda entry: entry.image_id)]
    weights = bootstrap.draw_weights(N, 60, 3)
    words = counts(brief)[1]
    expected = TruncationControl(count_prefixes(pairs, LEXICON), weights).at_length(
        (float(words.mean()), weights @ words / N), columns_of(brief, weights)["chair_s"]
    )
    assert expected is not None
    found = rows["brief"].length_matched
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert rows["longer"].length_matched is None
    assert "no cut of base has as many words as longer: no length-matched difference" in comparison.notes
    assert (rows["base"].length_matched, rows["base"].rate_ratio) == (None, None)
