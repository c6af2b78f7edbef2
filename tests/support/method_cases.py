"""One table of what the tests know of each method. A new method needs its line here: everything is then tried on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import naive_methods as naive
from naive_llava import Fix
from statistics_files import statistics_file
from tiny_llava import text_model

from lmms_fixattn.harness.check import STATISTICS
from lmms_fixattn.methods import METHODS, Method
from lmms_fixattn.methods.statistics import AttentionStatistics

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Reader:
    """What a formula in plain loops needs of the model.

    Attributes:
        depth: its decoder layers.
        words: token ids of ICD's disturbance.
    """

    depth: int
    words: list[int]

    def layers(self, method: Any) -> tuple[int, int]:
        """Return the range of layers of a method, the end excluded."""
        start, end = method.layers
        return start, end or self.depth

    def listed(self, method: Any) -> tuple[int, ...]:
        return tuple(range(*self.layers(method)))


@dataclass(frozen=True)
class MethodCase:
    """What the tests know of a method.

    Attributes:
        neutral: settings with which it does nothing.
        moves: of each hyper-parameter a value that must give other scores than the default; or that value, and what is
            set beside either. Of `unmoving` ones nothing is expected.
        short: settings with which it acts on answers of a few tokens, where its defaults do not.
        edits_scores: the kinds of columns whose scores it changes, before softmax.
        edits_weights: the kinds of columns whose weights it changes of its own, after softmax.
        formula: it in plain loops (`naive_methods`), from its instance; None for what acts by arguments of `generate`,
            on the prompt or by ending the answer.
        by_hand: settings on the model of `tiny_llava`, by the case's name, with which every step is compared with the
            formula.
        recorded: settings that move the packaged model's answers, which `lmms-fixattn check` compares.
    """

    neutral: Settings
    moves: Settings = field(default_factory=dict)
    unmoving: frozenset[str] = frozenset()
    short: Settings = field(default_factory=dict)
    edits_scores: tuple[str, ...] = ()
    edits_weights: tuple[str, ...] = ()
    formula: Callable[[Any, Reader], Fix] | None = None
    by_hand: Mapping[str, Settings] = field(default_factory=dict)
    recorded: Settings | None = None

    def moved(self, parameter: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return settings that must give other scores than the second ones."""
        value = self.moves[parameter]
        value, beside = value if isinstance(value, Beside) else (value, {})
        return {parameter: value, **beside}, dict(beside)


class Beside(tuple[Any, Settings]):
    """A value, and settings that stand beside it."""

    def __new__(cls, value: Any, **settings: Any) -> Beside:
        return super().__new__(cls, (value, settings))


def _adaiat(method: Any, reader: Reader) -> Fix:
    statistics, _ = AttentionStatistics.read(Path(method.statistics))
    thresholds = statistics.thresholds(method.beta).tolist()
    return naive.adaiat(statistics.ratios().tolist(), thresholds, method.alpha, reader.layers(method))


def _amplified(method: Any, reader: Reader, **more: Any) -> Fix:
    given = {"alpha": method.alpha, "layers": reader.layers(method), "gamma": method.gamma}
    return Fix(**given, edit_prefill=method.gamma == 1 or not method.released_first_token, **more)


def _fixattn(method: Any, reader: Reader) -> Fix:
    if method.selection == "prompt":
        return naive.by_prompt(
            method.alpha, method.beta, method.local_ratio, reader.layers(method), method.gamma,
            method.head_modulation, method.g_max, method.gamma == 1 or not method.released_first_token,
        )  # fmt: skip
    more = {"beta": method.beta, "local": method.local_ratio, "spatial": method.spatial_ratio}
    heads = {"modulation": method.head_modulation, "g_max": method.g_max, "share": method.share}
    return _amplified(method, reader, **more, **heads)


PROMPT, EVERYWHERE = ("before", "image", "after"), ("before", "image", "after", "generated")
PROPORTIONAL, TOP = {"head_modulation": "proportional"}, {"head_modulation": "top"}

