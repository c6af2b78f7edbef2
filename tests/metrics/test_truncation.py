from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmms_fixattn.metrics import bootstrap, chair
from lmms_fixattn.metrics.coco_objects import CATEGORIES
from lmms_fixattn.metrics.nltk_analyser import NltkAnalyser
from lmms_fixattn.metrics.reading import read_ground_truth
from lmms_fixattn.metrics.truncation import PrefixCounts, TruncationControl, count_prefixes, cut, prefix_objects

LEXICON = chair.make_analyser()
FIGURES = ("recall", "chair_s", "chair_i", "chair_i_unique")
Pairs = Sequence[tuple[str, frozenset[str]]]

# Words that tokenisation, merging and mood make hard, in every order.
HARD = """
    a A the dog dogs dog. Dog's baby adult elephant, hot traffic light lights. toilet seat seats seated seating skiing
    snowboarding and or umbrellas bowls. stove st. etc. mr. No. 5. tv. t.v. (cat) "cat" 'bus' cannot gonna fire hydrant!
    wine glass glasses people; man's men, dog.! dog... ... . is. u.s. sitting potted plant, home plate bow tie
"""
WORDS = [*HARD.split(), "\n\n"]
captions = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)


def naive_objects(caption: str, analyser: chair.Analyser) -> list[list[str]]:
    return [analyser.mentions(cut(caption, words)).objects for words in range(len(caption.split()) + 1)]


def test_a_cut_keeps_the_first_words_and_what_stands_between_them() -> None:
    caption = " A dog.\n\nTwo  cats. "
    assert [cut(caption, words) for words in range(6)] == [
        "",
        " A",
        " A dog.",
        " A dog.\n\nTwo",
        caption,
        caption,
    ]
    assert cut("", 0) == cut("", 3) == ""


@given(captions)
def test_prefixes_are_read_as_if_each_were_analysed(caption: str) -> None:
    assert prefix_objects(caption, LEXICON) == naive_objects(caption, LEXICON)


def test_prefixes_are_read_as_if_each_were_analysed_by_nltk(nltk_analyser: NltkAnalyser) -> None:
    draw = random.Random(0)
    for _ in range(60):
        caption = " ".join(draw.choices(WORDS, k=12))
        assert prefix_objects(caption, nltk_analyser) == naive_objects(caption, nltk_analyser)


def test_prefixes_of_released_captions_are_read_as_if_each_were_analysed(
    reference: Path, nltk_analyser: NltkAnalyser
) -> None:
    path = reference / "chair" / "r0.25_a0.1_b0.3_g1.1.jsonl.gz"
    released = [json.loads(line)["caption"] for line in gzip.decompress(path.read_bytes()).splitlines()]
    for caption in released[::5]:
        assert prefix_objects(caption, LEXICON) == naive_objects(caption, LEXICON)
    for caption in released[::100]:
        assert prefix_objects(caption, nltk_analyser) == naive_objects(caption, nltk_analyser)


def test_few_prefixes_are_analysed() -> None:
    analysed: list[str] = []

    class Counting:
        name = "counting"
        located, reach = LEXICON.located, LEXICON.reach

        def mentions(self, caption: str) -> object:
            analysed.append(caption)
            return LEXICON.mentions(caption)

    caption = "the sky is very blue over there and one dog runs across the green and empty field of grass today"
    assert prefix_objects(caption, Counting()) == naive_objects(caption, LEXICON)  # type: ignore[arg-type]
    assert 1 <= len(analysed) <= 4


def naive_figures(pairs: Pairs) -> dict[str, float]:
    rows = [chair.score_caption(0, caption, truth, LEXICON) for caption, truth in pairs]
    return {name: float(chair.corpus_figures(rows)[name]) for name in FIGURES}


def naive_delta(method: Pairs, baseline: Pairs) -> tuple[dict[str, float], int | None, bool]:
    """The definition, word for word: (deltas, k*, whether recall is off the curve), the uncut end where it is."""
    own = naive_figures(method)
    longest = max(len(caption.split()) for caption, _ in baseline)
    curve = [naive_figures([(cut(caption, k), truth) for caption, truth in baseline]) for k in range(longest + 1)]
    most, before = 0.0, 0.0
    for k, point in enumerate(curve):
        before, most = most, max(most, point["recall"])
        if most >= own["recall"] - 1e-9:
            if k == 0:
                return {name: own[name] - point[name] for name in FIGURES[1:]}, 0, False
            part = (own["recall"] - before) / (most - before)
            at = {name: (1 - part) * curve[k - 1][name] + part * point[name] for name in FIGURES}
            return {name: own[name] - at[name] for name in FIGURES[1:]}, k, False
    return {name: own[name] - curve[-1][name] for name in FIGURES[1:]}, None, True


def drawn_figures(pairs: Pairs, weights: bootstrap.Floats) -> dict[str, tuple[float, bootstrap.Floats]]:
    draws = []
    for counts in weights:
        draws.append(
            naive_figures([pair for pair, count in zip(pairs, counts, strict=True) for _ in range(int(count))])
        )
    return {name: (naive_figures(pairs)[name], np.array([one[name] for one in draws])) for name in FIGURES}


