"""Join answers to the questions that they answer, where the labels stand in files of their own.

POPE's, VCD's and LLaVA's question files hold {"question_id", "image", "text", "label"}; LLaVA's own list of all three
splits has a "category" in place of the label, which POPE's files then say by image and text. Answers are LLaVA's
{"question_id", "prompt", "text"}, or {"question", "answer"} in the order of the questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lmms_fixattn.errors import UserError
from lmms_fixattn.scoring.files.entries import read_entries, shown, text_of
from lmms_fixattn.scoring.files.reading import origin, yes_or_no

_QUESTION = '{"question_id", "image", "text", "label"}'
_ANSWER = '{"question_id", "prompt", "text"} or {"question", "answer"}'
_ANSWER_KEYS = ("answer", "text", "response", "output")
_SPLITS = ("random", "popular", "adversarial")


class Question(NamedTuple):
    """One question of a file."""

    place: str
    text: str
    """Its first line: what follows asks for a short answer."""
    label: str | None
    split: str
    origin: Mapping[str, Any]
    """What is said of image_id, image and question_id (scoring.files.reading.origin)."""

    @property
    def image(self) -> Any:
        """Return the image's number, else its name, else None."""
        return self.origin.get("image_id", self.origin.get("image"))

    @property
    def number(self) -> int | None:
        """Return the question_id, None where none is said."""
        return self.origin.get("question_id")


def read_questions(paths: Sequence[Path]) -> list[Question]:
    """Return the labelled questions of files, in order.

    A question's split is its "split" or "category", else what its file is called after: coco_pope_random.json. Raises
    UserError for another form, a question that is there twice, and a label that is missing or contradicted.
    """
    labelled: list[Question] = []
    plain: list[Question] = []
    for path in paths:
        questions = [_question(path, place, entry) for place, entry in read_entries(path, _QUESTION)]
        if not questions:
            raise UserError(f"{path}: no questions; expected {_QUESTION} objects")
        _refuse_doubles(questions)
        if len({question.label is None for question in questions}) > 1:
            lacking = next(question.place for question in questions if question.label is None)
            raise UserError(f"{lacking}: no key 'label', which other questions of the file have")
        (plain if questions[0].label is None else labelled).extend(questions)
    labels: dict[tuple[Any, str], Question] = {}
    for question in labelled:
        other = labels.setdefault((question.image, question.text), question)
        if question.image is not None and other.label != question.label:
            raise UserError(
                f"{question.place}: {question.text!r} has the label {question.label!r}, and {other.label!r} in "
                f"{other.place}"
            )
    if not plain:
        return labelled
    if lacking_labels := [question for question in plain if (question.image, question.text) not in labels]:
        raise UserError(
            f"{lacking_labels[0].place}: no key 'label' (of {len(lacking_labels)} questions), and no file given says "
            "the label by image and text; give the files with the labels after --questions as well"
        )
    return [question._replace(label=labels[question.image, question.text].label) for question in plain]


def _question(path: Path, place: str, entry: Mapping[str, Any]) -> Question:
    key = next((key for key in ("text", "question") if key in entry), None)
    if key is None:
        raise UserError(f"{place}: expected a question {_QUESTION}, not the keys {', '.join(map(repr, entry))}")
    label = None if entry.get("label") is None else yes_or_no(text_of(entry["label"], place, "'label'"), place)
    found = origin(place, {name: value for name, value in entry.items() if name != "split"})
    return Question(place, _asked(text_of(entry[key], place, repr(key))), label, _split(path, place, entry), found)


def _split(path: Path | None, place: str, entry: Mapping[str, Any]) -> str:
    for key in ("split", "category"):
        if entry.get(key) is not None:
            return text_of(entry[key], place, repr(key))
    words = [] if path is None else path.name.split(".")[0].split("_")
    return next((word for word in reversed(words) if word in _SPLITS), "")


def _asked(text: str) -> str:
    return text.replace("<image>", "").strip().split("\n")[0].strip()


def _refuse_doubles(questions: Sequence[Question]) -> None:
    places: dict[tuple[Any, ...], str] = {}
    for question in questions:
        # Published files ask a question or two about one image again, under another id: these are two questions.
        key: tuple[Any, ...] = (question.split, question.origin.get("question_id"))
        if key[1] is None:
            if question.image is None:
                continue
            key = (question.split, question.image, question.text)
        if key in places:
            raise UserError(f"{question.place}: the question of {places[key]} once more; keep one")
        places[key] = question.place