METHOD_CASES = {
    "vanilla": MethodCase(neutral={}, formula=lambda m, on: Fix(), by_hand={"vanilla": {}}, recorded={}),
    "pai": MethodCase(
        neutral={"alpha": 0, "gamma": 1},
        moves={"alpha": 1.4, "gamma": 1.7, "cutoff": 0.9, "released_first_token": True, "layers": "0-4"},
        edits_scores=("image",),
        formula=_amplified,
        by_hand={
            "pai": {"alpha": 0.6, "gamma": 1},
            "pai-some-layers": {"alpha": 0.6, "gamma": 1, "layers": "1-3"},
            "pai-refined": {"alpha": 0.6, "gamma": 1.3, "released_first_token": True},
            "pai-refined-from-first-token": {"alpha": 0.6, "gamma": 1.3},
        },
        recorded={"alpha": 0.6, "layers": "1-"},
    ),
    "fixattn": MethodCase(
        neutral={"alpha": 0, "beta": 0, "gamma": 1},
        moves={
            "alpha": 1.4, "beta": 1.9, "gamma": 1.7, "cutoff": 0.9, "released_first_token": False, "layers": "0-4",
            "local_ratio": 0.6, "spatial_ratio": 0.3, "spatial": Beside("released", spatial_ratio=0.3),
            "selection": "random", "draw": Beside(7, selection="random"), "head_modulation": "proportional",
            "g_max": Beside(0.6, **PROPORTIONAL), "share": Beside(0.9, **TOP),
        },
        edits_scores=("image",),
        formula=_fixattn,
        by_hand={
            "fixattn": {},
            "fixattn-spatial": {"alpha": 1.5, "beta": 0.9, "spatial_ratio": 0.2, "gamma": 1, "layers": (0, 4)},
            "fixattn-proportional": {"alpha": 1.5, "gamma": 1, **PROPORTIONAL, "g_max": 1.2},
            "fixattn-prompt": {"alpha": 1.5, "beta": 0.9, "gamma": 1, "selection": "prompt"},
            "fixattn-prompt-heads-refined": {"alpha": 1.5, "selection": "prompt", **PROPORTIONAL, "gamma": 1.2},
            "fixattn-top-heads-refined": {"alpha": 1.5, "gamma": 1.2, **TOP, "share": 0.4},
        },
        recorded={"alpha": 1.5, "beta": 0.9, "layers": "1-", **PROPORTIONAL, "spatial_ratio": 0.2},
    ),
    "hgai": MethodCase(
        neutral={"alpha": 0},
        moves={"alpha": 1.4, "layers": "0-4"},
        edits_scores=("image",),
        formula=lambda m, on: naive.hgai(m.alpha, on.layers(m)),
        by_hand={"hgai": {"alpha": 0.9, "layers": "1-4"}},
        recorded={"alpha": 0.9, "layers": "1-3"},
    ),
    "vaf": MethodCase(
        neutral={"enhance": 1, "suppress": 1},
        moves={"enhance": 1.9, "suppress": 0.4, "layers": "0-4"},
        edits_scores=("before", "image"),
        formula=lambda m, on: naive.vaf(m.enhance, m.suppress, on.layers(m)),
        by_hand={"vaf": {"enhance": 1.6, "suppress": 0.7, "layers": "1-4"}},
        recorded={"enhance": 1.6, "suppress": 0.7, "layers": "1-3"},
    ),
    "spin": MethodCase(
        neutral={"factor": 1},
        moves={"kept": 0.5, "factor": 0.7, "layers": "0-4"},
        edits_weights=EVERYWHERE,
        formula=lambda m, on: naive.spin(m.kept, m.factor, on.layers(m)),
        by_hand={"spin": {"kept": 0.6, "factor": 0.2, "layers": "1-"}},
        recorded={"kept": 0.6, "factor": 0.2, "layers": "1-"},
    ),
    "adhh": MethodCase(
        neutral={"threshold": 1.01},
        moves={"heads": "[2:1,3:5]", "threshold": 0.01},
        edits_weights=("after", "generated"),
        formula=lambda m, on: naive.adhh(set(m.heads), m.threshold, on.depth),
        by_hand={"adhh": {"heads": [(1, 4), (1, 2), (3, 0), (4, 5)], "threshold": 0.15}},
        recorded={"heads": "[2:0,3:1,3:2]", "threshold": 0.1},
    ),
    "var": MethodCase(
        neutral={"p": 1},
        moves={"sink_dims": "[5]", "tau": 2.1, "rho": 0.1, "image_mass": 0.8, "p": 0.1, "layers": "0-4"},
        edits_weights=PROMPT,
        formula=lambda m, on: naive.var(list(m.sink_dims), m.tau, m.rho, m.image_mass, m.p, on.layers(m)),
        by_hand={"var": {"sink_dims": [3, 11], "tau": 1.5, "rho": 0.6, "image_mass": 0.3, "p": 0.2, "layers": "1-"}},
        recorded={"sink_dims": "[6,67]", "tau": 1.8, "rho": 0.6, "image_mass": 0.1, "p": 0.0, "layers": "0-"},
    ),
    "iat": MethodCase(
        neutral={"alpha": 0},
        moves={"alpha": 1.4, "layers": "0-4"},
        edits_scores=("generated",),
        formula=lambda m, on: naive.iat(m.alpha, on.layers(m)),
        by_hand={"iat": {"alpha": 1.1, "layers": "1-4"}},
        recorded={"alpha": 3.0, "layers": "1-3"},
    ),
    "adaiat": MethodCase(
        neutral={"alpha": 0},
        moves={
            "alpha": 1.4, "beta": 1.9, "layers": "0-4", "clamp": False,
            "statistics": statistics_file(text_model(key_heads=3), seed=1),
        },
        unmoving=frozenset({"digest"}),  # holds what a run was made with
        edits_weights=EVERYWHERE,
        formula=_adaiat,
        by_hand={"adaiat": {"alpha": 3, "beta": 0.4, "layers": "1-", "statistics": statistics_file(text_model())}},
        recorded={"alpha": 12.0, "beta": 0.4, "layers": "1-3", "statistics": STATISTICS},
    ),
    "vcd": MethodCase(
        neutral={"alpha": 0},
        moves={"alpha": 1.4, "cutoff": 0.9, "noise_step": 900, "seed": 7},
        formula=lambda m, on: naive.vcd(m.alpha, m.cutoff, m.noise_step, m.seed),
        by_hand={"vcd": {"alpha": 1.3, "noise_step": 700, "seed": 5}},
        recorded={"alpha": 1.3, "noise_step": 700, "seed": 5},
    ),
    "icd": MethodCase(
        neutral={"alpha": 0},
        moves={"alpha": 1.4, "cutoff": 0.9},
        formula=lambda m, on: naive.icd(m.alpha, m.cutoff, on.words),
        by_hand={"icd": {"cutoff": 0.05}},
        recorded={"cutoff": 0.05},
    ),
    "m3id": MethodCase(
        neutral={"rate": 0},
        moves={"rate": 0.3, "cutoff": 0.9},
        formula=lambda m, on: naive.m3id(m.rate, m.cutoff),
        by_hand={"m3id": {"rate": 0.4}},
        recorded={"rate": 0.4},
    ),
    "dola": MethodCase(
        neutral={"alpha": 0},
        moves={"alpha": 1.4, "cutoff": 0.9, "layers": "0-4"},
        formula=lambda m, on: naive.dola(m.alpha, m.cutoff, on.listed(m)[::2]),
        by_hand={"dola": {"cutoff": 0.05}, "dola-some-layers": {"layers": "1-4", "alpha": 0.7}},
        recorded={"cutoff": 0.05},
    ),
    "deco": MethodCase(
        neutral={"alpha": 0},
        moves={"alpha": 1.4, "top_p": 0.3, "top_k": 2, "layers": "0-4"},
        formula=lambda m, on: naive.deco(m.alpha, m.top_p, m.top_k, on.listed(m)),
        by_hand={"deco": {"top_k": 5, "layers": "1-4"}},
        recorded={"layers": "2-4", "top_k": 5},
    ),
    "truncate": MethodCase(neutral={"words": 1000}, moves={"words": 1}, short={"words": 2}),
    "brief": MethodCase(neutral={"sentences": 0}, moves={"sentences": 1}),
    "beam": MethodCase(neutral={"beams": 1}, moves={"beams": 3}),
    "nucleus": MethodCase(neutral={"temperature": 0}, moves={"top_p": 0.3, "temperature": 0.4}),
    "repetition_penalty": MethodCase(neutral={"penalty": 1}, moves={"penalty": 1.9}),
    "no_repeat_ngram": MethodCase(neutral={"size": 0}, moves={"size": 2}, short={"size": 1}),
}  # fmt: skip
"""By name, in the order of the registry."""

if lacking := [name for name in METHODS if name not in METHOD_CASES]:
    raise LookupError(f"{', '.join(lacking)}: expected a line for every method in METHOD_CASES of {__file__}")


def formula(method: Method, reader: Reader) -> Fix:
    """Return a method in plain loops, with its settings."""
    made = METHOD_CASES[method.name].formula
    assert made is not None, f"{method.name} has no formula in {__file__}"
    return made(method, reader)