def scene(draw: random.Random, objects: int) -> str:
    names = draw.choices([*CATEGORIES[:9], "baby elephant", "hot dog", "traffic light"], k=objects)
    return " and ".join(f"a {name}" for name in names)


def corpus(draw: random.Random, n: int) -> tuple[Pairs, Pairs]:
    """A baseline and a method that says less, on the same images; some captions empty, some images of no object."""
    baseline, method = [], []
    for _ in range(n):
        truth = frozenset(draw.sample(CATEGORIES[:12], draw.choice([0, 1, 3, 5])))
        baseline.append((scene(draw, draw.randint(0, 7)), truth))
        method.append((scene(draw, draw.randint(0, 4)), truth))
    return baseline, method


@pytest.mark.parametrize("seed", range(12))
def test_the_distance_from_the_curve_is_the_definition_in_the_corpus_and_in_every_draw(seed: int) -> None:
    draw = random.Random(seed)
    n = draw.choice([1, 2, 5, 11])
    baseline, method = corpus(draw, n)
    weights = bootstrap.draw_weights(n, 17, seed)
    control = TruncationControl(count_prefixes(baseline, LEXICON), weights)
    found = control.compare(drawn_figures(method, weights))
    value, cut_at, outside = naive_delta(method, baseline)
    deltas: dict[str, list[float]] = {name: [] for name in FIGURES[1:]}
    left = 0
    for counts in weights:
        images = [image for image, count in enumerate(counts) for _ in range(int(count))]
        one, _, off = naive_delta([method[image] for image in images], [baseline[image] for image in images])
        left += off
        for name, delta in one.items():
            deltas[name].append(delta)
    assert found.baseline_words == cut_at
    for name in FIGURES[1:]:
        interval = getattr(found, name)
        if outside:
            assert (interval.value, interval.low, interval.high) == (None, None, None)
            continue
        assert interval.value == pytest.approx(value[name])
        assert [interval.low, interval.high] == pytest.approx(np.percentile(deltas[name], [2.5, 97.5]))
    if outside:
        assert "no cut reaches" in str(found.note)
    elif left:
        assert f"in {100 * left / 17:.1f}% of the draws" in str(found.note)
    else:
        assert found.note is None


def test_the_random_corpora_hold_every_case() -> None:
    seen = set()
    for seed in range(12):
        draw = random.Random(seed)
        baseline, method = corpus(draw, draw.choice([1, 2, 5, 11]))
        _, cut_at, outside = naive_delta(method, baseline)
        seen.add("outside" if outside else "start" if cut_at == 0 else "inside")
    assert seen >= {"outside", "inside"}


def control_of(baseline: Pairs, draws: int = 7) -> tuple[TruncationControl, bootstrap.Floats]:
    weights = bootstrap.draw_weights(len(baseline), draws, 0)
    return TruncationControl(count_prefixes(baseline, LEXICON), weights), weights


def test_the_curve_by_hand() -> None:
    baseline = [("a dog a cat", frozenset({"dog"})), ("a car", frozenset({"car", "bus"}))]
    curve = control_of(baseline)[0].curve
    assert curve.recall == pytest.approx((0, 0, 200 / 3, 200 / 3, 200 / 3))
    assert curve.chair_s == pytest.approx((0, 0, 0, 0, 50))
    assert curve.chair_i == pytest.approx((0, 0, 0, 0, 100 / 3))
    # A third of the objects lies half-way between the first word and the second.
    method = [("a dog a bus", frozenset({"dog"})), ("nothing", frozenset({"car", "bus"}))]
    control, weights = control_of(baseline)
    found = control.compare(drawn_figures(method, weights))
    assert found.baseline_words == 2
    assert found.chair_s.value == pytest.approx(50)
    assert found.chair_i.value == pytest.approx(50)


def test_where_recall_falls_again_the_first_cut_that_reaches_it_counts() -> None:
    # "A baby" is a person, "a baby elephant" is none: recall rises, falls and rises again.
    baseline = [("a baby elephant and a person", frozenset({"person"}))]
    control, weights = control_of(baseline)
    assert control.curve.recall == pytest.approx((0, 0, 100, 0, 0, 0, 100))
    found = control.compare(drawn_figures([("a person", frozenset({"person"}))], weights))
    assert found.baseline_words == 2


def test_the_baseline_itself_is_where_its_last_true_object_comes() -> None:
    draw = random.Random(4)
    baseline, _ = corpus(draw, 11)
    control, weights = control_of(baseline)
    found = control.compare(drawn_figures(baseline, weights))
    assert found.note is None
    for interval in (found.chair_s, found.chair_i):
        assert interval.value is not None
    # What it says after that adds no recall: cutting it there can only help.
    assert found.chair_s.value >= -1e-9  # type: ignore[operator]
    assert found.chair_s.low >= -1e-9  # type: ignore[operator]


