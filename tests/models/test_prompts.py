"""Prompts: three forms, one and several turns, images in their places."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmms_fixattn.models.prompts import FORMS, IMAGE, SYSTEM, build_prompt, check_template


def user(text: str, *images: str) -> dict[str, Any]:
    return {"role": "user", "content": [*({"type": "image", "url": i} for i in images), {"type": "text", "text": text}]}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def template(messages: list[dict[str, Any]]) -> str:
    """A chat template that writes what it was given in the order it came, to be told apart from the other forms."""
    parts = [part for message in messages for part in message["content"]]
    return "|".join(IMAGE if part["type"] == "image" else part["text"] for part in parts)


ONE = [user("What is it?", "a")]
CHAT = [user("Is it red?", "a"), assistant(" No.\n"), user("Blue?")]


@pytest.mark.parametrize(
    ("form", "messages", "expected"),
    [
        ("default", ONE, "<image>|What is it?"),
        ("llava_v1", ONE, f"{SYSTEM} USER: <image>\nWhat is it? ASSISTANT:"),
        ("pai", ONE, f"{SYSTEM}USER: <image> What is it? ASSISTANT:"),
        ("llava_v1", [user("Hi")], f"{SYSTEM} USER: Hi ASSISTANT:"),
        ("pai", [user("Hi")], f"{SYSTEM}USER: Hi ASSISTANT:"),
        ("llava_v1", CHAT, f"{SYSTEM} USER: <image>\nIs it red? ASSISTANT: No.</s>USER: Blue? ASSISTANT:"),
        ("pai", CHAT, f"{SYSTEM}USER: <image> Is it red? ASSISTANT:No.</s>USER: Blue? ASSISTANT:"),
        ("llava_v1", [user("Same?", "a", "b")], f"{SYSTEM} USER: <image>\n<image>\nSame? ASSISTANT:"),
        ("pai", [user("Same?", "a", "b")], f"{SYSTEM}USER: <image> <image> Same? ASSISTANT:"),
        ("pai", [{"role": "system", "content": "Be brief."}, user("Hi")], "Be brief.USER: Hi ASSISTANT:"),
        ("llava_v1", [{"role": "system", "content": "Be brief."}, user("Hi")], "Be brief. USER: Hi ASSISTANT:"),
    ],
)
def test_prompt_is_written_as_its_form_says(form: str, messages: list[dict[str, Any]], expected: str) -> None:
    assert build_prompt(messages, form, template).text == expected


def test_system_prompt_is_vicunas() -> None:
    assert SYSTEM.startswith("A chat between a curious user and an artificial intelligence assistant. ")
    assert SYSTEM.endswith("polite answers to the user's questions.")


@pytest.mark.parametrize("form", FORMS)
def test_marks_in_the_text_place_its_images(form: str) -> None:
    prompt = build_prompt([user(f"Left {IMAGE} right {IMAGE}?", "a", "b")], form, template)
    assert f"Left {IMAGE} right {IMAGE}?" in prompt.text
    assert (prompt.images, len(prompt.text.split(IMAGE)), prompt.dropped_marks) == (("a", "b"), 3, 0)


@pytest.mark.parametrize("form", FORMS)
@given(marks=st.integers(0, 3), images=st.integers(0, 3), turns=st.integers(1, 3))
def test_there_are_always_as_many_places_as_images(form: str, marks: int, images: int, turns: int) -> None:
    names = [f"{turn}.{image}" for turn in range(turns) for image in range(images)]
    talk = []
    for turn in range(turns):
        talk += [user("q " + IMAGE * marks, *names[turn * images : (turn + 1) * images]), assistant("a")]
    prompt = build_prompt(talk[:-1], form, template)
    assert prompt.images == tuple(names)
    assert len(prompt.text.split(IMAGE)) == len(names) + 1
    assert prompt.dropped_marks == (0 if marks == images else marks * turns)


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([], "at least one chat message"),
        ([{"role": "tool", "content": "x"}], "role system, user or assistant, got 'tool'"),
        ([{"role": "user", "content": [{"type": "video", "url": "v.mp4"}]}], "text and images, not video"),
        ([{"role": "user", "content": [{"type": "audio", "url": "a.wav"}]}], "text and images, not audio"),
        ([user("q"), {"role": "system", "content": "late"}], "only at the start"),
    ],
)
def test_messages_that_cannot_be_read_raise(messages: list[dict[str, Any]], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        build_prompt(messages, "llava_v1", template)


def test_chat_template_that_loses_an_image_raises() -> None:
    with pytest.raises(ValueError, match="wrote 0 <image> placeholders for 1 images"):
        build_prompt(ONE, "default", lambda messages: "no pictures here")


def test_unknown_form_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"got 'llava_v2' \(did you mean 'llava_v1'\?\)"):
        build_prompt(ONE, "llava_v2", template)


def test_a_checkpoint_without_a_chat_template_is_told_the_forms_that_need_none() -> None:
    check_template("default", SimpleNamespace(chat_template="{{ messages }}"))
    bare = SimpleNamespace(chat_template=None)
    with pytest.raises(ValueError, match=r"no chat template.*conversation=llava_v1 or conversation=pai"):
        check_template("default", bare)
    for form in ("llava_v1", "pai"):
        check_template(form, bare)


@pytest.mark.parametrize(
    ("text", "left", "dropped"),
    [
        ("What <|image_pad|>is<|vision_start|> it<|vision_end|>?<|video_pad|>", "<W>|What is it?", 4),
        ("a<|image_<|image_pad|>pad|>b", "<W>|ab", 2),
        ("a<|vision_<image>start|>b<image>", "<W>|ab", 3),
        ("a<im<|video_pad|>age>b", "a<W>b", 1),
        ("a<image>b", "a<W>b", 0),
    ],
)
def test_marks_of_a_family_are_left_out_and_counted_and_form_no_new_ones(text: str, left: str, dropped: int) -> None:
    marks = ("<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
    prompt = build_prompt(
        [user(text, "p")], "default", lambda messages: template(messages).replace(IMAGE, "<W>"), "<W>", marks
    )
    assert (prompt.text, prompt.dropped_marks) == (left, dropped)
