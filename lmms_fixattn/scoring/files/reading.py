"""Read the files that the offline metrics take: captions, their truth, yes/no answers and the questions answered.

Files are read by their content (entries.py). Whatever is wrong with one becomes a UserError that names the file
and the line or entry; nothing is dropped, and nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from lmms_fixattn.errors import UserError, did_you_mean
from lmms_fixattn.scoring.files.entries import (
    image_number,
    read_entries,
    read_object,
    shown,
    text_of,
    whole_number,
)
from lmms_fixattn.scoring.files.image_names import coco_id, has_coco_name
from lmms_fixattn.scoring.files.lmms_samples import is_sample, plain
from lmms_fixattn.scoring.objects.coco_objects import CATEGORIES, NODE_WORD

CAPTION_KEYS = ("caption", "text", "response", "answer", "output", "generated_text")
"""What released files call a caption."""

_CAPTION = '{"image_id", "caption"} or AMBER\'s {"id", "response"}'
_ANSWER = '{"question", "label", "answer"}'
_EITHER = f"{_CAPTION} or {_ANSWER}"


class Caption(NamedTuple):
    """One caption of a file."""

    image_id: int
    text: str
    terminated: bool | None
    """Whether its generator ended it; None where the file does not say."""
    tokens: int | None = None
    """Generated tokens, None where the file does not say."""
    file_name: str | None = None
    """The picture's name, where the file says which image it is by that; None where it says it by a number."""
    truth: frozenset[str] | None = None
    """What the image shows, where a sample of lmms-eval says it."""
    key: str = "caption"
    """Which of CAPTION_KEYS held it."""