def test_recall_above_the_uncut_baseline_is_said_and_not_extrapolated() -> None:
    truth = frozenset({"dog", "cat"})
    control, weights = control_of([("a dog", truth)] * 3)
    found = control.compare(drawn_figures([("a dog and a cat", truth)] * 3, weights))
    assert found.chair_s.value is found.chair_i.low is found.chair_i_unique.high is found.baseline_words is None
    assert found.note == "its recall 100.0 is above the baseline's 50.0, which no cut reaches"


@pytest.mark.parametrize("baseline", [[("", frozenset({"dog"}))] * 3, [("a dog", frozenset[str]())] * 3])
def test_a_baseline_of_empty_captions_or_of_images_of_nothing_has_a_curve_at_recall_zero(baseline: Pairs) -> None:
    control, weights = control_of(baseline)
    assert set(control.curve.recall) == {0.0}
    truth = baseline[0][1]
    found = control.compare(drawn_figures([("a cat", truth)] * 3, weights))
    assert found.baseline_words == 0
    assert (found.chair_s.value, found.chair_s.low, found.chair_s.high) == (100, 100, 100)
    assert control.compare(drawn_figures([("the sky", truth)] * 3, weights)).chair_s.value == 0


def test_counts_of_a_cut_caption_are_those_of_the_whole_one_once_k_passes_its_end() -> None:
    counts = count_prefixes([("a dog", frozenset({"dog"})), ("a cat and a dog and a dog", frozenset({"dog"}))], LEXICON)
    assert counts.mentioned.tolist() == [[0, 0, 1, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 2, 2, 2, 3]]
    assert counts.hallucinated.tolist() == [[0] * 9, [0, 0, 1, 1, 1, 1, 1, 1, 1]]
    assert counts.unique[1].tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 2]
    assert counts.found[1].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert counts.true.tolist() == [1, 1]


def test_released_captions_cut_after_40_words_give_the_published_control(reference: Path) -> None:
    folder = reference / "chair"
    truth = read_ground_truth(folder / "ground_truth.json")
    released = gzip.decompress((folder / "r0.25_a0.1_b0.3_g1.1.jsonl.gz").read_bytes()).splitlines()
    entries = [json.loads(line) for line in released]
    pairs = [(entry["caption"], truth[entry["image_id"]]) for entry in entries]
    curve = control_of(pairs)[0].curve
    assert (curve.chair_s[40], curve.chair_i[40], curve.recall[40]) == pytest.approx((14.6, 5.5, 58.0), abs=0.05)
    rows = [chair.score_caption(0, cut(caption, 40), found, LEXICON) for caption, found in pairs]
    figures = chair.corpus_figures(rows)
    assert (figures["f1"], figures["words"]) == pytest.approx((71.0, 44.0), abs=0.05)
    assert (figures["chair_s"], figures["recall"]) == pytest.approx((curve.chair_s[40], curve.recall[40]))


def captions_of_a_model(source: np.random.Generator, images: int, words: int) -> dict[str, bootstrap.Floats]:
    """Running counts, [images, words + 1], of captions that hallucinate ever more: 6 objects an image, 0.15 a word."""
    named = source.random((images, words)) < 0.15
    hard = source.beta(2, 4, (images, 1))
    wrong = named & (source.random((images, words)) < hard * np.linspace(0.1, 1.2, words))
    which = np.where(named & ~wrong, source.integers(0, 6, (images, words)), 6)
    first = np.stack([which == one for one in range(6)]).cumsum(axis=2) == 1
    new = (first & np.stack([which == one for one in range(6)])).any(axis=0)
    start = np.zeros((images, 1))
    return {
        name: np.concatenate([start, values.cumsum(axis=1)], axis=1)
        for name, values in (("mentioned", named), ("hallucinated", wrong), ("found", new))
    }


def test_a_method_that_only_says_less_is_at_no_distance_in_95_of_100_samples() -> None:
    source = np.random.default_rng(0)
    images, simulations = 60, 400
    weights = bootstrap.draw_weights(images, 300, 0)
    held = {"chair_s": 0, "chair_i": 0}
    for _ in range(simulations):
        whole, other = captions_of_a_model(source, images, 40), captions_of_a_model(source, images, 40)
        unique = whole["found"] + whole["hallucinated"]
        counts = PrefixCounts(whole["mentioned"], whole["hallucinated"], unique, whole["found"], np.full(images, 6.0))
        mentioned, wrong, found = (other[name][:, 20] for name in ("mentioned", "hallucinated", "found"))
        figures = {
            "recall": (found, np.full(images, 6.0)),
            "chair_s": ((wrong > 0).astype(float), np.ones(images)),
            "chair_i": (wrong, mentioned),
            "chair_i_unique": (wrong, found + wrong),
        }
        method = {
            name: (float(bootstrap.ratios(np.ones((1, images)), *pair)[0]), bootstrap.ratios(weights, *pair))
            for name, pair in figures.items()
        }
        beyond = TruncationControl(counts, weights).compare(method)
        for name in held:
            interval = getattr(beyond, name)
            held[name] += interval.low <= 0 <= interval.high
    # The simulation's own error is 1.1 points.
    assert all(0.91 <= count / simulations <= 0.98 for count in held.values()), held
