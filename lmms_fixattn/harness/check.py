"""Does this installation work? Versions, what is registered, what is at hand, and every method against known answers.

Methods that act inside the model are compared with recorded answers: scores that LLaVA written out by hand gave for the
packaged model (tests/support/recorded_answers.py makes the file). The others are compared with what they are made of:
transformers asked directly, or the unmodified model's own answer.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import safe_open

from lmms_fixattn import versions
from lmms_fixattn.data.coco import DEMO_SCENES
from lmms_fixattn.engine.generation import Settings
from lmms_fixattn.engine.intervention import intervene
from lmms_fixattn.engine.runner import Runner
from lmms_fixattn.harness.registered import registered
from lmms_fixattn.methods import METHODS, PROVIDERS, make_method
from lmms_fixattn.methods.base import Method
from lmms_fixattn.methods.statistics import AttentionStatistics
from lmms_fixattn.methods.text_model import TextModel
from lmms_fixattn.models.checkpoint import Checkpoint
from lmms_fixattn.models.encoding import Encoded, PromptEncoder
from lmms_fixattn.models.transformers_api import EngineError

ANSWERS = Path(__file__).parents[1] / "demo" / "answers.safetensors"
"""For each method ``NAME.tokens`` [prompts, STEPS], ``NAME.ids`` and ``NAME.scores`` [prompts, STEPS, KEPT]; AdaIAT's
statistics as ``true`` and ``hallucinated``; the prompts and settings in its metadata."""
STEPS = 8
"""Tokens of an answer."""
KEPT = 8
"""The likeliest tokens of each step, of which scores are recorded."""
STATISTICS = "recorded statistics"
"""Stands in recorded settings for the path of the recorded statistics."""
BOUND = {torch.float32: 1e-4, torch.float16: 1e-2}
"""How far scores may lie from the recorded ones, as a share of the largest."""
_CONTROLS: Mapping[str, Mapping[str, Any]] = {
    "beam": {"beams": 3},
    "nucleus": {"temperature": 1.5},
    "repetition_penalty": {"penalty": 1.5},
    "no_repeat_ngram": {"size": 1},
    "truncate": {"words": 2},
    "brief": {"sentences": 1},
}


_INSTALL = (
    "use nothing that is off; install the package anew with pip, which brings versions that fit, or from a clone with "
    "`pip install -c constraints.txt .`, which brings those that the tests run on; where that does not help, report it "
    "with the lines above"
)


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        what: what was looked at.
        well: whether it is as it must be; None where that is for the user to say.
        found: what was found.
        advice: what to do where it is not.
    """

    what: str
    well: bool | None
    found: str
    advice: str = ""


class Packaged:
    """The packaged demo model on a device, and prompts for it."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        checkpoint = Checkpoint.find("demo", "main")
        self.model = checkpoint.load_model(dtype, device, "", None)
        self.encoder = PromptEncoder(checkpoint.load_processor(), checkpoint.config, "default")

    def prompts(self, asked: Sequence[Sequence[str]]) -> list[Encoded]:
        """Encode prompts that are given as (packaged scene, question)."""
        return [
            self.encoder.encode([{"role": "user", "content": [{"type": "image", "url": str(DEMO_SCENES / scene)},
                                                              {"type": "text", "text": question}]}])
            for scene, question in asked
        ]  # fmt: skip

    def settings(self, given: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """Return recorded settings with AdaIAT's statistics written to a file in ``folder``."""
        if given.get("statistics") != STATISTICS:
            return dict(given)
        with safe_open(ANSWERS, "pt") as answers:
            true, hallucinated = (answers.get_tensor(name) for name in ("true", "hallucinated"))
        path = folder / "statistics.safetensors"
        AttentionStatistics(true, hallucinated, TextModel.of(self.model.config.get_text_config()), {}).save(path)
        return {**given, "statistics": str(path)}

    def generate(
        self,
        prompts: Sequence[Encoded],
        max_new_tokens: int = STEPS,
        generation: Mapping[str, Any] = MappingProxyType({}),
    ) -> Any:
        """Answer a batch of prompts, greedily unless ``generation`` says otherwise; return tokens and scores."""
        inputs = Runner(self.model, self.encoder).inputs(self.encoder.batch(prompts))
        eos, pad = self.model.generation_config.eos_token_id, self.encoder.tokenizer.pad_token_id
        settings, _ = Settings.of({"max_new_tokens": max_new_tokens})
        config = settings.config({"eos_token_id": eos, "pad_token_id": pad})
        config.output_scores = config.return_dict_in_generate = True
        if unknown := config.update(**dict(generation)):
            raise ValueError(f"transformers' GenerationConfig knows no {', '.join(unknown)}")
        torch.manual_seed(0)
        with torch.inference_mode():
            return self.model.generate(**inputs, generation_config=config)


