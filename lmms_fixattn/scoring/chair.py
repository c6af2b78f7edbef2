"""CHAIR: which objects a caption mentions, and how many of them are not in the image (arXiv:1809.02156).

Per caption, M = the node words mentioned, with repeats, U = the set of them, T = the image's true node words:

    CHAIR_s = captions with any m in M, m not in T / captions        CHAIR_i = sum |m in M, m not in T| / sum |M|
    recall  = sum |U & T| / sum |T|      precision = sum |U & T| / sum |U|      F1 = their harmonic mean

Rules and figures are those of the scorer that most papers since 2023 use (Maxlinn/CHAIR-metric-standalone); shares are
in percent. A share of nothing (no mentions, no true objects) is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, Protocol

from lmms_fixattn.errors import did_you_mean
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

    def reach(self, word: str) -> int | None:
        """Return how many further words may change what a word names, None for one that names nothing anywhere.

        A word is what stands between blanks, as it does in a caption, with its case and punctuation.
        """


def _lexicon() -> Analyser:
    from lmms_fixattn.scoring.objects.lexicon import LexiconAnalyser

    return LexiconAnalyser()


def _nltk() -> Analyser:
    from lmms_fixattn.scoring.objects.nltk_analyser import NltkAnalyser

    return NltkAnalyser()


ANALYSERS: dict[str, Callable[[], Analyser]] = {"lexicon": _lexicon, "nltk": _nltk}


def make_analyser(name: str = "lexicon") -> Analyser:
    """Return the analyser of a name: "lexicon" (needs nothing) or "nltk" (the reference's, needs NLTK's data).

    Raises ValueError for another name, ModuleNotFoundError without the nltk package, LookupError without its data.
    """
    if name not in ANALYSERS:
        hint = did_you_mean(name, ANALYSERS)
        raise ValueError(f"CHAIR analyser {name!r} is none of {', '.join(ANALYSERS)}{hint}")
    return ANALYSERS[name]()


def ground_truth(
    instances: Iterable[tuple[int, str]], captions: Iterable[tuple[int, str]], analyser: Analyser
) -> dict[int, frozenset[str]]:
    """Return every image's true objects: its annotated ones and those that its reference captions mention.

    instances: (image id, COCO category name), one per annotation; captions: (image id, reference caption). An image of
    either belongs to the result. Raises ValueError for a category that is none of COCO's 80.
    """
    categories: dict[str, set[int]] = {}
    for image_id, category in instances:
        if category in categories:
            categories[category].add(image_id)
        else:
            categories[category] = {image_id}
    check_categories(categories)
    truth: dict[int, set[str]] = {}
    for category, image_ids in categories.items():
        for image_id in image_ids:
            truth.setdefault(image_id, set()).add(category)
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


def corpus_figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | int]:
    """Return the figures of a corpus from the rows of its captions (score_caption).

    chair_s, chair_i, recall, precision, f1   as in this module's head, percent
    words            mean tokens a caption, a double word counted once
    chair_i_unique   unique hallucinated / unique mentioned objects, percent (repeating a true object does not lower it)
    rep_4            mean share of repeated 4-grams, percent
    looped           share of captions whose rep_4 is above 20, percent
    unterminated     share of captions cut off by the token cap, percent
    n                number of captions

    Raises ValueError when there are no rows: a corpus of nothing has no figures.
    """
    if not rows:
        raise ValueError("no captions to score: CHAIR needs at least one")
    n = len(rows)
    mentioned = sum(len(row["objects"]) for row in rows)
    hallucinated = sum(len(row["hallucinated"]) for row in rows)
    unique = sum(row["unique_objects"] for row in rows)
    found = sum(row["unique_true_objects"] for row in rows)
    recall = _percent(found, sum(row["true_objects"] for row in rows))
    precision = _percent(found, unique)
    return {
        "chair_s": _percent(sum(bool(row["hallucinated"]) for row in rows), n),
        "chair_i": _percent(hallucinated, mentioned),
        "recall": recall,
        "precision": precision,
        "f1": 2 * recall * precision / (recall + precision) if found else 0.0,
        "words": sum(row["words"] for row in rows) / n,
        "chair_i_unique": _percent(unique - found, unique),
        "rep_4": sum(row["rep_4"] for row in rows) / n,
        "looped": _percent(sum(row["rep_4"] > 100 * LOOPED_ABOVE for row in rows), n),
        "unterminated": _percent(sum(not row["terminated"] for row in rows), n),
        "n": n,
    }


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0
