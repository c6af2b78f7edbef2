from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest

from lmms_fixattn.scoring import chair
from lmms_fixattn.scoring.objects.coco_objects import CATEGORIES

LEXICON = chair.make_analyser()


def test_row_and_figures_by_hand() -> None:
    truths = {1: {"dog", "cat"}, 2: {"person"}, 3: set[str]()}
    captions = {
        1: "A dog and a dog, a car.",  # mentions dog dog car
        2: "A man.",
        3: "the sky the sky the sky the sky the sky",
    }
    rows = [chair.score_caption(image_id, captions[image_id], truth, LEXICON) for image_id, truth in truths.items()]
    assert rows[0] == {
        "image_id": 1,
        "caption": "A dog and a dog, a car.",
        "objects": ["dog", "dog", "car"],
        "hallucinated": ["car"],
        "unique_objects": 2,
        "unique_true_objects": 1,
        "true_objects": 2,
        "truth": ["cat", "dog"],
        "words": 9,
        "rep_4": 0.0,
        "terminated": True,
    }
    assert json.loads(json.dumps(rows)) == rows
    figures = chair.corpus_figures(rows)
    assert figures == {
        "chair_s": pytest.approx(100 / 3),
        "chair_i": pytest.approx(25),
        "recall": pytest.approx(100 * 2 / 3),
        "precision": pytest.approx(100 * 2 / 3),
        "f1": pytest.approx(100 * 2 / 3),
        "words": pytest.approx((9 + 3 + 10) / 3),
        "chair_i_unique": pytest.approx(100 / 3),
        "rep_4": pytest.approx(100 * (1 - 2 / 7) / 3),
        "looped": pytest.approx(100 / 3),
        "unterminated": pytest.approx(100 / 3),
        "n": 3,
    }


def test_the_generator_knows_better_than_the_text_whether_it_ended() -> None:
    for terminated in (True, False):
        row = chair.score_caption(1, "A dog. A", set(), LEXICON, terminated=terminated)
        assert row["terminated"] is terminated
    assert chair.score_caption(1, "A dog.", set(), LEXICON)["terminated"]
    assert not chair.score_caption(1, "A dog. A", set(), LEXICON)["terminated"]


def test_figures_agree_with_sums_over_sets() -> None:
    draw = random.Random(0)
    for _ in range(50):
        rows, mentioned, hallucinated, captions_with, hits, named, true = [], 0, 0, 0, 0, 0, 0
        for image_id in range(draw.randint(1, 11)):
            truth = set(draw.sample(CATEGORIES[:12], draw.randint(0, 5)))
            objects = draw.choices(CATEGORIES[:12], k=draw.randint(0, 7))
            rows.append(chair.score_caption(image_id, ", ".join(f"a {name}" for name in objects), truth, LEXICON))
            wrong = [name for name in objects if name not in truth]
            mentioned, hallucinated = mentioned + len(objects), hallucinated + len(wrong)
            captions_with += bool(wrong)
            hits, named, true = hits + len(truth & set(objects)), named + len(set(objects)), true + len(truth)
        figures = chair.corpus_figures(rows)
        precision, recall = hits / max(named, 1), hits / max(true, 1)
        assert figures["chair_s"] == pytest.approx(100 * captions_with / len(rows))
        assert figures["chair_i"] == pytest.approx(100 * hallucinated / max(mentioned, 1))
        assert figures["recall"] == pytest.approx(100 * recall)
        assert figures["precision"] == pytest.approx(100 * precision)
        both = precision + recall
        assert figures["f1"] == pytest.approx(200 * precision * recall / both if both else 0.0)
        assert figures["chair_i_unique"] == pytest.approx(100 * (named - hits) / max(named, 1))


def test_captions_without_mentions_have_zero_shares() -> None:
    figures = chair.corpus_figures([chair.score_caption(1, "", {"dog"}, LEXICON)])
    assert [figures[key] for key in ("chair_s", "chair_i", "recall", "precision", "f1", "chair_i_unique")] == [0.0] * 6
    assert figures["words"] == 0
    assert figures["n"] == 1


def test_no_captions_have_no_figures() -> None:
    with pytest.raises(ValueError, match="at least one"):
        chair.corpus_figures([])


def test_truth_is_the_union_of_annotations_and_reference_captions() -> None:
    truth = chair.ground_truth(
        [(1, "dog"), (1, "dog"), (2, "sports ball"), (5, "tv")],
        [(1, "A man with a puppy."), (1, "Two ladies"), (3, "an empty street"), (5, "a television")],
        LEXICON,
    )
    assert truth == {1: {"dog", "person"}, 2: {"sports ball"}, 3: set(), 5: {"tv"}}


def test_truth_refuses_categories_outside_coco() -> None:
    with pytest.raises(ValueError, match="'traffic cone'"):
        chair.ground_truth([(1, "traffic cone")], [], LEXICON)


def test_an_unknown_analyser_is_refused_with_a_hint() -> None:
    with pytest.raises(ValueError, match="did you mean 'lexicon'"):
        chair.make_analyser("lexikon")
    assert chair.make_analyser("lexicon").name == "lexicon"


def test_agrees_with_the_reference_scorer_on_released_captions(reference: Path) -> None:
    truth = {
        int(key): set(words) for key, words in json.loads((reference / "chair/ground_truth.json").read_text()).items()
    }
    same = total = 0
    for path in sorted((reference / "chair").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            released = [json.loads(line) for line in file]
        rows = [
            chair.score_caption(row["image_id"], row["caption"], truth[row["image_id"]], LEXICON) for row in released
        ]
        agreeing = sum(ours["objects"] == theirs["objects"] for ours, theirs in zip(rows, released, strict=True))
        assert agreeing >= 0.99 * len(rows)
        same, total = same + agreeing, total + len(rows)
        figures = chair.corpus_figures(rows)
        expected = json.loads(path.with_name(path.name.replace(".jsonl.gz", ".expected.json")).read_text())
        assert figures["chair_s"] == pytest.approx(expected["CHAIRs"], abs=0.2 + 1e-9)
        assert figures["chair_i"] == pytest.approx(expected["CHAIRi"], abs=0.15)
        assert figures["f1"] == pytest.approx(expected["F1"], abs=0.15)
        assert figures["words"] == pytest.approx(expected["Len"], abs=0.01)
    assert same >= 0.997 * total


def test_figures_of_the_references_own_mentions_are_the_published_ones(reference: Path) -> None:
    truth = {
        int(key): set(words) for key, words in json.loads((reference / "chair/ground_truth.json").read_text()).items()
    }
    for path in sorted((reference / "chair").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            released = [json.loads(line) for line in file]
        by_caption = {row["caption"]: row for row in released}

        class Recorded:
            name = "recorded"

            def mentions(self, caption: str, table: dict[str, dict[str, object]] = by_caption) -> chair.Mentions:
                return chair.Mentions(table[caption]["objects"], table[caption]["words"])  # type: ignore[arg-type]

        rows = [
            chair.score_caption(row["image_id"], row["caption"], truth[row["image_id"]], Recorded()) for row in released
        ]
        assert [row["hallucinated"] for row in rows] == [row["hallucinated"] for row in released]
        figures = chair.corpus_figures(rows)
        expected = json.loads(path.with_name(path.name.replace(".jsonl.gz", ".expected.json")).read_text())
        names = {"chair_s": "CHAIRs", "chair_i": "CHAIRi", "recall": "Recall", "precision": "Precision", "f1": "F1"}
        for ours, theirs in {**names, "words": "Len"}.items():
            assert figures[ours] == pytest.approx(expected[theirs], abs=1e-4)
