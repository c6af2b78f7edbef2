"""Brief: the question that it asks, alone and among other methods."""

from __future__ import annotations

import pytest

from lmms_fixattn import make_method
from lmms_fixattn.models.prompts import rewrite_question

QUESTION = "Please describe this image in detail."


@pytest.mark.parametrize(
    ("sentences", "asked"),
    [
        (0, QUESTION),
        (1, f"{QUESTION} Answer in 1 sentence."),
        (3, f"{QUESTION} Answer in 3 sentences."),
    ],
)
def test_the_question_is_followed_by_the_number_of_sentences(sentences, asked):
    assert make_method("brief", sentences=sentences).ask(QUESTION) == asked


def test_only_the_last_user_turn_s_last_text_is_rewritten():
    image = {"type": "image", "url": "a.png"}
    first = {"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}
    answer = {"role": "assistant", "content": "A dog."}
    messages = [first, answer, {"role": "user", "content": [{"type": "text", "text": "And then?"}, image]}]
    asked = rewrite_question(messages, make_method("brief", sentences=1).ask)
    assert asked[:2] == [first, answer]
    assert asked[2]["content"] == [{"type": "text", "text": "And then? Answer in 1 sentence."}, image]
    assert messages[2]["content"][0]["text"] == "And then?"
    assert rewrite_question([{"role": "user", "content": "Hm?"}], str.upper) == [{"role": "user", "content": "HM?"}]
    assert rewrite_question([answer, {"role": "user", "content": [image]}], str.upper) == [
        answer,
        messages[2] | {"content": [image]},
    ]


def test_in_a_composition_the_question_is_rewritten_too():
    assert make_method("pai+brief").ask(QUESTION).endswith("Answer in 2 sentences.")
