"""How often the control for brevity is wrong: methods that only say less, or do more, simulated from real captions.

    python benchmarks/brevity_nulls.py baseline.jsonl.gz other.jsonl.gz --ground-truth truth.json

Takes the captions of a baseline, and of another run that differs little from it, as the population of images. A sample
draws n images of it with replacement, and is compared as `lmms-fixattn compare` does, method after method. "better" and
"worse" are what the verdict says, in percent of the samples: of pure brevity it should say "better" in at most 2.5%,
and "worse" never. "holds" is how often the interval of CHAIR_s beyond brevity holds its value in the population. The
last lines are methods that do more than brevity, and "better" is the power to find it. One process.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from lmms_fixattn.report.runs import read_run
from lmms_fixattn.report.verdict import verdict
from lmms_fixattn.scoring import bootstrap, chair
from lmms_fixattn.scoring.bootstrap import Floats, Interval
from lmms_fixattn.scoring.files.reading import read_ground_truth
from lmms_fixattn.scoring.truncation import PrefixCounts, Truncation, TruncationControl, count_prefixes, kept_words

Words = NDArray[np.int64]


class Method(NamedTuple):
    """Captions of a run, each cut after so many words [n], and which of them name nothing false [n]."""

    counts: PrefixCounts
    words: Words
    cured: NDArray[np.bool_]

    def of(self, images: Words) -> Method:
        """Return the captions of some images, by their places."""
        return Method(self.counts.of(list(images)), self.words[images], self.cured[images])


class Rates(NamedTuple):
    """What was said of a method, percent of the samples, and its CHAIR_s beyond brevity in the population."""

    population: float
    better: float
    worse: float
    better_chair_i: float
    worse_chair_i: float
    holds: float


def brevity(base: PrefixCounts, other: PrefixCounts) -> dict[str, Method]:
    """Return methods that do nothing but say less, or nothing at all."""
    source = np.random.default_rng(0)
    n = len(base.words)

    def cut(of: PrefixCounts, words: Words | int) -> Method:
        return Method(of, np.minimum(words, of.words), np.zeros(n, dtype=np.bool_))

    def way(of: PrefixCounts, name: str, amount: int) -> Method:
        return cut(of, kept_words(of)[name][:, amount])

    last = kept_words(base)["sentences"]
    whole = base.words.copy()
    shortened = source.choice(n, max(1, n // 50), replace=False)
    for image in shortened:
        whole[image] = max([end for end in last[image] if end < base.words[image]], default=0)
    return {
        "first 40 words": cut(base, 40),
        "other run, first 40 words": cut(other, 40),
        "other run, first 75 words": cut(other, 75),
        "random cut, 20 to 60 words an image": cut(base, source.integers(20, 61, n)),
        "sentence end from 30 words on": way(base, "sentence_from", 30),
        "sentence end from 60 words on": way(base, "sentence_from", 60),
        "first 3 sentences": way(base, "sentences", 3),
        "80% whole, 20% empty": cut(base, np.where(source.random(n) < 0.8, base.words, 0)),
        "45% of each caption's words": way(base, "share", 45),
        "60% of each caption's words": way(base, "share", 60),
        "other run, 45% of its words": way(other, "share", 45),
        "the last sentence of 2% dropped": cut(base, whole),
        "the baseline itself": cut(base, base.words),
        "other run, whole": cut(other, other.words),
    }


def cures(base: PrefixCounts) -> dict[str, Method]:
    """Return methods of which some captions that would hallucinate do not."""
    source = np.random.default_rng(1)
    n = len(base.words)

    def cured(share: float, words: Words | int) -> Method:
        return Method(base, np.minimum(words, base.words), source.random(n) < share)

    return {
        "a tenth cured, whole": cured(0.1, base.words),
        "a fifth cured, first 60 words": cured(0.2, 60),
        "a fifth cured, 60% of the words": cured(0.2, kept_words(base)["share"][:, 60]),
    }


def figures(method: Method, weights: Floats) -> dict[str, tuple[float, Floats]]:
    """Return a method's recall and figures of hallucination, over its captions and in every draw."""
    counts, at = method.counts, method.words[:, None]
    found, unique, mentioned, wrong = (
        np.take_along_axis(values, at, axis=1)[:, 0]
        for values in (counts.found, counts.unique, counts.mentioned, counts.hallucinated)
    )
    mentioned, unique = (
        np.where(method.cured, kept, all_of) for kept, all_of in ((mentioned - wrong, mentioned), (found, unique))
    )
    wrong = np.where(method.cured, 0.0, wrong)
    ratios = {
        "recall": (found, counts.true),
        "chair_s": ((wrong > 0).astype(np.float64), np.ones(len(wrong))),
        "chair_i": (wrong, mentioned),
        "chair_i_unique": (unique - found, unique),
    }
    ones = bootstrap.corpus_weights(len(wrong))
    return {
        name: (float(bootstrap.ratios(ones, *sides)[0]), bootstrap.ratios(weights, *sides))
        for name, sides in ratios.items()
    }