def _plain(rows: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield entries of a file, those of lmms-eval's sample log as what they hold."""
    for place, entry in rows:
        if is_sample(entry):
            yield from ((place, row) for row in plain(place, entry))
        else:
            yield place, {key: value for key, value in entry.items() if key != "truth"}


def what_is_in(path: Path) -> str:
    """Return "captions" or "answers" by the first entry of a file; UserError where it is neither."""
    for place, entry in _plain(read_entries(path, _EITHER)):
        of_image = entry.keys() & {"image_id", "image"}
        if entry.keys() & {"question", "label"} or ("question_id" in entry and not of_image):
            return "answers"
        if "caption" in entry or (entry.keys() & {"image_id", "image", "id"} and entry.keys() & {*CAPTION_KEYS}):
            return "captions"
        raise UserError(f"{place}: expected {_EITHER}, not the keys {', '.join(map(repr, entry)) or 'of nothing'}")
    raise UserError(f"{path}: empty; expected {_EITHER} objects")


def _caption_key(place: str, entry: Mapping[str, Any]) -> str:
    """Return which of CAPTION_KEYS holds an entry's caption; UserError where none or several may."""
    found = [key for key in CAPTION_KEYS if key in entry]
    if len(found) > 1 and "caption" not in found:
        either = " and ".join(map(repr, found))
        raise UserError(f"{place}: {either} may each be the caption; call the right one 'caption'")
    return found[0] if found else "caption"


def read_captions(path: Path) -> list[Caption]:
    """Return the captions of a file of {"image_id", "caption"} objects, in order; other keys are ignored.

    An id is a whole number, also as text, or a COCO file name, under "image_id" or "image" (AMBER's: "id"). The caption
    may go by any one of CAPTION_KEYS, the same in the whole file. A boolean "terminated" and a whole number "tokens"
    are kept. Raises UserError for anything else, for two captions of one image, and for a file without captions.
    """
    return captions_of(path, read_entries(path, _CAPTION))


def captions_of(path: Path, rows: Iterable[tuple[str, dict[str, Any]]]) -> list[Caption]:
    """Return the captions of a file's entries, as read_captions does."""
    captions: list[Caption] = []
    places: dict[int, str] = {}
    text_key = ""
    for place, entry in _plain(rows):
        text_key = text_key or _caption_key(place, entry)
        text = _text(place, entry, text_key)
        amber = text_key == "response" and "id" in entry
        id_key = next((key for key in ("image_id", "image", *(["id"] if amber else [])) if key in entry), "image_id")
        given = _value(place, entry, id_key)
        image_id = image_number(given, place)
        file_name = given if isinstance(given, str) and not given.strip().isdecimal() else None
        _refuse_other_name(place, image_id, entry)
        terminated = entry.get("terminated")
        if not isinstance(terminated, bool | None):
            raise UserError(f"{place}: 'terminated' must be true, false or null, not {terminated!r}")
        tokens = entry.get("tokens")
        if tokens is not None:
            tokens = whole_number(tokens, place, "'tokens'")
        if image_id in places:
            raise UserError(f"{place}: a second caption for image {image_id}, after {places[image_id]}; keep one")
        places[image_id] = place
        truth = None if entry.get("truth") is None else _node_words(f"{place}, truth", entry["truth"])
        captions.append(Caption(image_id, text, terminated, tokens, file_name, truth, text_key))
    if not captions:
        raise UserError(f"{path}: no captions; expected {_CAPTION} objects")
    return captions


def read_ground_truth(path: Path) -> dict[int, frozenset[str]]:
    """Return every image's true node words from a JSON file {image id: [node words]}.

    Raises UserError for another form, for an image that is there twice and for a word that is no COCO category.
    """
    truth: dict[int, frozenset[str]] = {}
    for key, words in read_object(path, "{image id: [node words]}").items():
        place = f"{path}, image {key[:80]}"
        objects = _node_words(place, words)
        image_id = image_number(key, place)
        if image_id in truth:
            raise UserError(f"{place}: a second truth of image {image_id}; keep one")
        truth[image_id] = objects
    return truth


def _node_words(place: str, words: Any) -> frozenset[str]:
    wrong = [words] if not isinstance(words, list) else [word for word in words if not isinstance(word, str)]
    if wrong:
        with_it = "one that holds " if wrong[0] is not words else ""
        raise UserError(f"{place}: expected a list of node words, not {with_it}{shown(wrong[0])}")
    for word in words:
        if word not in CATEGORIES:
            hint = did_you_mean(NODE_WORD.get(word, word), CATEGORIES)
            raise UserError(f"{place}: {word[:80]!r} is none of the 80 COCO categories{hint}")
    return frozenset(words)


def read_answers(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of {"question", "label", "answer"} objects, in order.

    A label is "yes" or "no". What is there of "image_id" (or "image", a COCO file name), "question_id" and a text
    "split" is kept as well; other keys are ignored. Raises UserError for another form, for a question that is answered
    twice about one image, and for a file without answers. Rows that say neither image nor question_id may repeat a
    question: it is then asked of many images.
    """
    rows: list[dict[str, Any]] = []
    places: dict[tuple[Any, ...], str] = {}
    for place, entry in _plain(read_entries(path, _ANSWER)):
        row: dict[str, Any] = {key: _text(place, entry, key) for key in ("question", "label", "answer")}
        row |= {"label": yes_or_no(row["label"], place), **origin(place, entry)}
        refuse_double(row, place, places)
        rows.append({key: value for key, value in row.items() if key != "image"})
    if not rows:
        raise UserError(f"{path}: no answers; expected {_ANSWER} objects")
    return rows


def yes_or_no(label: str, place: str) -> str:
    """Return a label in lower case; UserError for one that is neither yes nor no."""
    if label.strip().lower() not in ("yes", "no"):
        raise UserError(f'{place}: \'label\' must be "yes" or "no", not {shown(label)}')
    return label.strip().lower()


def origin(place: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an entry says of where its question is from: image_id, image, question_id, split; no key for null.

    image: the picture's name, whether or not a number can be read from it; the number is then the image_id.
    """
    row: dict[str, Any] = {}
    if entry.get("image_id") is not None:
        row["image_id"] = image_number(entry["image_id"], place)
        _refuse_other_name(place, row["image_id"], entry)
    elif (image := entry.get("image")) is not None:
        row["image"] = image
        if not isinstance(image, str) or image.strip().isdecimal() or coco_id(image) is not None:
            row["image_id"] = image_number(image, place)
    if entry.get("question_id") is not None:
        row["question_id"] = whole_number(entry["question_id"], place, "'question_id'")
    if entry.get("split") is not None:
        row["split"] = _text(place, entry, "split")
    return row


def _refuse_other_name(place: str, image_id: int, entry: Mapping[str, Any]) -> None:
    """Refuse an entry whose image has one number and, in COCO's twelve digits, the name of another."""
    name = entry.get("image")
    if "image_id" in entry and isinstance(name, str) and has_coco_name(name) and coco_id(name) != image_id:
        raise UserError(f"{place}: 'image_id' is {image_id}, but 'image' is {name[:80]!r}")


def refuse_double(row: Mapping[str, Any], place: str, places: dict[tuple[Any, ...], str]) -> None:
    """Note where a question was answered; UserError where it was before."""
    image = row.get("image_id", row.get("image"))
    if image is None and "question_id" not in row:
        return
    # Published files ask a question or two about one image again, under another id: these are two questions.
    key = (row.get("split"), row["question"], row.get("question_id"), image)
    label = (*key[:2], "label", image)
    if image is not None and places.setdefault(label, row["label"]) != row["label"]:
        raise UserError(f"{place}: {row['question']!r} about image {image} has the labels yes and no")
    if key in places:
        where = f"question {row['question_id']}" if image is None else f"image {image}"
        raise UserError(
            f"{place}: a second answer to {row['question']!r} about {where}, after {places[key]}; keep one, or tell "
            "several sets of questions apart by a key 'split'"
        )
    places[key] = place


def _value(place: str, entry: Mapping[str, Any], key: str) -> Any:
    if key not in entry:
        raise UserError(f"{place}: no key {key!r}, only {', '.join(map(repr, entry)) or 'nothing'}{_hint(entry, key)}")
    return entry[key]


def _hint(entry: Mapping[str, Any], key: str) -> str:
    """Return what may have been meant, by the forms that others release; never an id for what is none."""
    if key in ("question", "label", "answer") and {"question_id", "text"} <= entry.keys():
        return (
            "; LLaVA's form has the question under 'prompt', the answer under 'text' and the labels in the question "
            "file: give that with --questions"
        )
    if key == "image_id" and {"question_id", "text"} <= entry.keys():
        return "; LLaVA's form of answers does not say the image: scored as answers it takes --questions"
    others = [other for other in entry if other.endswith("_id") == key.endswith("_id") and other != "model_id"]
    near = get_close_matches(key, others, n=1)
    return f"; did you mean {key!r} where it says {near[0]!r}?" if near else ""


def _text(place: str, entry: Mapping[str, Any], key: str) -> str:
    return text_of(_value(place, entry, key), place, repr(key))
