"""lmms-eval's own `pope`: rows for the sample log and the official parser's figures, its own figures untouched."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from lmms_eval.tasks.pope.utils import pope_process_results

from lmms_fixattn.data import hub
from lmms_fixattn.harness.tasks import lmms_pope
from lmms_fixattn.scoring import pope

DOCS = [
    {
        "id": str(number),
        "question_id": str(1 + number // 2),
        "question": f"Is there a {thing} in the image?",
        "answer": label,
        "image_source": "COCO_val2014_000000310196",
        "category": kind,
    }
    for number, (thing, label, kind) in enumerate(
        [
            ("snowboard", "yes", "random"),
            ("snowboard", "yes", "popular"),
            ("car", "no", "random"),
            ("man", "no", "popular"),
        ]
    )
]
ANSWERS = ["Yes, there is a snowboard.", "yes", "No, there is none.", "NO"]


class Task:
    """A task of lmms-eval that is asked DOCS."""

    def __init__(self, name: str, path: str = hub.POPE, docs: Any = DOCS) -> None:
        self.config = SimpleNamespace(task=name, dataset_path=path)
        self.eval_docs_no_media = docs

    def process_results(self, doc: Any, results: Any, full_docs: Any = None) -> Any:
        return pope_process_results(doc, [result.strip() for result in results])


def test_answers_are_kept_as_rows_beside_lmms_evals_own_metrics() -> None:
    ours, other = Task("pope"), Task("mme", path="lmms-lab/MME")
    with lmms_pope.rows_recorded({"group": {"pope": ours}, "mme": ("group", other)}) as kept:
        assert kept == {"pope": []}
        scored = [ours.process_results(doc, [answer]) for doc, answer in zip(DOCS, ANSWERS, strict=True)]
        assert "n" not in other.process_results(DOCS[0], ["yes"])
    assert "process_results" not in vars(ours)
    for doc, answer, metrics in zip(DOCS, ANSWERS, scored, strict=True):
        (row,) = metrics.pop("n")
        assert metrics == ours.process_results(doc, [answer])
        assert (row["image_id"], row["question"], row["label"], row["answer"]) == (
            310196,
            doc["question"],
            doc["answer"],
            answer,
        )
        assert row in kept["pope"]
    assert len(kept["pope"]) == 4


def test_figures_are_the_official_parsers_over_all_and_by_category() -> None:
    task = Task("pope")
    with lmms_pope.rows_recorded({"pope": task}) as kept:
        for doc, answer in zip(DOCS, ANSWERS, strict=True):
            task.process_results(doc, [answer, "a repeat"])
            task.process_results(doc, ["a repeat"])  # lmms-eval scores repeats once more, each alone
    found = lmms_pope.figures(kept["pope"])
    # "NO" is a yes to the official parser, which looks for "No", "not" and "no".
    assert (found["all"]["accuracy"], found["all"]["yes_ratio"], found["all"]["n"]) == (75.0, 75.0, 4)
    assert (found["random"]["accuracy"], found["popular"]["accuracy"]) == (100.0, 50.0)
    rows = [{"label": doc["answer"], "answer": answer} for doc, answer in zip(DOCS, ANSWERS, strict=True)]
    assert found["all"] == pope.figures(rows, "official")
    assert "accuracy 75.00" in lmms_pope.in_words(found)
    assert lmms_pope.figures([]) == {}


@pytest.mark.parametrize("change", [{"image_source": "no id"}, {"question_id": "one"}, {"answer": None}])
def test_questions_of_another_form_are_left_to_lmms_eval(change: Any, caplog: pytest.LogCaptureFixture) -> None:
    task = Task("pope", docs=[*DOCS, {**DOCS[0], **change}])
    with lmms_pope.rows_recorded({"pope": task}) as kept:
        assert kept == {}
        assert "n" not in task.process_results(DOCS[0], ["yes"])
    assert "pope: lmms-eval's figures only" in caplog.text
