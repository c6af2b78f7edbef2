"""Conversations, their marks, and where the truth comes from."""

from __future__ import annotations

import json

import pytest

from lmms_fixattn import make_method
from lmms_fixattn.inspection.answers import converse, follow_up, mark
from lmms_fixattn.inspection.command import CAPTION_PROMPT, DEMO_IMAGE
from lmms_fixattn.inspection.truth import read_truth, truth_beside
from lmms_fixattn.scoring.chair import make_analyser

pytestmark = pytest.mark.system

ANALYSER = make_analyser()


def marked(question, answer, truth):
    segments = mark(question, answer, truth, ANALYSER)
    assert "".join(segment.text for segment in segments) == answer
    return [(segment.text, segment.object, segment.supported) for segment in segments if segment.object]


def test_mentions_are_marked_by_the_truth():
    found = marked("Describe it.", "A puppy on a sofa, beside a hot dog.", {"dog", "couch"})
    assert found == [("puppy", "dog", True), ("sofa", "couch", True), ("hot dog", "hot dog", False)]


def test_an_answer_without_yes_or_no_is_read_for_its_mentions():
    found = marked("Is there a dog in the image?", "Beside it a cat and a hot dog.", {"dog", "cat"})
    assert found == [("cat", "cat", True), ("hot dog", "hot dog", False)]


@pytest.mark.parametrize(
    ("answer", "truth", "supported"),
    [
        ("Yes.", {"couch"}, True),
        ("Yes, a sofa.", set(), False),
        ("No, there is no sofa.", set(), True),
        ("No", {"couch"}, False),
    ],
)
def test_an_answer_to_a_pope_question_is_marked_as_a_whole(answer, truth, supported):
    assert marked("Is there a sofa in the image?", answer, truth) == [(answer, "couch", supported)]


def test_a_question_about_no_coco_object_is_marked_by_mentions():
    assert marked("Is there a unicorn in the image?", "Yes, near a dog.", {"dog"}) == [("dog", "dog", True)]


def test_follow_ups_ask_for_what_is_there_then_for_what_the_caption_made_up():
    questions = follow_up("A dog, a cat, a cat and an umbrella.", {"dog", "bowl"}, ANALYSER, count=4)
    asked = ["a bowl", "a cat", "an umbrella", "a person"]
    assert questions == [f"Is there {name} in the image?" for name in asked]
    assert follow_up("", set(), ANALYSER, count=1) == ["Is there a person in the image?"]


def test_each_turn_is_asked_with_the_methods_own_earlier_answers(session):
    questions = [CAPTION_PROMPT, "Is there a dog in the image?"]
    methods = {"vanilla": make_method("vanilla"), "strong": make_method("pai", alpha=1.5)}
    found = converse(session, str(DEMO_IMAGE), questions, methods, {"dog"}, ANALYSER, 40)
    assert [conversation.label for conversation in found] == list(methods)
    assert found[0].turns[0].text != found[1].turns[0].text
    for conversation in found:
        first, second = conversation.turns
        prompt = session.encode(str(DEMO_IMAGE), [questions[0], first.text, questions[1]])
        assert session.answer(prompt, methods[conversation.label], 40).text == second.text
        assert second.answer[0].object == "dog"


def test_truth_is_read_from_words_and_from_the_folder_around_the_picture(tmp_path):
    assert read_truth("Sofa, cup,dog,") == {"couch", "cup", "dog"}
    with pytest.raises(ValueError, match=r"'giraf' is none of the 80 COCO objects \(did you mean 'giraffe'\?\)"):
        read_truth("dog,giraf")
    folder = DEMO_IMAGE.parents[1] / "annotations"
    annotated = json.loads((folder / f"instances_{DEMO_IMAGE.parent.name}.json").read_text())
    image_id = next(image["id"] for image in annotated["images"] if image["file_name"] == DEMO_IMAGE.name)
    names = {category["id"]: category["name"] for category in annotated["categories"]}
    shown = {names[box["category_id"]] for box in annotated["annotations"] if box["image_id"] == image_id}
    assert len(shown) > 2
    assert truth_beside(DEMO_IMAGE, ANALYSER) == shown
    alone = tmp_path / "x.png"
    alone.write_bytes(DEMO_IMAGE.read_bytes())
    with pytest.raises(ValueError, match=r'is not known: no annotations.*; say what it shows, such as --truth "cup'):
        truth_beside(alone, ANALYSER)
