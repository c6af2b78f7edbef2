"""The command `lmms-fixattn`: score files of captions or answers, list the methods.

Figures go to standard output, remarks to standard error. An error is one line there and exit status 1 (2 for a command
line that cannot be read).
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmms_fixattn.metrics import chair, pope
from lmms_fixattn.metrics.reading import FileError, read_answers, read_captions, read_ground_truth

_CHAIR_MEANINGS = {
    "chair_s": "% of captions with a hallucinated object",
    "chair_i": "% of mentions that are hallucinated",
    "recall": "% of true objects that are mentioned",
    "precision": "% of mentioned objects that are true, each counted once a caption",
    "f1": "harmonic mean of recall and precision",
    "words": "mean words a caption",
    "chair_i_unique": "% of mentioned objects that are hallucinated, each counted once a caption",
    "rep_4": "% of 4-grams that are repeats",
    "looped": "% of captions with rep_4 above 20",
    "unterminated": "% of captions cut off by the token cap",
    "n": "captions",
}
_POPE_MEANINGS = {
    "accuracy": "% of answers that are right",
    "precision": "% of answers read as yes that are right",
    "recall": "% of present objects that are affirmed",
    "f1": "harmonic mean of precision and recall",
    "yes_ratio": "% of answers read as yes",
    "tp": "yes, and present",
    "fp": "yes, but absent",
    "tn": "no, and absent",
    "fn": "no, but present",
    "unparsed": "answers with neither a yes nor a no word",
    "n": "answers",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], None] = arguments.run
    try:
        run(arguments)
        sys.stdout.flush()
    except FileError as error:
        message = " ".join(str(error).split())
        print(f"lmms-fixattn {arguments.command}: error: {message}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of a pipe (head, less) has gone; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    from lmms_fixattn import __version__

    parser = argparse.ArgumentParser(prog="lmms-fixattn", description="Score captions and answers; list the methods.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = _add_command(commands, "chair", _chair, "score a file of captions with CHAIR and its honest companions")
    command.add_argument(
        "captions",
        type=Path,
        metavar="CAPTIONS",
        help='.json list or .jsonl of {"image_id", "caption"} objects, either also with .gz; a boolean "terminated" '
        "says whether the generator ended the caption",
    )
    truth = command.add_mutually_exclusive_group(required=True)
    truth.add_argument("--ground-truth", type=Path, metavar="GT.json", help="{image id: [node words]}, also with .gz")
    truth.add_argument(
        "--coco", type=Path, metavar="DIR", help="folder whose annotations/ holds instances_ and captions_*2014.json"
    )
    command.add_argument("--per-caption", type=Path, metavar="OUT.jsonl", help="write a row a caption, also with .gz")
    command.add_argument(
        "--analyser",
        choices=chair.ANALYSERS,
        default="lexicon",
        help="how captions become objects: lexicon (default) needs no data, nltk is the reference scorer's",
    )

    command = _add_command(commands, "pope", _pope, "score a file of yes/no answers with POPE's figures")
    command.add_argument(
        "answers",
        type=Path,
        metavar="ANSWERS",
        help='.jsonl or .json list of {"question", "label", "answer"} objects, either also with .gz',
    )
    command.add_argument(
        "--parser",
        choices=pope.PARSERS,
        default="official",
        help="how an answer's text becomes yes or no: POPE's own script (default), PAI's, or exact match",
    )

    _add_command(commands, "methods", _methods, "list the methods with source, hyper-parameters and defaults")
    return parser


def _add_command(commands: Any, name: str, run: Callable[[argparse.Namespace], None], summary: str) -> Any:
    command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    command.add_argument("--format", choices=("table", "json"), default="table", help="of the output (default: table)")
    command.set_defaults(run=run)
    return command


def _chair(arguments: argparse.Namespace) -> None:
    captions = read_captions(arguments.captions)
    try:
        analyser = chair.make_analyser(arguments.analyser)
    except (ImportError, LookupError) as error:
        raise FileError(str(error)) from error
    image_ids = [caption.image_id for caption in captions]
    if arguments.ground_truth is not None:
        truth = read_ground_truth(arguments.ground_truth)
        if lacking := [image_id for image_id in image_ids if image_id not in truth]:
            raise FileError(
                f"{len(lacking)} of {len(captions)} captions have no truth in {arguments.ground_truth}, "
                f"the first is that of image {lacking[0]}"
            )
        if unused := len(truth) - len(captions):
            _remark(
                f"{unused} of {len(truth)} images of {arguments.ground_truth} have no caption; n is {len(captions)}"
            )
    else:
        truth = _coco_truth(arguments.coco, image_ids, analyser)
    rows = [
        chair.score_caption(image_id, text, truth[image_id], analyser, terminated)
        for image_id, text, terminated in _progress(captions, "captions")
    ]
    if arguments.per_caption is not None:
        _write_rows(arguments.per_caption, rows)
    _show(arguments, {**chair.corpus_figures(rows), "analyser": analyser.name}, _CHAIR_MEANINGS)


def _coco_truth(root: Path, image_ids: Collection[int], analyser: chair.Analyser) -> dict[int, frozenset[str]]:
    from lmms_fixattn.data import DataError
    from lmms_fixattn.data.coco import CocoFolder

    try:
        folder = CocoFolder(root)
        found = chair.ground_truth(folder.instances(image_ids), folder.captions(image_ids), analyser)
    except (DataError, ValueError) as error:
        raise FileError(str(error)) from error
    # An annotated image may show none of the 80 objects.
    return {image_id: found.get(image_id, frozenset()) for image_id in image_ids}


def _pope(arguments: argparse.Namespace) -> None:
    figures = pope.figures(read_answers(arguments.answers), arguments.parser)
    _show(arguments, {**figures, "parser": arguments.parser}, _POPE_MEANINGS)


def _methods(arguments: argparse.Namespace) -> None:
    from lmms_fixattn.methods import METHODS

    methods: list[dict[str, Any]] = [
        {
            "name": name,
            "summary": method.summary,
            "source": method.source,
            "parameters": [
                {
                    "name": parameter.name,
                    "default": parameter.default,
                    "expected": parameter.metadata["expected"],
                    "meaning": parameter.metadata["meaning"],
                }
                for parameter in dataclasses.fields(method)
            ],
        }
        for name, method in METHODS.items()
    ]
    if arguments.format == "json":
        print(json.dumps(methods, indent=2))
        return
    for method in methods:
        print(f"{method['name']}: {method['summary']} ({method['source']})")
        rows = [
            (row["name"], _written(row["default"]), row["expected"], row["meaning"]) for row in method["parameters"]
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _written(default: Any) -> str:
    """Return a default as --model_args would say it."""
    if isinstance(default, tuple):
        return "-".join("" if bound is None else str(bound) for bound in default)
    return str(default).lower() if isinstance(default, bool) else str(default)


def _show(arguments: argparse.Namespace, figures: Mapping[str, Any], meanings: Mapping[str, str]) -> None:
    if arguments.format == "json":
        print(json.dumps(figures, indent=2))
        return
    width = max(map(len, figures))
    for name, value in figures.items():
        written = f"{value:10.2f}" if isinstance(value, float) else f"{value:>10}"
        print(f"{name:{width}}  {written}  {meanings.get(name, '')}".rstrip())


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    content = text.encode("utf-8", errors="surrogatepass")
    try:
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from None


def _progress(items: Sequence[Any], unit: str) -> Any:
    """Return the items, behind a progress bar on a terminal once they take longer than two seconds."""
    from tqdm import tqdm

    return tqdm(items, unit=f" {unit}", delay=2, leave=False, disable=None)


def _remark(text: str) -> None:
    print(f"lmms-fixattn: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
