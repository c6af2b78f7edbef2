from __future__ import annotations

from dataclasses import replace

from lmms_fixattn.report.asked import asked
from lmms_fixattn.report.compare import Comparison
from lmms_fixattn.report.runs import AnswerEntry


def test_every_question_has_its_label_and_each_runs_answer_as_it_was_read(answers_alone: Comparison) -> None:
    found = asked(answers_alone)
    assert found is not None
    assert (found.runs, found.splits, found.count) == (("a", "b"), ("random",), 120)
    texts, lines = found.data["texts"], found.data["asked"]
    assert len(set(texts)) == len(texts)
    entries = zip(*answers_alone.answers["random"].values(), strict=True)
    for (split, image, question, label, told), answers in zip(lines, entries, strict=True):
        assert (split, image, texts[question]) == (0, answers[0].image_id, answers[0].question)
        assert label == (answers[0].label == "yes")
        assert [(texts[text], read) for text, read in told] == [("Yes", 1), ("No", 0)]


def test_what_is_read_as_neither_and_what_a_run_was_not_asked_is_said(answers_alone: Comparison) -> None:
    odd = AnswerEntry(None, "Is there a <cat>?", "no", "Perhaps.")
    settings = dict(answers_alone.settings) | {"parser": "exact"}
    answers = {"": {"b": (odd,)}, "chat_random": {"a": (odd,), "b": (odd,)}}
    found = asked(replace(answers_alone, answers=answers, settings=settings))
    assert found is not None
    assert found.data["splits"] == ["", "chat random"]
    assert found.data["asked"] == [[0, None, 1, 0, [None, [0, None]]], [1, None, 1, 0, [[0, None], [0, None]]]]
    assert asked(replace(answers_alone, answers={})) is None
