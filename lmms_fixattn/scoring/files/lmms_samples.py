"""Read a row of lmms-eval's sample log as the captions or answers that it holds, whichever model wrote it.

Known are this package's own tasks (their key "n" holds what was scored), coco_cap_chair and the tasks named pope of
lmms-eval (a metric holds the image and its objects, or the label). Logs of several versions of lmms-eval differ in how
deep they nest an answer, and in whether they keep the document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lmms_fixattn.errors import UserError
from lmms_fixattn.scoring.files.entries import kind, whole_number
from lmms_fixattn.scoring.objects.coco_objects import NODE_WORD


def is_sample(entry: Mapping[str, Any]) -> bool:
    """Return whether an entry is a row of lmms-eval's sample log."""
    return "doc_id" in entry and bool(entry.keys() & {"n", "filtered_resps", "resps"})


def plain(place: str, entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what a row holds as {"image_id", "caption", "truth", ...} or {"question", "label", "answer", ...}.

    A question is numbered by its document, for the question ids of lmms-eval's pope are not unique in its three parts.
    Raises UserError for a row of another task.
    """
    number = whole_number(entry.get("doc_id"), place, "'doc_id'")
    scored = entry.get("n")
    if isinstance(scored, dict) and "caption" in scored:
        # A caption without a token count was not judged by its generator but by its last character.
        known = {} if scored.get("tokens") is not None else {"terminated": None}
        yield {**scored, **known}
    elif isinstance(scored, list) and all(isinstance(row, dict) for row in scored):
        yield from (dict(row) for row in scored)
    elif (metric := _metric(entry, {"image_id", "answer", "pred"})) is not None:
        yield {
            "image_id": metric["image_id"],
            "caption": _answer(place, entry),
            "truth": _truth(place, metric["answer"]),
        }
    elif (metric := _metric(entry, {"ground_truth", "prediction"})) is not None:
        yield {
            "question_id": number,
            "question": _question(place, entry),
            "label": metric["ground_truth"],
            "answer": _answer(place, entry),
        }
    else:
        keys = ", ".join(map(repr, entry))
        raise UserError(
            f"{place}: a sample of lmms-eval, but of none of the tasks chair_..., pope_..., coco_cap_chair and pope; "
            f"it has the keys {keys}"
        )


def _metric(entry: Mapping[str, Any], keys: set[str]) -> Mapping[str, Any] | None:
    return next((value for value in entry.values() if isinstance(value, dict) and keys <= value.keys()), None)


def _truth(place: str, words: Any) -> list[str]:
    if not isinstance(words, list) or not all(isinstance(word, str) and word in NODE_WORD for word in words):
        raise UserError(f"{place}: expected the objects of the image, words of the CHAIR table, not {kind(words)}")
    return sorted({NODE_WORD[word] for word in words})


def _answer(place: str, entry: Mapping[str, Any]) -> str:
    value = entry["filtered_resps"] if "filtered_resps" in entry else entry.get("resps")
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        raise UserError(f"{place}: expected one answer under 'filtered_resps', not {kind(value)}")
    return value


def _question(place: str, entry: Mapping[str, Any]) -> str:
    document = entry.get("doc")
    asked = document.get("question") if isinstance(document, dict) else None
    value = asked or entry.get("input")
    if not value and isinstance(value := entry.get("arguments"), list) and value and isinstance(value[0], list):
        value = value[0][:1]  # the prompt, then how to generate
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{place}: expected the question under 'input', not {kind(value)}")
    return value.strip().split("\n")[0].strip()
