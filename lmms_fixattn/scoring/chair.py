"""CHAIR: which objects a caption mentions, and how many of them are not in the image (arXiv:1809.02156).

Per caption, M = the node words mentioned, with repeats, U = the set of them, T = the image's true node words:

    CHAIR_s = captions with any m in M, m not in T / captions        CHAIR_i = sum |m in M, m not in T| / sum |M|
    recall  = sum |U & T| / sum |T|      precision = sum |U & T| / sum |U|      F1 = their harmonic mean

Rules and figures are those of the scorer that most papers since 2023 use (Maxlinn/CHAIR-metric-standalone); shares are
in percent. A share of nothing (no mentions, no true objects) is 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Protocol

from lmms_fixattn.errors import did_you_mean
from lmms_fixattn.scoring.figures import CAPTION_FIGURES, total
from lmms_fixattn.scoring.objects.coco_objects import Mentions, check_categories
from lmms_fixattn.scoring.objects.located import Located
from lmms_fixattn.scoring.repetition import LOOPED_ABOVE, looks_terminated, rep_n


class Analyser(Protocol):
    """Reads object mentions out of captions. Immutable after construction, so threads may share one."""

    @property
    def name(self) -> str:
        """The name that make_analyser knows it by; belongs beside every figure that it made."""

    def mentions(self, caption: str) -> Mentions:
        """Return the mentions of a caption; the empty caption mentions nothing in 0 words."""

    def located(self, caption: str) -> list[Located]:
        """Return the objects of mentions(caption), in the same order, with their places in the caption as given."""

    def lookahead(self, word: str) -> int | None:
        """Return how many further words may change what a word names, None for one that names nothing anywhere.

        A word is what stands between blanks, as it does in a caption, with its case and punctuation.
        """


ANALYSERS = ("lexicon", "nltk")


def make_analyser(name: str = "lexicon") -> Analyser:
    """Return the analyser of a name: "lexicon" (needs nothing) or "nltk" (the reference's, needs NLTK's data).

    Raises ValueError for another name, ModuleNotFoundError without the nltk package, LookupError without its data.
    """
    if name not in ANALYSERS:
        hint = did_you_mean(name, ANALYSERS)
        raise ValueError(f"CHAIR analyser {name!r} is none of {', '.join(ANALYSERS)}{hint}")
    if name == "nltk":
        from lmms_fixattn.scoring.objects.nltk_analyser import NltkAnalyser

        return NltkAnalyser()
    from lmms_fixattn.scoring.objects.lexicon import LexiconAnalyser

    return LexiconAnalyser()


def ground_truth(
    instances: Iterable[tuple[int, str]], captions: Iterable[tuple[int, str]], analyser: Analyser
) -> dict[int, frozenset[str]]:
    """Return every image's true objects: its annotated ones and those that its reference captions mention.

    instances: (image id, COCO category name), one per annotation; captions: (image id, reference caption). An image of
    either belongs to the result. Raises ValueError for a category that is none of COCO's 80.
    """
    truth: dict[int, set[str]] = {}
    for image_id, category in instances:
        truth.setdefault(image_id, set()).add(category)
    check_categories({category for words in truth.values() for category in words})
    for image_id, caption in captions:
        truth.setdefault(image_id, set()).update(analyser.mentions(caption).objects)
    return {image_id: frozenset(words) for image_id, words in truth.items()}


def score_caption(
    image_id: int, caption: str, truth: Set[str], analyser: Analyser, terminated: bool | None = None
) -> dict[str, Any]:
    """Return one caption's row, which JSON can hold: what it mentions, what of that is not true, and its counts.

    terminated says whether the generator ended the caption itself, rather than at the token cap; None where that is
    not known, and then a caption that ends in ".", "!" or "?" counts as ended.
    """
    objects, words = analyser.mentions(caption)
    unique = set(objects)
    return {
        "image_id": image_id,
        "caption": caption,
        "objects": objects,
        "hallucinated": [word for word in objects if word not in truth],
        "unique_objects": len(unique),
        "unique_true_objects": len(unique & truth),
        "true_objects": len(truth),
        "truth": sorted(truth),
        "words": words,
        "rep_4": 100 * rep_n(caption, 4),
        "terminated": looks_terminated(caption) if terminated is None else terminated,
    }


def counts(row: Mapping[str, Any]) -> dict[str, float]:
    """Return what a caption's row (score_caption) adds to the sums that CAPTION_FIGURES are ratios of."""
    return {
        "captions": 1,
        "hallucinating": bool(row["hallucinated"]),
        "mentioned": len(row["objects"]),
        "hallucinated": len(row["hallucinated"]),
        "unique": row["unique_objects"],
        "found": row["unique_true_objects"],
        "true": row["true_objects"],
        "words": row["words"],
        "rep_4": row["rep_4"],
        "looped": row["rep_4"] > 100 * LOOPED_ABOVE,
        "unterminated": not row["terminated"],
    }


def corpus_figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | int]:
    """Return CAPTION_FIGURES (scoring.figures) of a corpus from the rows of its captions (score_caption), and n.

    Raises ValueError when there are no rows: a corpus of nothing has no figures.
    """
    if not rows:
        raise ValueError("no captions to score: CHAIR needs at least one")
    sums = total(map(counts, rows))
    return {name: float(figure.of(sums)) for name, figure in CAPTION_FIGURES.items()} | {"n": len(rows)}
