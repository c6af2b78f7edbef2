"""Score and compare from Python: what the command line does, on captions and answers in memory or on files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmms_fixattn.data.coco import CocoFolder
from lmms_fixattn.report import compare as comparing
from lmms_fixattn.report.runs import CaptionEntry, Run, read_run
from lmms_fixattn.scoring import bootstrap, chair, pope
from lmms_fixattn.scoring.files.reading import read_answers, read_captions, read_ground_truth

if TYPE_CHECKING:
    import pandas

    from lmms_fixattn.report.compare import Comparison

Captions = Mapping[int, str]
"""Captions by image id."""
Truth = Mapping[int, Iterable[str]]
"""What images show, by image id: names of COCO's 80 categories."""


def score_captions(
    captions: Captions | str | Path, truth: Truth | str | Path, *, analyser: str = "lexicon"
) -> dict[str, float | int]:
    """Return the CHAIR figures of captions, in percent, with recall, length and repetition.

    >>> score_captions({42: "A dog on a couch."}, {42: ["dog"]})
    {'chair_s': 100.0, 'chair_i': 50.0, 'recall': 100.0, ...}

    Args:
        captions: by image id, or a file of any form that `lmms-fixattn chair` reads.
        truth: by image id, a file of it, or a COCO folder.
        analyser: how captions become objects: "lexicon", or "nltk" as the reference scorer has it.

    Raises:
        ValueError: a caption without truth, no captions, or a file that cannot be read.
    """
    reader = chair.make_analyser(analyser)
    if isinstance(captions, str | Path):
        given = [(caption.image_id, caption.text, caption.terminated) for caption in read_captions(Path(captions))]
    else:
        given = [(image_id, text, None) for image_id, text in captions.items()]
    shown = _truth(truth, [image_id for image_id, _, _ in given], reader)
    if lacking := [image_id for image_id, _, _ in given if image_id not in shown]:
        raise ValueError(f"{len(lacking)} of {len(given)} captions have no truth, the first is of image {lacking[0]}")
    return chair.corpus_figures(
        [chair.score_caption(image_id, text, shown[image_id], reader, ended) for image_id, text, ended in given]
    )


def score_answers(
    answers: Iterable[Mapping[str, Any]] | str | Path, *, parser: str = "official"
) -> dict[str, float | int]:
    """Return the POPE figures of answers, in percent, with the four counts and the answers that hold no yes or no.

    Args:
        answers: {"question", "label", "answer"} each, or a file that `lmms-fixattn pope` reads.
        parser: how an answer becomes yes or no: "official", "pai", "vcd" or "exact".

    Raises:
        ValueError: no answers, or a file that cannot be read.
    """
    return pope.figures(read_answers(Path(answers)) if isinstance(answers, str | Path) else answers, parser)


def compare(
    runs: Mapping[str, Captions | str | Path] | Sequence[str | Path],
    truth: Truth | str | Path | None = None,
    *,
    baseline: str | None = None,
    analyser: str = "lexicon",
    parser: str = "official",
    draws: int = bootstrap.DRAWS,
    seed: int = 0,
    allow_differences: bool = False,
) -> Comparison:
    """Set runs against a baseline: intervals over images, paired differences, and cuts of its captions as the control.

    >>> to_frame(compare({"vanilla": "out/vanilla", "pai": "out/pai"}))

    Args:
        runs: by name, or paths: captions by image id, an output folder of lmms-eval, or a file.
        truth: as in :func:`score_captions`; None: what the runs logged beside their captions.
        baseline: a run's name; None for the one of method vanilla, or the first.
        draws, seed: of the bootstrap.
        allow_differences: compare runs of other prompts, versions or caps, and of the images that they share.

    Raises:
        ValueError: runs that may not be compared, or what cannot be read.
    """
    named = runs.items() if isinstance(runs, Mapping) else [(None, run) for run in runs]
    read = [_run(name, run) for name, run in named]
    reader = chair.make_analyser(analyser)
    ids = [entry.image_id for run in read for entries in run.captions.values() for entry in entries]
    shown = None if truth is None else _truth(truth, ids, reader)
    return comparing.compare(read, baseline, shown, reader, draws, seed, allow_differences, parser)


def to_frame(comparison: Comparison) -> pandas.DataFrame:
    """Return a comparison as a DataFrame, indexed by run and figure.

    Its columns are value, low and high (95% interval), and the same of the paired difference to the baseline, minus,
    minus_low and minus_high; "chair_s_beyond_brevity" is the distance from the baseline cut short. A table with a row a
    run is ``to_frame(comparison)["value"].unstack()``.
    """
    from lmms_fixattn.report.forms import frame

    return frame(comparison).xs("", level="task")


def _run(name: str | None, run: Captions | str | Path) -> Run:
    if not isinstance(run, Mapping):
        return read_run(str(run) if name is None else f"{name}={run}")
    entries = tuple(CaptionEntry(image_id, text) for image_id, text in run.items())
    return Run(name or "captions", Path(), captions={"": entries})


def _truth(truth: Truth | str | Path, image_ids: Sequence[int], analyser: chair.Analyser) -> dict[int, frozenset[str]]:
    if isinstance(truth, str | Path):
        path = Path(truth).expanduser()
        return CocoFolder(path).truth(image_ids, analyser) if path.is_dir() else read_ground_truth(path)
    return {image_id: frozenset(words) for image_id, words in truth.items()}