def said(own: Mapping[str, tuple[float, Floats]], base: Mapping[str, tuple[float, Floats]], beyond: Truncation) -> str:
    """Return the verdict on a method that neither loops nor is cut off."""
    zero = Interval(0.0, 0.0, 0.0)
    differences = {
        name: bootstrap.interval(own[name][0] - base[name][0], own[name][1] - base[name][1])
        for name in ("chair_s", "chair_i", "recall")
    } | {"looped": zero, "unterminated": zero}
    return verdict({}, differences, beyond, dict.fromkeys(differences, 500))


def rates(
    base: PrefixCounts,
    methods: Mapping[str, Method],
    n: int,
    simulations: int,
    draws: int,
) -> dict[str, Rates]:
    """Return what is said of methods in samples of n images."""
    source = np.random.default_rng(2)
    whole = Method(base, base.words, np.zeros(len(base.words), dtype=np.bool_))
    ones = bootstrap.corpus_weights(len(base.words))
    population = TruncationControl(base, ones)
    truths = {
        name: float(population.compare(figures(method, ones)).chair_s.value or 0.0) for name, method in methods.items()
    }
    counted = {name: np.zeros(5) for name in methods}
    for number in range(simulations):
        images = source.integers(0, len(base.words), n)
        weights = bootstrap.draw_weights(n, draws, number)
        sampled = TruncationControl(base.of(list(images)), weights)
        own = figures(whole.of(images), weights)
        for name, method in methods.items():
            found = figures(method.of(images), weights)
            beyond = sampled.compare(found)
            words = said(found, own, beyond)
            delta = beyond.chair_s
            counted[name] += (
                "and better than saying less" in words,
                "and worse than every cut" in words,
                "though better in CHAIR_i" in words,
                "worse than every cut in CHAIR_i" in words,
                (delta.low or 0.0) - 1e-9 <= truths[name] <= (delta.high or 0.0) + 1e-9,
            )
    return {name: Rates(truths[name], *(100 * count / simulations)) for name, count in counted.items()}


def main() -> None:
    """Simulate and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("baseline", help="a file of captions")
    parser.add_argument("other", help="captions of a run that differs little from it, on the same images")
    parser.add_argument("--ground-truth", required=True)
    parser.add_argument("--images", type=int, default=500, metavar="N", help="of a sample")
    parser.add_argument("--simulations", type=int, default=200)
    parser.add_argument("--draws", type=int, default=1000)
    arguments = parser.parse_args()
    analyser = chair.make_analyser()
    truth = read_ground_truth(Path(arguments.ground_truth))
    counts = []
    for file in (arguments.baseline, arguments.other):
        captions = {entry.image_id: entry.text for entries in read_run(file).captions.values() for entry in entries}
        counts.append(count_prefixes(((captions[image], truth[image]) for image in sorted(captions)), analyser))
    base, other = counts
    methods = brevity(base, other) | cures(base)
    found = rates(base, methods, arguments.images, arguments.simulations, arguments.draws)
    rows = [(name, f"{one[0]:+.2f}", *(f"{rate:.1f}" for rate in one[1:])) for name, one in found.items()]
    header = ("method", "population", "better", "worse", "better CHAIR_i", "worse CHAIR_i", "holds")
    print(f"{arguments.simulations} samples of {arguments.images} images, {arguments.draws} draws each\n")
    print(tabulate(rows, header, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
