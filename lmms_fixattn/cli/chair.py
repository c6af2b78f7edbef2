"""`lmms-fixattn chair`: score anybody's captions."""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmms_fixattn.cli.console import add_command, add_format, one_file, progress, remark, show
from lmms_fixattn.cli.truth import add_analyser, add_truth, make_analyser, read_truth
from lmms_fixattn.errors import UserError
from lmms_fixattn.scoring import chair
from lmms_fixattn.scoring.figures import CAPTION_FIGURES
from lmms_fixattn.scoring.files.entries import overall_metrics
from lmms_fixattn.scoring.files.reading import read_captions
from lmms_fixattn.scoring.silence import said_of_silence

_MEANINGS = {**{name: figure.meaning for name, figure in CAPTION_FIGURES.items()}, "n": "captions"}


def add(commands: Any) -> None:
    """Describe the command."""
    command = add_command(
        commands, "chair", _chair, "score a file of captions with CHAIR, recall, length and repetition"
    )
    add_format(command)
    command.add_argument(
        "captions",
        type=Path,
        metavar="CAPTIONS",
        help='JSON lines, a JSON list or a table of {"image_id", "caption"}, also with .gz; a boolean "terminated" '
        "says whether the generator ended the caption",
    )
    add_truth(command, required=True)
    command.add_argument("--per-caption", type=Path, metavar="OUT.jsonl", help="write a row a caption, also with .gz")
    add_analyser(command)


def _chair(arguments: argparse.Namespace) -> None:
    captions = read_captions(one_file(arguments.captions, "chair"))
    analyser = make_analyser(arguments.analyser)
    image_ids = [caption.image_id for caption in captions]
    key = captions[0].key
    if key != "caption":
        remark(f"{arguments.captions}: the captions were taken from the key {key!r}")
    named = {caption.image_id: caption.file_name for caption in captions if caption.file_name is not None}
    if named:
        image_id, name = next(iter(named.items()))
        remark(
            f"{arguments.captions}: {len(named)} image ids were read from file names, such as {image_id} from {name!r}"
        )
    truth = read_truth(arguments, image_ids, analyser, named) or {}
    if arguments.ground_truth is not None:
        if lacking := [image_id for image_id in image_ids if image_id not in truth]:
            raise UserError(
                f"{len(lacking)} of {len(captions)} captions have no truth in {arguments.ground_truth}, "
                f"the first is that of image {lacking[0]}"
            )
        if unused := len(truth) - len(captions):
            remark(f"{unused} of {len(truth)} images of {arguments.ground_truth} have no caption; n is {len(captions)}")
    rows = [
        chair.score_caption(caption.image_id, caption.text, truth[caption.image_id], analyser, caption.terminated)
        for caption in progress(captions, "captions")
    ]
    if said := said_of_silence(rows):
        remark(said)
    if arguments.per_caption is not None:
        _write_rows(arguments.per_caption, rows)
    figures = chair.corpus_figures(rows)
    if stated := _stated(arguments.captions, figures):
        remark(f"{arguments.captions} states of itself, against ours: {stated}")
    show(arguments, {**figures, "analyser": analyser.name}, _MEANINGS)


# The reference scorer's names, and by what its values become ours: its length is in hundreds of words.
_REFERENCE = {"CHAIRs": "chair_s", "CHAIRi": "chair_i", "Recall": "recall", "F1": "f1", "Len": "words"}


def _stated(path: Path, figures: Mapping[str, float]) -> str:
    """Return the reference scorer's own figures in a file beside ours, "" where it carries none."""
    stated = overall_metrics(path, _REFERENCE)
    found = [(name, 100 * stated[name], figures[ours]) for name, ours in _REFERENCE.items() if name in stated]
    return ", ".join(f"{name} {theirs:.2f} ({ours:.2f})" for name, theirs, ours in found)


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    content = text.encode("utf-8", errors="backslashreplace")  # half a surrogate pair, as JSON's escape for it
    try:
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None
