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
            both = f"has the label {question.label!r}, and {other.label!r} in {other.place}"
            raise UserError(f"{question.place}: {question.text!r} {both}")
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
    text = _first_line(text_of(entry[key], place, repr(key)))
    return Question(place, text, _label(place, entry), _split(path, place, entry), _origin(place, entry))


def _split(path: Path | None, place: str, entry: Mapping[str, Any]) -> str:
    for key in ("split", "category"):
        if entry.get(key) is not None:
            return text_of(entry[key], place, repr(key))
    words = [] if path is None else path.name.split(".")[0].split("_")
    return next((word for word in reversed(words) if word in _SPLITS), "")


def _label(place: str, entry: Mapping[str, Any]) -> str | None:
    return None if entry.get("label") is None else yes_or_no(text_of(entry["label"], place, "'label'"), place)


def _origin(place: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    return origin(place, {name: value for name, value in entry.items() if name != "split"})


def _first_line(text: str) -> str:
    return text.replace("<image>", "").strip().split("\n")[0].strip()


def _refuse_doubles(questions: Sequence[Question]) -> None:
    places: dict[tuple[Any, ...], str] = {}
    for question in questions:
        # Published files ask a question or two about one image again, under another id: these are two questions.
        key: tuple[Any, ...] = (question.split, question.number)
        if question.number is None:
            if question.image is None:
                continue
            key = (question.split, question.image, question.text)
        if key in places:
            raise UserError(f"{question.place}: the question of {places[key]} once more; keep one")
        places[key] = question.place


class _Answer(NamedTuple):
    """One answer of a file, and what it says of its question; prompt: all that was asked, where that is said."""

    place: str
    text: str
    prompt: str | None
    label: str | None
    split: str
    number: int | None
    image: Any

    @classmethod
    def of(cls, place: str, entry: Mapping[str, Any]) -> _Answer:
        key = next((key for key in _ANSWER_KEYS if key in entry), None)
        if key is None:
            raise UserError(f"{place}: expected an answer {_ANSWER}, not the keys {', '.join(map(repr, entry))}")
        asked = next((name for name in ("prompt", "question", "text") if name in entry and name != key), None)
        prompt = None if asked is None else text_of(entry[asked], place, repr(asked))
        text, known = text_of(entry[key], place, repr(key)), _origin(place, entry)
        image = known.get("image_id", known.get("image"))
        return cls(
            place, text, prompt, _label(place, entry), _split(None, place, entry), known.get("question_id"), image
        )

    def misfit(self, question: Question) -> str | None:
        """Return what this answer says that is otherwise with a question, None where nothing is."""
        if self.prompt is not None and question.text not in self.prompt:
            return f"asks {shown(_first_line(self.prompt))}, but {question.place} asks {shown(question.text)}"
        if self.image is not None and question.image is not None and self.image != question.image:
            return f"is about image {self.image}, but {question.place} about image {question.image}"
        if self.label is not None and self.label != question.label:
            return f"has the label {self.label!r}, but {question.place} {question.label!r}"
        return None


def read_answers_to(path: Path, question_files: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the rows of a file of answers as scoring.files.reading.read_answers does, with their questions' labels.

    Answers are joined by question_id; those that carry none, by their order, each of which must then say its question.

    Raises:
        UserError: a question is answered twice or not at all; an answer is to none of the questions, or may be to
            several; its own text, image or label is another than its question's.
    """
    questions = read_questions(question_files)
    answers = [_Answer.of(place, entry) for place, entry in read_entries(path, _ANSWER)]
    if not answers:
        raise UserError(f"{path}: no answers; expected {_ANSWER} objects")
    numbered = answers[0].number is not None
    if not numbered and len(answers) != len(questions):
        raise UserError(
            f"{path}: {len(answers)} answers without 'question_id' to {len(questions)} questions; they can only be "
            "joined by their order, one for one"
        )
    by_id: dict[int | None, list[int]] = {}
    for position, question in enumerate(questions):
        by_id.setdefault(question.number, []).append(position)
    taken: dict[int, str] = {}
    rows = []
    for order, answer in enumerate(answers):
        if (answer.number is not None) != numbered:
            raise UserError(f"{answer.place}: 'question_id' is given in some answers and not in others")
        if not numbered and answer.prompt is None:
            raise UserError(f"{answer.place}: neither 'question_id' nor the question's text says what this answers")
        position = _which(answer, questions, by_id.get(answer.number, ())) if numbered else order
        question = questions[position]
        if position in taken:
            after = f"the question of {question.place}, after {taken[position]}"
            raise UserError(f"{answer.place}: a second answer to {after}; keep one")
        taken[position] = answer.place
        if misfit := answer.misfit(question):
            raise UserError(f"{answer.place}: {misfit}")
        rows.append(_row(question, answer.text))
    if unanswered := [question for position, question in enumerate(questions) if position not in taken]:
        first = f"the first is that of {unanswered[0].place}"
        raise UserError(f"{path}: {len(unanswered)} of {len(questions)} questions have no answer, {first}")
    return rows


def _which(answer: _Answer, questions: Sequence[Question], found: Sequence[int]) -> int:
    """Return the position of the question that an answer is to, of those that have its id."""
    if not found:
        raise UserError(f"{answer.place}: question {answer.number} is none of the {len(questions)} questions")
    for fits in (
        lambda question: not answer.split or question.split == answer.split,
        lambda question: answer.image is None or question.image == answer.image,
        lambda question: answer.prompt is None or question.text in answer.prompt,
    ):
        found = [position for position in found if fits(questions[position])] or found
    if len(found) > 1:
        places = " and ".join(questions[position].place for position in found)
        raise UserError(
            f"{answer.place}: question {answer.number} may be that of {places}; give the questions of one split, or "
            "say the split under a key 'split'"
        )
    return found[0]


def _row(question: Question, answer: str) -> dict[str, Any]:
    row = {"question": question.text, "label": question.label, "answer": answer}
    row |= {key: value for key, value in question.origin.items() if key != "image"}
    return row | ({"split": question.split} if question.split else {})
