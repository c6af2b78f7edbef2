"""The captions of a comparison side by side, for the page's browser: coloured, with what the image shows."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmms_fixattn.data.images import PictureError, read_rgb
from lmms_fixattn.report.coloured import segments
from lmms_fixattn.report.compare import Comparison
from lmms_fixattn.scoring.chair import Analyser

MOST_PICTURES = 200
SIDE = 160
"""Pixels of a thumbnail's longer side."""


@dataclass(frozen=True)
class Samples:
    """What the browser shows.

    Attributes:
        runs: that have captions, the baseline first.
        count: of images.
        pictures: what a reader has to know of the pictures that are there or not.
        data: for the script: {"runs": [name], "samples": [{"id", "task", "truth", "picture" (data URI or null),
            "captions": [one a run: {"text": [segment], "words", "mentions", "wrong", "rep_4", "ended"}]}]}; a segment
            is a string, or [words, object, 1 where it is supported, else 0].
    """

    runs: tuple[str, ...]
    count: int
    pictures: str
    data: dict[str, Any]


def samples(comparison: Comparison, analyser: Analyser) -> Samples | None:
    """Return the captions of a comparison for its browser; None where no run has captions.

    Pictures are those that runs logged and that are still there: thumbnails of at most SIDE pixels, of at most
    MOST_PICTURES images, those first in which methods differ most in the unsupported objects that they name.
    """
    rows = [row for row in comparison.rows if row.captions]
    if not rows:
        return None
    together = list(zip(*(row.captions for row in rows), strict=True))
    pictures, remark = _pictures(together)
    shown = [
        {
            "id": captions[0]["image_id"],
            "task": captions[0]["task"],
            "truth": captions[0]["truth"],
            "picture": pictures.get(number),
            "captions": [_caption(caption, analyser) for caption in captions],
        }
        for number, captions in enumerate(together)
    ]
    runs = tuple(row.name for row in rows)
    return Samples(runs, len(shown), remark, {"runs": runs, "samples": shown})


def _caption(row: Mapping[str, Any], analyser: Analyser) -> dict[str, Any]:
    parts = segments(row["caption"], frozenset(row["truth"]), analyser)
    return {
        "text": [
            part.text if part.object is None else [part.text, part.object, int(bool(part.supported))] for part in parts
        ],
        "words": row["words"],
        "mentions": len(row["objects"]),
        "wrong": sorted(set(row["hallucinated"])),
        "rep_4": round(row["rep_4"], 1),
        "ended": row["terminated"],
    }


def _pictures(together: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[dict[int, str], str]:
    """Return a data URI for the images that get one, by number, and what is to be said of all of them."""

    def difference(number: int) -> int:
        wrong = [len(set(caption["hallucinated"])) for caption in together[number]]
        return max(wrong) - min(wrong)

    paths = {number: path for number, captions in enumerate(together) if (path := _first(captions)) is not None}
    chosen = sorted(paths, key=lambda number: (-difference(number), number))[:MOST_PICTURES]
    found = {number: picture for number in chosen if (picture := thumbnail(paths[number])) is not None}
    if not paths:
        return {}, "The runs logged no pictures that are still there."
    lacking = [
        f"{count} {why}"
        for count, why in (
            (len(together) - len(paths), "were not logged or are no longer there"),
            (len(paths) - len(chosen), f"are left out to keep the file small (the {MOST_PICTURES} with the largest "
             "differences are in)"),
            (len(chosen) - len(found), "could not be read"),
        )
        if count
    ]  # fmt: skip
    return found, f"Pictures of {len(found)} of {len(together)} images{': ' * bool(lacking)}{', '.join(lacking)}."


def _first(captions: Iterable[Mapping[str, Any]]) -> Path | None:
    paths = (Path(caption["image"]) for caption in captions if caption.get("image"))
    return next((path for path in paths if path.is_file()), None)


def thumbnail(path: Path) -> str | None:
    """Return a picture of at most SIDE pixels as a data URI, as JPEG or PNG, the smaller; None if it cannot be read."""
    try:
        image = read_rgb(str(path))
    except PictureError:
        return None
    image.thumbnail((SIDE, SIDE))
    encoded = []
    for kind, options in (("jpeg", {"quality": 80}), ("png", {"optimize": True})):
        out = io.BytesIO()
        image.save(out, kind, **options)
        encoded.append(f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}")
    return min(encoded, key=len)
