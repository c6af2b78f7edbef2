"""Decode on a cache of fixed length with compiled steps: on a GPU one CUDA graph in place of a thousand launches."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from loguru import logger
from torch._dynamo import config as dynamo
from torch._dynamo.exc import TorchDynamoException
from transformers import GenerationConfig, StoppingCriteria

from lmms_fixattn.engine.finite import NotFiniteError
from lmms_fixattn.engine.kv_cache import FixedCache, fixed_cache, reserved_cache
from lmms_fixattn.engine.memory import accelerators, ran_out_of_memory
from lmms_fixattn.models.transformers_api import EngineError, compiling_everywhere, with_cache

_TRIED = 8
"""Tokens of the first answers for which compiled and plain logits are compared."""
_BOUND = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""How far compiled logits may lie from plain ones, as a share of the largest one."""


def generate_growing(model: Any, inputs: Mapping[str, Any], config: GenerationConfig, **others: Any) -> Any:
    """Return what ``model.generate`` does, on a growing cache."""
    past = reserved_cache(model.config.get_text_config())
    return model.generate(**inputs, generation_config=config, **with_cache(model, past), **others)


class FixedSteps:
    """Generate on a cache of fixed length, which is kept for the next call.

    Args:
        compiled: whether steps are compiled as well.
    """

    def __init__(self, compiled: bool) -> None:
        self.compiled = compiled
        self.cache: FixedCache | None = None

    def generate(self, model: Any, inputs: Mapping[str, Any], config: GenerationConfig, **others: Any) -> Any:
        """Return what ``model.generate`` does; the settings must say ``max_new_tokens``."""
        config = copy.deepcopy(config)
        config.disable_compile = not self.compiled
        if self.compiled:
            config.compile_config = compiling_everywhere()
        rows, prompt = inputs["input_ids"].shape
        earlier, self.cache = self.cache, None
        past = fixed_cache(model.config.get_text_config(), rows, prompt + config.max_new_tokens, earlier)
        del earlier  # whose memory the new one may need
        # Methods in turns are as many graphs of one function. torch's limit for one function is there to find what
        # compiles without end, and would end these at the ninth graph; its limit for all together stays.
        with dynamo.patch(recompile_limit=dynamo.accumulated_recompile_limit):
            found = model.generate(**inputs, generation_config=config, **with_cache(model, past), **others)
        self.cache = past
        return found


class CompiledSteps:
    """Generate with compiled steps for as long as that works, else with the model's plain ones.

    The first batch is checked: a few of its tokens are generated both ways, and logits that differ by more than the
    data type's rounding, like an error of the compiler, end compiling for good, which is said once. Every number of
    rows is a graph of its own, so the caller does well to fill batches up, and to begin with the longest: its cache
    then serves all others, for which nothing is compiled or recorded anew.

    Args:
        wanted: whether to compile at all.
    """

    def __init__(self, wanted: bool) -> None:
        self.active = wanted
        self._checked = False
        self._fixed = FixedSteps(compiled=True)

    def free(self) -> None:
        """Let go of the cache."""
        self._fixed.cache = None

    def restart(self) -> None:
        """Forget what was compiled: another method is installed, whose hooks a graph would not know of."""
        self._checked = False
        self.free()
        if self.active:
            torch.compiler.reset()

    def serves(self, beams: int) -> bool:
        """Say whether a batch with so many beams is compiled: beams move the cache between steps."""
        return self.active and beams == 1

    def generate(
        self, model: Any, inputs: dict[str, Any], config: GenerationConfig, beams: int, **others: Any
    ) -> torch.Tensor:
        """Return what ``model.generate`` does with these arguments: tokens [rows, prompt and answer].

        Args:
            beams: the number of beams of the settings, or of the method.

        Raises:
            Exception: whatever ``model.generate`` raises without compiling.
        """
        if self.serves(beams):
            try:
                if self._checked or self._check(model, inputs, config):
                    with drawing_apart(model):
                        return self._fixed.generate(model, inputs, config, **others)  # type: ignore[no-any-return]
            except NotFiniteError:
                plain = generate_growing(model, inputs, config, **others)  # or the same error
                self._give_up("they gave logits that are no numbers, plain steps did not")
                return plain  # type: ignore[no-any-return]
            except (TorchDynamoException, RuntimeError) as error:  # of CUDA graphs it is the latter
                if ran_out_of_memory(error) or isinstance(error, EngineError):
                    raise
                self._give_up(f"{type(error).__name__}: {' '.join(str(error).strip().splitlines()[:2])}")
        return generate_growing(model, inputs, config, **others)  # type: ignore[no-any-return]

    def _check(self, model: Any, inputs: dict[str, Any], config: GenerationConfig) -> bool:
        """Answer a few tokens both ways; say whether they are equal, and give up if not."""
        start = inputs["input_ids"].shape[1]
        config = copy.deepcopy(config)
        config.output_logits = config.return_dict_in_generate = True
        runs = []
        for generate in (generate_growing, self._fixed.generate):
            with drawing_apart(model):
                runs.append(generate(model, inputs, config, stopping_criteria=[_AfterAFew(start)]))
        off = distance(runs[0], runs[1], start)
        self._checked = off <= _BOUND.get(model.dtype, 1e-1)
        if not self._checked:
            self._give_up(f"compiled logits lie {off:.2g} of the largest one away from the plain ones")
        return self._checked

    def _give_up(self, why: str) -> None:
        self.active = False
        self.free()
        torch.compiler.reset()
        logger.warning(f"llava_fixattn: steps are not compiled from here on: {why}")


@contextmanager
def drawing_apart(model: Any, seed: int | None = None) -> Iterator[None]:
    """Let torch's generators go on after the block as if nothing had been drawn in it; inside, by a seed if given."""
    devices = sorted(device.index for device in accelerators(model))
    with torch.random.fork_rng(devices=devices):
        if seed is not None:
            # Not torch.manual_seed, which takes as long as a step of a small model.
            for generator in (torch.default_generator, *(torch.cuda.default_generators[index] for index in devices)):
                generator.manual_seed(seed)
        yield


class _AfterAFew(StoppingCriteria):  # type: ignore[misc]
    """Stop after a few tokens, on a cache as long as for all of them."""

    def __init__(self, start: int) -> None:
        self._stop = start + _TRIED

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), input_ids.shape[1] >= self._stop, device=input_ids.device)


def distance(plain: Any, fixed: Any, start: int) -> float:
    """Return how far the logits of two runs lie apart where they follow equal text, as a share of the largest."""
    texts = [run.sequences[:, start:] for run in (plain, fixed)]
    logits = [torch.stack(run.logits, dim=1).float() for run in (plain, fixed)]  # [rows, steps, vocabulary]
    steps = min(one.shape[1] for one in logits)
    equal = texts[0][:, : steps - 1] == texts[1][:, : steps - 1]
    follows = torch.nn.functional.pad(equal.long().cumprod(dim=1), (1, 0), value=1)[:, :, None]
    away = (logits[0][:, :steps] - logits[1][:, :steps]) * follows
    return float(away.abs().max() / logits[0].abs().max())
