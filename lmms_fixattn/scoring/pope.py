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
from lmms_fixattn.scoring.figures import ANSWER_FIGURES, total


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


def read_otherwise(rows: Iterable[Mapping[str, Any]], parser: str) -> dict[str, int]:
    """Return for each other parser how many answers, of rows as for figures, it reads otherwise than this one."""
    chosen = _parser(parser)
    others = {name: parse for name, parse in PARSERS.items() if name != parser}
    counts = dict.fromkeys(others, 0)
    for row in rows:
        ours = chosen(row["answer"], row["label"])
        for name, parse in others.items():
            counts[name] += parse(row["answer"], row["label"]) != ours
    return counts


def is_unparsed(answer: str) -> bool:
    """Return whether an answer holds neither a yes nor a no word: official and pai count it as a yes all the same."""
    return _YES_OR_NO_WORD.search(answer) is None


def counts(predicted: str | None, label: str) -> dict[str, int]:
    """Return what an answer adds to the sums that ANSWER_FIGURES are ratios of.

    One that "exact" reads as neither yes nor no is in none of the four.
    """
    right, yes = predicted == label, predicted == "yes"
    read = predicted is not None
    return {
        "answers": 1,
        "tp": read and right and yes,
        "fp": read and not right and yes,
        "tn": read and right and not yes,
        "fn": read and not right and not yes,
    }


def figures(rows: Iterable[Mapping[str, Any]], parser: str = "official") -> dict[str, float | int]:
    """Return ANSWER_FIGURES (scoring.figures) over rows of {"label": "yes" | "no", "answer": text}, and counts.

    The counts are tp, fp, tn, fn, unparsed (is_unparsed) and n. An answer that "exact" reads as neither is wrong in the
    accuracy and in none of the four, as in lmms-eval. Raises ValueError for no rows, another label, an answer that is
    no text, an unknown parser.
    """
    parse = _parser(parser)
    counted: list[dict[str, int]] = []
    unparsed = 0
    for n, row in enumerate(rows, start=1):
        label, answer = row["label"], row["answer"]
        if label not in ("yes", "no"):
            raise ValueError(f"POPE label of row {n} must be 'yes' or 'no', not {label!r}")
        if not isinstance(answer, str):
            raise ValueError(f"POPE answer of row {n} must be text, not {type(answer).__name__}")
        unparsed += is_unparsed(answer)
        counted.append(counts(parse(answer, label), label))
    if not counted:
        raise ValueError("no answers to score: POPE needs at least one")
    sums = total(counted)
    return {
        **{name: float(figure.of(sums)) for name, figure in ANSWER_FIGURES.items()},
        **{name: int(sums[name]) for name in ("tp", "fp", "tn", "fn")},
        "unparsed": unparsed,
        "n": len(counted),
    }


def _parser(name: str) -> _Parser:
    if name not in PARSERS:
        raise ValueError(f"POPE parser {name!r} is none of {', '.join(PARSERS)}{did_you_mean(name, PARSERS)}")
    return PARSERS[name]