@dataclass(frozen=True)
class Recorded:
    """The recorded answers of one method: tensors as in :data:`ANSWERS`, and its settings."""

    settings: Mapping[str, Any]
    tokens: torch.Tensor
    ids: torch.Tensor
    scores: torch.Tensor

    def distance(self, found: Any, prompts: Sequence[int], start: int, eos: int) -> tuple[float, bool]:
        """Compare what ``generate`` returned for some of the prompts.

        Args:
            found: with sequences [rows, start + tokens] and scores.
            prompts: which of the recorded ones the rows are of.
            eos: the token that ends an answer.

        Returns:
            How far scores lie apart where they follow equal tokens, as a share of the largest recorded one (infinity
            where the likeliest token is excluded), and whether all tokens are equal.
        """
        answers = found.sequences[:, start:].cpu()
        worst, all_equal = 0.0, True
        largest = float(self.scores[self.scores.isfinite()].abs().max())
        for row, prompt in enumerate(prompts):
            for step, token in enumerate(self.tokens[prompt].tolist()):
                scores = found.scores[step][row].float().cpu()[self.ids[prompt, step].long()]
                recorded = self.scores[prompt, step]
                both = scores.isfinite() & recorded.isfinite()
                apart = float((scores - recorded)[both].abs().max()) / largest if bool(both[0]) else float("inf")
                worst = max(worst, apart)
                if answers[row, step] != token:
                    all_equal = False
                    break
                if token == eos:
                    break
        return worst, all_equal


def read_recorded() -> tuple[list[list[str]], dict[str, Recorded]]:
    """Return the recorded prompts, and the answers of each method to them."""
    with safe_open(ANSWERS, "pt") as file:
        about = file.metadata()
        recorded = {
            name: Recorded(given, *(file.get_tensor(f"{name}.{part}") for part in ("tokens", "ids", "scores")))
            for name, given in json.loads(about["settings"]).items()
        }
    return json.loads(about["prompts"]), recorded


def findings() -> Iterator[Finding]:
    """Look at everything, one after the other; nothing is downloaded.

    A version outside the bounds is a finding here and no error, so that the rest is looked at as well.
    """
    os.environ[versions.INSIST] = "1"
    yield _versions()
    yield _tried("lmms-eval", registered)
    yield _device()
    yield from methods()


