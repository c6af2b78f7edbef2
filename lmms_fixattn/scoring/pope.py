"""POPE: yes or no, is the object in the image? (arXiv:2305.10355)

The positive class is "yes". Papers differ in how they read an answer's text, so the parser belongs beside the figures:

    official   up to the first period, commas removed; a word "No", "not" or "no" makes it no, else yes (RUCAIBox/POPE)
    pai        the whole text, periods and commas removed; a word "No", "not", "no", "NO" or one that ends in "n't"
               makes it no, else yes (LALBJ/PAI)
    vcd        lower-cased; where the label is yes, an answer with "yes" anywhere in it is yes, else no; where it is no,
               one with "no" anywhere in it is no, else yes (DAMO-NLP-SG/VCD): what is read depends on the label
    exact      stripped and lower-cased it must be "yes" or "no", else it is neither (lmms-eval's own task `pope`)

Words are what stands between blanks, as in the released scripts; in "No\\nthere" no word is "No".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lmms_fixattn.errors import did_you_mean


def _official(answer: str, _label: str | None) -> str:
    words = answer.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def _pai(answer: str, _label: str | None) -> str:
    words = answer.replace(".", "").replace(",", "").split(" ")
    negative = {"No", "not", "no", "NO"} & set(words) or any(word.endswith("n't") for word in words)
    return "no" if negative else "yes"


def _vcd(answer: str, label: str | None) -> str:
    lowered = answer.strip().lower()
    if label == "yes":
        return "yes" if "yes" in lowered else "no"
    if label == "no":
        return "no" if "no" in lowered else "yes"
    raise ValueError(f"POPE parser 'vcd' reads an answer by its question's label, yes or no, not {label!r}")


def _exact(answer: str, _label: str | None) -> str | None:
    stripped = answer.strip().lower()
    return stripped if stripped in ("yes", "no") else None


_Parser = Callable[[str, str | None], str | None]
PARSERS: dict[str, _Parser] = {"official": _official, "pai": _pai, "vcd": _vcd, "exact": _exact}

_YES_OR_NO_WORD = re.compile(r"\b(?:yes|no|not|cannot|\w+n['’]t)\b", re.IGNORECASE)


def parse_answer(answer: str, parser: str = "official", label: str | None = None) -> str | None:
    """Return "yes" or "no", or None where the parser "exact" finds neither; ValueError for an unknown parser.

    label: of the question, which "vcd" needs; ValueError without it.
    """
    return _parser(parser)(answer, label)


def read_differently(rows: Iterable[Mapping[str, Any]]) -> int:
    """Return how many answers, of rows as for figures, the parsers do not all read alike."""
    return sum(len({parse(row["answer"], row["label"]) for parse in PARSERS.values()}) > 1 for row in rows)


def is_unparsed(answer: str) -> bool:
    """Return whether an answer holds neither a yes nor a no word: official and pai count it as a yes all the same."""
    return _YES_OR_NO_WORD.search(answer) is None


def figures(rows: Iterable[Mapping[str, Any]], parser: str = "official") -> dict[str, float | int]:
    """Return POPE's figures over rows of {"label": "yes" | "no", "answer": text}.

    accuracy    (tp + tn) / n, percent          precision   tp / (tp + fp), percent
    recall      tp / (tp + fn), percent         f1          their harmonic mean, percent
    yes_ratio   answers read as yes / n, percent (of what was predicted, not of the labels)
    tp, fp, tn, fn, unparsed, n                 counts

    An answer that "exact" reads as neither is wrong in the accuracy and in none of tp, fp, tn and fn, as in lmms-eval.
    A share of nothing is 0. Raises ValueError for no rows, another label, an answer that is no text, an unknown parser.
    """
    parse = _parser(parser)
    counts = {"tp": 0, "fp": 0, "tn": 0, "fn": 0}
    unparsed = n = 0
    for n, row in enumerate(rows, start=1):
        label, answer = row["label"], row["answer"]
        if label not in ("yes", "no"):
            raise ValueError(f"POPE label of row {n} must be 'yes' or 'no', not {label!r}")
        if not isinstance(answer, str):
            raise ValueError(f"POPE answer of row {n} must be text, not {type(answer).__name__}")
        unparsed += is_unparsed(answer)
        predicted = parse(answer, label)
        if predicted is not None:
            counts[("t" if predicted == label else "f") + ("p" if predicted == "yes" else "n")] += 1
    if not n:
        raise ValueError("no answers to score: POPE needs at least one")
    tp, fp, tn, fn = counts.values()
    precision, recall = _percent(tp, tp + fp), _percent(tp, tp + fn)
    return {
        "accuracy": _percent(tp + tn, n),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if tp else 0.0,
        "yes_ratio": _percent(tp + fp, n),
        **counts,
        "unparsed": unparsed,
        "n": n,
    }


def _parser(name: str) -> _Parser:
    if name not in PARSERS:
        raise ValueError(f"POPE parser {name!r} is none of {', '.join(PARSERS)}{did_you_mean(name, PARSERS)}")
    return PARSERS[name]


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0
