"""What captions are held against: the objects that images show, and who reads objects out of captions."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmms_fixattn.errors import UserError
from lmms_fixattn.scoring import chair
from lmms_fixattn.scoring.files.reading import read_ground_truth

if TYPE_CHECKING:
    from lmms_fixattn.report.runs import Run


def add_truth(command: Any, required: bool = False) -> None:
    """Let a command take the truth from a file or from a COCO folder."""
    without = "" if required else " (default: what lmms-eval's samples say)"
    truth = command.add_mutually_exclusive_group(required=required)
    truth.add_argument(
        "--ground-truth", type=Path, metavar="GT.json", help=f"{{image id: [node words]}}, also with .gz{without}"
    )
    truth.add_argument(
        "--coco", type=Path, metavar="DIR", help="folder whose annotations/ holds instances_ and captions_*2014.json"
    )


def add_analyser(command: Any) -> None:
    """Let a command choose who reads objects out of captions."""
    command.add_argument(
        "--analyser",
        choices=chair.ANALYSERS,
        default="lexicon",
        help="how captions become objects: lexicon (default) needs no data, nltk is the reference scorer's",
    )


def read_truth(
    arguments: argparse.Namespace,
    image_ids: Collection[int],
    analyser: chair.Analyser,
    named: Mapping[int, str] | None = None,
) -> dict[int, frozenset[str]] | None:
    """Return {image id: node words} of what add_truth was given, None where it was given nothing.

    named: the file names of the images whose ids were read from them. A COCO folder has to know each by the same name.
    """
    if arguments.ground_truth is not None:
        return read_ground_truth(arguments.ground_truth)
    return None if arguments.coco is None else _of_coco(arguments.coco, image_ids, analyser, named or {})


def read_truth_of(
    arguments: argparse.Namespace, runs: Iterable[Run], analyser: chair.Analyser
) -> dict[int, frozenset[str]] | None:
    """Return what read_truth does, for the captions of runs."""
    captions = [entry for run in runs for entries in run.captions.values() for entry in entries]
    named = {entry.image_id: entry.file_name for entry in captions if entry.file_name is not None}
    return read_truth(arguments, {entry.image_id for entry in captions}, analyser, named)


def make_analyser(name: str) -> chair.Analyser:
    """Return an analyser; UserError where its data is not there."""
    try:
        return chair.make_analyser(name)
    except (ImportError, LookupError) as error:
        raise UserError(str(error)) from error


def _of_coco(
    root: Path, image_ids: Collection[int], analyser: chair.Analyser, named: Mapping[int, str]
) -> dict[int, frozenset[str]]:
    from lmms_fixattn.data import DataError
    from lmms_fixattn.data.coco import CocoFolder

    try:
        folder = CocoFolder(root)
        for image_id, file_name in folder.file_names(named).items():
            if folder.image_id(named[image_id]) != image_id:
                raise UserError(
                    f"{named[image_id]!r} was read as image {image_id}, which is {file_name!r} in {root}: give the "
                    "captions' image ids as numbers"
                )
        return folder.truth(image_ids, analyser)
    except (DataError, ValueError) as error:
        raise UserError(str(error)) from error