def methods() -> Iterator[Finding]:
    """Check every method on the machine's own device: single prompts and a batch."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)  # the model is tiny, and waits longer for its threads than they save
    asked, recorded = read_recorded()
    with tempfile.TemporaryDirectory() as folder:
        for dtype in (torch.float32, torch.float16) if device.type == "cuda" else (torch.float32,):
            packaged = Packaged(device, dtype)
            prompts = packaged.prompts(asked)
            for name in METHODS:
                if name in recorded:
                    method = make_method(name, **packaged.settings(recorded[name].settings, Path(folder)))
                    check = partial(_against_recorded, packaged, method, recorded[name], prompts)
                elif name in PROVIDERS:
                    yield Finding(name, True, f"of {PROVIDERS[name]}, which has no answers recorded here: not checked")
                    continue
                else:
                    check = partial(_against_plain, packaged, make_method(name, **_CONTROLS[name]), prompts)
                yield _tried(f"{name}, {str(dtype).removeprefix('torch.')}", check)


class _OffError(Exception):
    """What was found is not what must be."""


def _tried(what: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, check())
    except Exception as error:  # whatever it is, it is what this report is for
        cause = error.what if isinstance(error, EngineError) else str(error)
        own = isinstance(error, _OffError | EngineError)
        return Finding(what, False, " ".join((cause if own else f"{type(error).__name__}: {cause}").split()), _INSTALL)


def _against_recorded(packaged: Packaged, method: Method, recorded: Recorded, prompts: Sequence[Encoded]) -> str:
    dtype, eos = packaged.model.dtype, packaged.encoder.tokenizer.eos_token_id
    every = range(len(prompts))
    worst = {"single": 0.0, "batch": 0.0}
    with intervene(packaged.model, method, packaged.encoder.tokenizer):
        for way, indices in [*(("single", [index]) for index in every), ("batch", [*every])]:
            chosen = [prompts[index] for index in indices]
            start = max(len(prompt.ids) for prompt in chosen)
            apart, equal = recorded.distance(packaged.generate(chosen), indices, start, eos)
            worst[way] = max(worst[way], apart)
            if apart > BOUND[dtype] or (dtype == torch.float32 and not equal):
                tokens = "" if equal else ", with other tokens"
                raise _OffError(
                    f"{way}: scores lie {apart:.1e} of the largest from the recorded ones (at most "
                    f"{BOUND[dtype]:.0e}){tokens}"
                )
    return f"recorded answers, scores within {', '.join(f'{way} {apart:.0e}' for way, apart in worst.items())}"


def _against_plain(packaged: Packaged, method: Method, prompts: Sequence[Encoded]) -> str:
    asked = method.ask("What is this?")
    if asked != "What is this?":
        return f"asks {asked!r}"
    tokens = 4 * STEPS
    with intervene(packaged.model, method, packaged.encoder.tokenizer):
        found = packaged.generate(prompts, max_new_tokens=tokens).sequences
    plain = packaged.generate(prompts, max_new_tokens=tokens, generation=method.generation).sequences
    if method.generation:
        if not torch.equal(found, plain):
            raise _OffError(f"answers differ from those of transformers' own generate({_written(method.generation)})")
        return f"as transformers' own generate({_written(method.generation)}), token by token"
    start = max(len(prompt.ids) for prompt in prompts)
    for mine, whole in zip(found[:, start:].tolist(), plain[:, start:].tolist(), strict=True):
        cut, text = (packaged.encoder.decode(row) for row in (mine, whole))
        if not text.startswith(cut) or (cut != text and not method.ends(cut)):
            raise _OffError(f"expected the unmodified answer cut short, got {cut!r} for {text!r}")
    return "the unmodified answer, cut short"


def _written(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in arguments.items())


def _versions() -> Finding:
    try:
        remarks = [remark for remark in versions.check_versions() if versions.INSIST in remark]
    except Exception as error:
        return Finding("versions", False, str(error), _INSTALL)
    python = f"Python {platform.python_version()}, lmms-fixattn {versions.installed()['lmms-fixattn']}"
    advice = "; ".join(remark.partition(": ")[2].partition(";")[0] for remark in remarks)
    return Finding("versions", not remarks, f"{python}, {versions.described()}", advice)


def _device() -> Finding:
    if not torch.cuda.is_available():
        return Finding("device", None, f"CPU, {torch.get_num_threads()} threads; no CUDA GPU is found by torch")
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return Finding("device", None, ", ".join(f"{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB)" for gpu in gpus))
