"""The captions and answers of a comparison side by side, for the browsers of its page: ready for JSON."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmms_fixattn.data.images import PictureError, read_rgb
from lmms_fixattn.report.coloured import segments
from lmms_fixattn.report.compare import Comparison
from lmms_fixattn.scoring.chair import Analyser
from lmms_fixattn.scoring.pope import parse_answer

MOST_PICTURES = 200
SIDE = 400
"""Pixels of a picture's longer side at most; the page shows it small until it is asked for."""


def captions(comparison: Comparison, analyser: Analyser) -> dict[str, Any] | None:
    """Return the captions of a comparison for its browser; None where no run has captions.

    {"runs": [name], "pictures": what a reader has to know of them, "samples": [{"id", "task", "truth", "picture" (data
    URI or None), "captions": [one a run]}]}; each of the captions has "text", a list of strings and of [words, object,
    1 where it is supported, else 0]; "wrong" and "missed", objects that it names and the image does not show, and the
    reverse; and "words", "mentions", "rep_4", "ended".

    Pictures are those that runs logged and that are still there: thumbnails of at most SIDE pixels, of at most
    MOST_PICTURES images, those first in which methods differ most in the unsupported objects that they name.
    """
    rows = [row for row in comparison.rows if row.captions]
    if not rows:
        return None
    together = list(zip(*(row.captions for row in rows), strict=True))
    pictures = _pictures(together)
    shown = [
        {
            "id": of_image[0]["image_id"],
            "task": of_image[0]["task"],
            "truth": of_image[0]["truth"],
            "picture": pictures.get(number),
            "captions": [_caption(caption, analyser) for caption in of_image],
        }
        for number, of_image in enumerate(together)
    ]
    remark = f"Pictures of {len(pictures)} of {len(together)} images."
    if len(pictures) < len(together):
        remark += f" There are at most {MOST_PICTURES}, and none that was not logged or cannot be read."
    return {"runs": [row.name for row in rows], "pictures": remark, "samples": shown}


def answers(comparison: Comparison) -> dict[str, Any] | None:
    """Return the yes/no questions of a comparison for its browser, read by its parser; None without answers.

    {"runs": [name], "splits": [name], "questions": [{"split", "image" (id or None), "question", "label", "answers":
    [one a run: [text, "yes", "no" or None for neither], or None where the run was not asked]}]}
    """
    if not comparison.answers:
        return None
    parser = comparison.settings["parser"]
    runs = [row.name for row in comparison.rows if any(row.name in having for having in comparison.answers.values())]
    questions = []
    for split, having in comparison.answers.items():
        for entries in zip(*having.values(), strict=True):
            told = {
                run: [entry.answer, parse_answer(entry.answer, parser, entry.label)]
                for run, entry in zip(having, entries, strict=True)
            }
            first = entries[0]
            asked = {"split": split.replace("_", " "), "image": first.image_id, "question": first.question}
            questions.append({**asked, "label": first.label, "answers": [told.get(run) for run in runs]})
    splits = [split.replace("_", " ") for split in comparison.answers]
    return {"runs": runs, "splits": splits, "questions": questions}


def _caption(row: Mapping[str, Any], analyser: Analyser) -> dict[str, Any]:
    parts = segments(row["caption"], frozenset(row["truth"]), analyser)
    return {
        "text": [
            part.text if part.object is None else [part.text, part.object, int(bool(part.supported))] for part in parts
        ],
        "words": row["words"],
        "mentions": len(row["objects"]),
        "wrong": sorted(set(row["hallucinated"])),
        "missed": sorted(set(row["truth"]) - set(row["objects"])),
        "rep_4": round(row["rep_4"], 1),
        "ended": row["terminated"],
    }


def _pictures(together: Sequence[Sequence[Mapping[str, Any]]]) -> dict[int, str]:
    """Return a data URI for the images that get one, by number."""

    def difference(number: int) -> int:
        wrong = [len(set(caption["hallucinated"])) for caption in together[number]]
        return max(wrong) - min(wrong)

    paths = {number: path for number, of_image in enumerate(together) if (path := _first(of_image)) is not None}
    chosen = sorted(paths, key=lambda number: (-difference(number), number))[:MOST_PICTURES]
    return {number: picture for number in chosen if (picture := thumbnail(paths[number])) is not None}


def _first(of_image: Iterable[Mapping[str, Any]]) -> Path | None:
    paths = (Path(caption["image"]) for caption in of_image if caption.get("image"))
    return next((path for path in paths if path.is_file()), None)


def thumbnail(path: Path) -> str | None:
    """Return a picture of at most SIDE pixels as a data URI, WebP; None if unreadable."""
    try:
        image = read_rgb(str(path))
    except PictureError:
        return None
    image.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    image.save(out, "webp", quality=70)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"