def read_answers_to(path: Path, question_files: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the rows of a file of answers as scoring.files.reading.read_answers does, with their questions' labels.

    Answers are joined by question_id; those that carry none, by their order, each of which must then say its question.

    Raises:
        UserError: a question is answered twice or not at all; an answer is to none of the questions, or may be to
            several; its own text, image or label is another than its question's.
    """
    questions = read_questions(question_files)
    entries = list(read_entries(path, _ANSWER))
    if not entries:
        raise UserError(f"{path}: no answers; expected {_ANSWER} objects")
    by_id: dict[Any, list[int]] = {}
    for number, question in enumerate(questions):
        by_id.setdefault(question.origin.get("question_id"), []).append(number)
    numbered = "question_id" in entries[0][1]
    if not numbered and len(entries) != len(questions):
        raise UserError(
            f"{path}: {len(entries)} answers without 'question_id' to {len(questions)} questions; they can only be "
            "joined by their order, one for one"
        )
    taken: dict[int, str] = {}
    rows = []
    for order, (place, entry) in enumerate(entries):
        answer, prompt = _answer(place, entry)
        said = origin(place, {key: value for key, value in entry.items() if key != "split"})
        if ("question_id" in said) != numbered:
            raise UserError(f"{place}: 'question_id' is given in some answers and not in others")
        if not numbered and prompt is None:
            raise UserError(f"{place}: neither 'question_id' nor the question's text: nothing says what this answers")
        number = _which(place, entry, said, prompt, questions, by_id) if numbered else order
        question = questions[number]
        if number in taken:
            raise UserError(
                f"{place}: a second answer to the question of {question.place}, after {taken[number]}; keep one"
            )
        taken[number] = place
        _check(place, entry, said, prompt, question)
        rows.append(_row(question, answer))
    if unanswered := [question for number, question in enumerate(questions) if number not in taken]:
        raise UserError(
            f"{path}: {len(unanswered)} of {len(questions)} questions have no answer, the first is that of "
            f"{unanswered[0].place}"
        )
    return rows


def _answer(place: str, entry: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return an answer's text and, where it says it, what it was asked."""
    key = next((key for key in _ANSWER_KEYS if key in entry), None)
    if key is None:
        raise UserError(f"{place}: expected an answer {_ANSWER}, not the keys {', '.join(map(repr, entry))}")
    asked = next((name for name in ("prompt", "question", "text") if name in entry and name != key), None)
    return text_of(entry[key], place, repr(key)), None if asked is None else text_of(entry[asked], place, repr(asked))


def _which(
    place: str,
    entry: Mapping[str, Any],
    said: Mapping[str, Any],
    prompt: str | None,
    questions: Sequence[Question],
    by_id: Mapping[Any, Sequence[int]],
) -> int:
    """Return the number of the question that an answer is to, by its id and what else the answer says."""
    found = list(by_id.get(said["question_id"], ()))
    if not found:
        raise UserError(f"{place}: question {said['question_id']} is none of the {len(questions)} questions")
    split = _split(None, place, entry)
    image = said.get("image_id", said.get("image"))
    for fits in (
        lambda question: not split or question.split == split,
        lambda question: image is None or question.image == image,
        lambda question: prompt is None or question.text in prompt,
    ):
        if len(found) > 1:
            found = [number for number in found if fits(questions[number])] or found
    if len(found) > 1:
        places = " and ".join(questions[number].place for number in found)
        raise UserError(
            f"{place}: question {said['question_id']} may be that of {places}; give the questions of one split, or say "
            "the split under a key 'split'"
        )
    return found[0]


def _check(
    place: str, entry: Mapping[str, Any], said: Mapping[str, Any], prompt: str | None, question: Question
) -> None:
    """Refuse an answer that says another question, image or label than the question it is joined to."""
    if prompt is not None and question.text not in prompt:
        raise UserError(f"{place}: asks {shown(_asked(prompt))}, but {question.place} asks {shown(question.text)}")
    image = said.get("image_id", said.get("image"))
    if image is not None and question.image is not None and image != question.image:
        raise UserError(f"{place}: is about image {image}, but {question.place} about image {question.image}")
    if entry.get("label") is not None:
        label = yes_or_no(text_of(entry["label"], place, "'label'"), place)
        if label != question.label:
            raise UserError(f"{place}: has the label {label!r}, but {question.place} {question.label!r}")


def _row(question: Question, answer: str) -> dict[str, Any]:
    row = {"question": question.text, "label": question.label, "answer": answer}
    row |= {key: value for key, value in question.origin.items() if key != "image"}
    return row | ({"split": question.split} if question.split else {})
