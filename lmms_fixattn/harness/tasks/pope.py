"""What the YAML of pope_coco, pope_demo and their chats names to prompt and to score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lmms_fixattn.data import DataError
from lmms_fixattn.harness.tasks.visual import doc_to_visual
from lmms_fixattn.scoring import pope

_MEANS = ("accuracy", "yes_ratio")  # means over questions: lmms-eval averages them and gives their standard errors
_RATIOS = ("precision", "recall", "f1")
_COUNTS = ("tp", "fp", "tn", "fn", "unparsed")


def process_results(doc: dict[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Score one answer: {metric: its share of the corpus figure}.

    `n` holds the whole row for the sample log, means hold the answer's own figure, ratios of sums the label and answer.
    """
    return _scored([_row(doc, doc["question_id"], doc["question"], doc["label"], results[0], turn=1)])


def process_chat(doc: dict[str, Any], results: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Score the answers of one conversation: as process_results, with a list of rows, and each turn's accuracy.

    Raises:
        DataError: not one answer a question.
    """
    answers = [results[0]] if isinstance(results[0], str) else list(results[0])
    if len(answers) != len(doc["questions"]):
        raise DataError(f"image {doc['image_id']}: {len(answers)} answers came for {len(doc['questions'])} questions")
    turns = zip(doc["question_ids"], doc["questions"], doc["labels"], answers, strict=True)
    rows = [_row(doc, *turn, turn=number) for number, turn in enumerate(turns, start=1)]
    accuracies = {f"accuracy_turn_{row['turn']}": float(_figures([row])["accuracy"]) for row in rows}
    return _scored(rows) | accuracies


def _row(doc: dict[str, Any], question_id: int, question: str, label: str, answer: str, turn: int) -> dict[str, Any]:
    text = str(answer).strip()
    return {
        "image_id": doc["image_id"],
        "question_id": question_id,
        "turn": turn,
        "question": question,
        "label": label,
        "answer": text,
        "predicted": pope.parse_answer(text, doc["parser"], label),
        "parser": doc["parser"],
    }


def _scored(rows: list[dict[str, Any]]) -> dict[str, Any]:
    figures = _figures(rows)
    counted = [{key: row[key] for key in ("label", "answer", "parser")} for row in rows]
    return (
        {"n": rows}
        | {metric: float(figures[metric]) for metric in _MEANS}
        | {metric: int(figures[metric]) for metric in _COUNTS}
        | dict.fromkeys(_RATIOS, counted)
    )


def _figures(rows: list[dict[str, Any]]) -> dict[str, float | int]:
    return pope.figures(rows, rows[0]["parser"])


def _figure(metric: str) -> Callable[[list[list[dict[str, Any]]]], float | int]:
    def aggregate(documents: list[list[dict[str, Any]]]) -> float | int:
        return _figures([row for rows in documents for row in rows])[metric]

    aggregate.__name__ = aggregate.__qualname__ = metric
    return aggregate


precision, recall, f1 = map(_figure, _RATIOS)
n = _figure("n")


def total(counts: list[int]) -> int:
    """Sum the counts of all documents."""
    return sum(counts)


def chat_to_text(doc: dict[str, Any], **rounds: Any) -> str:
    """Return a chat's first question, which is what lmms-eval shows of a document.

    Raises:
        NotImplementedError: a model of lmms-eval's "simple" form asks for a later turn; it has no conversations.
    """
    if rounds.get("round_idx"):
        raise NotImplementedError("pope chats feed answers back into a conversation: run without --force_simple")
    return str(doc["questions"][0])


def chat_to_messages(
    doc: dict[str, Any],
    round_idx: int | None = None,
    previous_output: Sequence[str] | None = None,
    previous_round_info: Any = None,
) -> Any:
    """Return the whole conversation up to the question of this round: the image, questions and the model's answers.

    lmms-eval's protocol: a list of messages at first, then (messages, whether the conversation is over, answers, info).
    """
    turn = round_idx or 0
    answers = list(previous_output or ())
    if turn >= len(doc["questions"]):
        return None, True, previous_output, previous_round_info
    asked = [[{"type": "text", "text": question}] for question in doc["questions"][: turn + 1]]
    replied = [[{"type": "text", "text": answer}] for answer in answers]
    asked[0] = [{"type": "image", "url": image} for image in doc_to_visual(doc)] + asked[0]
    messages = [{"role": "user", "content": asked[0]}]
    for reply, question in zip(replied, asked[1:], strict=True):
        messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": question}]
    if round_idx is None:
        return messages
    return messages, False, previous_output, previous_round_info
