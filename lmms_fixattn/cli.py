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
from typing import TYPE_CHECKING, Any

from lmms_fixattn.metrics import chair, pope
from lmms_fixattn.metrics.reading import FileError, read_answers, read_captions, read_ground_truth

if TYPE_CHECKING:
    from lmms_fixattn.report.compare import Comparison

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

    _add_compare(commands)
    _add_sweep(commands)
    _add_inspect(commands)
    _add_export(commands)

    _add_command(commands, "methods", _methods, "list the methods with source, hyper-parameters and defaults")
    return parser


def _add_command(commands: Any, name: str, run: Callable[[argparse.Namespace], None], summary: str) -> Any:
    command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    command.add_argument("--format", choices=("table", "json"), default="table", help="of the output (default: table)")
    command.set_defaults(run=run)
    return command


def _add_export(commands: Any) -> None:
    summary = "write a run's answers for others' scorers, with a method card"
    command = commands.add_parser("export", help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    command.add_argument("a_run", metavar="RUN", help="lmms-eval output folder, or file of captions or answers")
    command.add_argument(
        "--to",
        required=True,
        choices=("captions", "pope", "amber", "lmms-eval"),
        help="captions: JSON lines for CHAIR scorers. pope: JSON lines of answers, a file a split. amber: AMBER's "
        "responses. lmms-eval: results and samples as lmms-eval writes them",
    )
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the files are written")
    truth = command.add_mutually_exclusive_group()
    truth.add_argument("--ground-truth", type=Path, metavar="GT.json", help="{image id: [node words]}, also with .gz")
    truth.add_argument("--coco", type=Path, metavar="DIR", help="COCO folder, for what images show")
    command.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> None:
    from lmms_fixattn.report.export import export
    from lmms_fixattn.report.runs import read_run

    run = read_run(arguments.a_run)
    truth = None
    if arguments.ground_truth is not None:
        truth = read_ground_truth(arguments.ground_truth)
    elif arguments.coco is not None:
        image_ids = sorted({entry.image_id for entries in run.captions.values() for entry in entries})
        truth = _coco_truth(arguments.coco, image_ids, chair.make_analyser())
    for path in export(run, arguments.to, arguments.output, truth):
        print(path)


def _add_compare(commands: Any) -> None:
    summary = "set runs against a baseline: intervals, paired differences, and the baseline cut short as the control"
    command = commands.add_parser("compare", help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    command.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="an output folder of lmms-eval (with --log_samples), a file of captions as for `chair`, or of answers as "
        "for `pope`; NAME=RUN names it",
    )
    command.add_argument(
        "--baseline",
        metavar="RUN",
        help="the run to compare with, by its name or as given (default: the one of method vanilla, or the first)",
    )
    truth = command.add_mutually_exclusive_group()
    truth.add_argument(
        "--ground-truth",
        type=Path,
        metavar="GT.json",
        help="{image id: [node words]}, also with .gz (default: what lmms-eval's samples say)",
    )
    truth.add_argument("--coco", type=Path, metavar="DIR", help="folder whose annotations/ hold the truth")
    command.add_argument("--analyser", choices=chair.ANALYSERS, default="lexicon", help="as for `chair`")
    command.add_argument("--parser", choices=pope.PARSERS, default="official", help="as for `pope`")
    command.add_argument("--draws", type=_positive, default=1000, metavar="N", help="of the bootstrap (default: 1000)")
    command.add_argument("--seed", type=_natural, default=0, help="of the draws (default: 0)")
    command.add_argument(
        "--allow-differences",
        action="store_true",
        help="compare runs of different prompts, versions or caps, and of different images on those that they share",
    )
    command.add_argument(
        "--format",
        choices=("table", "markdown", "latex", "csv", "json", "html"),
        default="table",
        help="of what is printed (default: table); html needs --output",
    )
    command.add_argument("--output", type=Path, metavar="DIR", help="write every format and the plots into this folder")
    command.set_defaults(run=_compare)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, not {text!r}")
    return int(text)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, not {text!r}")
    return int(text)


def _compare(arguments: argparse.Namespace) -> None:
    from lmms_fixattn.report import table
    from lmms_fixattn.report.compare import compare
    from lmms_fixattn.report.runs import read_run

    if arguments.format == "html" and arguments.output is None:
        raise FileError("--format html writes a page: name a folder for it with --output DIR")
    runs = [read_run(run) for run in arguments.runs]
    analyser = _analyser(arguments.analyser)
    truth = None
    if arguments.ground_truth is not None:
        truth = read_ground_truth(arguments.ground_truth)
    elif arguments.coco is not None:
        captioned = {entry.image_id for run in runs for entries in run.captions.values() for entry in entries}
        truth = _coco_truth(arguments.coco, captioned, analyser)
    # A baseline may be given as it stands among the runs.
    named = dict(zip(arguments.runs, (run.name for run in runs), strict=True))
    comparison = compare(
        runs,
        named.get(arguments.baseline, arguments.baseline),
        truth,
        analyser,
        arguments.draws,
        arguments.seed,
        arguments.allow_differences,
        arguments.parser,
        _progress,
    )
    if arguments.ground_truth is not None and truth and comparison.curve and len(truth) > comparison.n:
        unused = len(truth) - comparison.n
        _remark(f"{unused} of {len(truth)} images of {arguments.ground_truth} are not compared; n is {comparison.n}")
    if arguments.output is not None:
        _write_comparison(comparison, arguments.output)
    if arguments.format == "html":
        print(arguments.output / "page.html")
    else:
        print(table.render(comparison, arguments.format), end="")


def _write_comparison(comparison: Comparison, directory: Path) -> None:
    from lmms_fixattn.report import table
    from lmms_fixattn.report.html import write_page
    from lmms_fixattn.report.plots import write_plots

    table.write(comparison, directory)
    write_page(comparison, directory / "page.html")
    write_plots(comparison, directory)


def _add_sweep(commands: Any) -> None:
    summary = "run methods and settings through lmms-eval with one load of the model, and compare them"
    command = commands.add_parser("sweep", help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    command.add_argument(
        "config",
        metavar="CONFIG",
        help="a .yaml file (docs/sweep.md), or a shipped one: table1 to table5 for LLaVA-1.5-7B, demo_table1 to "
        "demo_table5 for the packaged model",
    )
    command.add_argument("--output", type=Path, metavar="DIR", help="of results and comparison (default: sweep-CONFIG)")
    command.add_argument("--limit", type=_positive, metavar="N", help="documents of each task (default: CONFIG's)")
    command.set_defaults(run=_sweep)


def _sweep(arguments: argparse.Namespace) -> None:
    from lmms_fixattn.sweep_plan import read_plan

    plan = read_plan(arguments.config, arguments.limit)
    output = arguments.output or Path(f"sweep-{plan.name}")
    _remark(f"{len(plan.cells)} cells of {', '.join(plan.tasks)} into {output}")
    _remark(f"loading lmms-eval and the model; what they say goes to {output / 'log.txt'}")
    from lmms_fixattn.lmms_sweep import chatter_in, run_sweep
    from lmms_fixattn.sweep_report import compare_cells, paper_tables

    try:
        with chatter_in(output / "log.txt") as screen:
            folders = run_sweep(plan, output, screen)
        if len(folders) < 2:
            _remark(f"one cell, so nothing to compare; its result is {next(iter(folders.values()))}")
            return
        comparison = compare_cells(plan, folders, _progress)
        _write_comparison(comparison, output)
        for form, (suffix, text) in paper_tables(plan, comparison).items():
            (output / f"paper_{plan.layout}.{suffix}").write_text(text, encoding="utf-8")
            if form == "text":
                print(text)
    except KeyboardInterrupt:
        _remark(f"stopped; what was answered is kept in {output}, and the same command goes on from there")
        raise
    except (ValueError, RuntimeError, OSError, LookupError) as error:
        raise FileError(str(error)) from error
    from lmms_fixattn.report import table

    print(table.render(comparison, "table"), end="")


def _analyser(name: str) -> chair.Analyser:
    try:
        return chair.make_analyser(name)
    except (ImportError, LookupError) as error:
        raise FileError(str(error)) from error


def _add_inspect(commands: Any) -> None:
    summary = "draw what a method does inside, on one picture and question: OUTPUT/KIND.png, .svg and .json"
    command = commands.add_parser("inspect", help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    command.add_argument(
        "kind",
        choices=("attention", "tokens", "heads", "gap", "answers"),
        metavar="KIND",
        help="attention: of the answer's tokens, by layer and head, before and after. tokens: the selected image tokens. "
        "heads: each head's visual sensitivity. gap: image and text embeddings in one plane. "
        "answers: a conversation, or captions side by side, with unsupported objects in colour",
    )
    command.add_argument("--image", type=Path, help="the picture (default, for pretrained=demo: a packaged scene)")
    command.add_argument(
        "--question",
        action="append",
        default=[],
        help="what to ask (default: for a detailed description); answers takes several, asked in one conversation",
    )
    command.add_argument(
        "--method",
        nargs="+",
        default=[],
        metavar="NAME[,KEY=VALUE...]",
        help="one or several, such as pai fixattn,alpha=0.5 (default: fixattn; attention and answers show vanilla first)",
    )
    command.add_argument("--pretrained", default="demo", help="demo (default), a local directory, or a hub id")
    command.add_argument("--conversation", default="default", help="form of the prompt: default, llava_v1 or pai")
    command.add_argument(
        "--truth",
        metavar="OBJECTS",
        help='for answers: what the picture shows, "cup,bowl" (default: COCO\'s annotations)',
    )
    command.add_argument("--max-new-tokens", type=int, default=512, metavar="N", help="of an answer (default: 512)")
    command.add_argument("--output", type=Path, default=Path("pictures"), metavar="DIR", help="default: pictures")
    command.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> None:
    from lmms_fixattn.inspection.command import inspect

    try:
        paths = inspect(
            arguments.kind,
            image=arguments.image,
            questions=arguments.question,
            methods=arguments.method,
            pretrained=arguments.pretrained,
            conversation=arguments.conversation,
            truth=arguments.truth,
            new_tokens=arguments.max_new_tokens,
            output=arguments.output,
        )
    except (ValueError, RuntimeError, OSError) as error:
        raise FileError(str(error)) from error
    for path in paths:
        print(path)


def _chair(arguments: argparse.Namespace) -> None:
    captions = read_captions(arguments.captions)
    analyser = _analyser(arguments.analyser)
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
        chair.score_caption(caption.image_id, caption.text, truth[caption.image_id], analyser, caption.terminated)
        for caption in _progress(captions, "captions")
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
