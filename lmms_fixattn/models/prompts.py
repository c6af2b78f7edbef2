"""From chat messages to the prompt that the model reads, in one of three forms.

The form changes the answers of the same model on the same images, so a result records it:

- ``default``: the checkpoint's own chat template. For llava-hf/llava-1.5: ``USER: <image>\\n{question} ASSISTANT:``.
- ``llava_v1``: what LLaVA-1.5 was trained and evaluated with (arXiv:2310.03744; conversation vicuna_v1 of
  haotian-liu/LLaVA): ``{SYSTEM} USER: <image>\\n{question} ASSISTANT: {answer}</s>USER: ...``.
- ``pai``: what PAI and FixAttn ran (arXiv:2407.21771; LALBJ/PAI, constants.py, chair_eval.py, pope_chat_eval.py): no
  newline after the image, and no space after the system prompt nor before a fed-back answer:
  ``{SYSTEM}USER: <image> {question} ASSISTANT:{answer}</s>USER: ...``.

Tokenisation differs as well. LLaVA and PAI tokenise the text before and after an image separately, each as the start of
a text, so the two forms of theirs are cut at the images; the default is tokenised as one text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmms_fixattn.errors import did_you_mean

IMAGE = "<image>"
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
FORMS = ("default", "llava_v1", "pai")
Template = Callable[[list[dict[str, Any]]], str]


@dataclass(frozen=True)
class PromptText:
    """A prompt as text, with one placeholder for each of its images, which stay as the task gave them."""

    text: str
    images: tuple[Any, ...]
    whole: bool  # tokenised as one text
    dropped_marks: int  # literal marks of the task's text that name no image and were left out


def check_form(form: str, forms: Sequence[str] = FORMS) -> str:
    """Return a form's name that is among ``forms``; raise ValueError with these for any other."""
    if form not in forms:
        known = f"one of {', '.join(forms)}" if len(forms) > 1 else f"{forms[0]}, the only form of such a checkpoint"
        raise ValueError(f"conversation must be {known}, got {form!r}{did_you_mean(form, forms)}")
    return form


def check_template(form: str, processor: Any, forms: Sequence[str] = FORMS) -> None:
    """Refuse the form ``default`` for a checkpoint that has no chat template; ValueError says what to name instead.

    Local copies of llava-hf's checkpoints from before mid-2024 have none.
    """
    if form == "default" and not processor.chat_template:
        others = " or ".join(f"conversation={other}" for other in forms if other != "default")
        raise ValueError(
            "the checkpoint has no chat template, which conversation=default writes prompts by: "
            f"{f'name the form with {others}, or ' if others else ''}add the chat_template.jinja of the checkpoint's "
            "newer revision"
        )


def build_prompt(
    messages: Sequence[Mapping[str, Any]],
    form: str,
    template: Template,
    written: str = IMAGE,
    marks: Sequence[str] = (IMAGE,),
    eos: str = "</s>",
) -> PromptText:
    """Write chat messages as one prompt that asks for the assistant's next turn.

    A message is {"role": system | user | assistant, "content": text or a list of parts}; a part is {"type": "text",
    "text": ...} or {"type": "image", "url": picture}. Images come before the text of their message, as in LLaVA's
    training, unless the text itself holds one literal ``<image>`` for each of them, which then says where they go; any
    other number of such marks, and any other mark, is left out and counted.

    Args:
        template: the checkpoint's chat template, used by the form ``default``.
        written: what the template writes for an image.
        marks: the tokens that tell of images and videos, which no text of a task may hold.
        eos: the end-of-sequence token, which closes an assistant's turn in the other two forms.

    Raises:
        ValueError: no messages, an unknown role, a video or audio part, or a chat template that loses images.
    """
    check_form(form)
    turns = [_turn(message, written, marks) for message in messages]
    if not turns:
        raise ValueError("expected at least one chat message, got none")
    images = tuple(image for turn in turns for image in turn.images)
    text = template([turn.as_message() for turn in turns]) if form == "default" else _write(turns, form, eos)
    if text.count(written) != len(images):
        raise ValueError(
            f"the chat template wrote {text.count(written)} {written} placeholders for {len(images)} images: {text!r}"
        )
    return PromptText(text, images, form == "default", sum(turn.dropped_marks for turn in turns))


def rewrite_question(messages: Sequence[Mapping[str, Any]], ask: Callable[[str], str]) -> list[Mapping[str, Any]]:
    """Return the messages with the last text of the last user turn rewritten by ``ask``; other turns stay."""
    written = list(messages)
    for place in reversed(range(len(written))):
        if written[place].get("role") != "user":
            continue
        content = written[place].get("content")
        if isinstance(content, str):
            return [*written[:place], {**written[place], "content": ask(content)}, *written[place + 1 :]]
        parts = list(content or [])
        for index in reversed(range(len(parts))):
            if parts[index].get("type") == "text":
                parts[index] = {**parts[index], "text": ask(str(parts[index]["text"]))}
                return [*written[:place], {**written[place], "content": parts}, *written[place + 1 :]]
        return written
    return written


@dataclass(frozen=True)
class _Turn:
    role: str
    text: str
    images: tuple[Any, ...]
    marked: bool  # the text says where the images go
    dropped_marks: int

    def as_message(self) -> dict[str, Any]:
        pictures = [] if self.marked else [{"type": "image"} for _ in self.images]
        return {"role": self.role, "content": [*pictures, {"type": "text", "text": self.text}]}

    def written(self, after_images: str) -> str:
        """The turn's words behind its images: one placeholder each, with the same separator between and after them."""
        return self.text if self.marked else (IMAGE + after_images) * len(self.images) + self.text


def _write(turns: Sequence[_Turn], form: str, eos: str) -> str:
    spaced = form == "llava_v1"
    system = SYSTEM
    if turns[0].role == "system":
        system, turns = turns[0].text, turns[1:]
    written = system + " " if spaced else system
    for turn in turns:
        if turn.role == "system":
            raise ValueError("expected a system message only at the start of a conversation, got one inside it")
        if turn.role == "user":
            written += "USER: " + turn.written("\n" if spaced else " ") + " "
        else:
            written += "ASSISTANT:" + (" " if spaced else "") + turn.text.strip() + eos
    return written + "ASSISTANT:"


def _turn(message: Mapping[str, Any], written: str, tokens: Sequence[str]) -> _Turn:
    role, content = message.get("role"), message.get("content")
    if role not in ("system", "user", "assistant"):
        raise ValueError(f"expected a chat message of role system, user or assistant, got {role!r}")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content or [])
    texts, images = [], []
    for part in parts:
        kind = part.get("type")
        if kind == "text":
            texts.append(str(part["text"]))
        elif kind == "image":
            images.append(part["url"] if "url" in part else part["image"])
        else:
            raise ValueError(f"llava_fixattn reads text and images, not {kind}")
    further = [token for token in tokens if token != IMAGE]
    text, others = _without(further, "\n".join(texts))
    marks = text.count(IMAGE)
    if marks and marks == len(images):
        return _Turn(str(role), text.replace(IMAGE, written), tuple(images), marked=True, dropped_marks=others)
    text, marks = _without([IMAGE, *further], text)
    return _Turn(str(role), text, tuple(images), marked=False, dropped_marks=marks + others)


def _without(tokens: Sequence[str], text: str) -> tuple[str, int]:
    """Leave tokens out of a text, those as well that only come together by that; return the text and their number."""
    left_out, found = 0, int(bool(tokens))
    while found:
        text, found = re.subn("|".join(map(re.escape, tokens)), "", text)
        left_out += found
    return text, left_out
