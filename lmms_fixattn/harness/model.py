"""The lmms-eval model `llava_fixattn`: a vision-language model with one of the methods, in batches."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, cached_property, partial
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from loguru import logger
from tqdm import tqdm

from lmms_fixattn.engine.compiled_decode import CompiledSteps, drawing_apart
from lmms_fixattn.engine.generation import Answer, Settings
from lmms_fixattn.engine.intervention import intervene
from lmms_fixattn.engine.memory import MemoryBudget, estimate, prefix_cache_budget
from lmms_fixattn.engine.prefix_cache import PrefixCache
from lmms_fixattn.engine.runner import Runner
from lmms_fixattn.engine.vision_cache import VisionCache
from lmms_fixattn.errors import readable_failures
from lmms_fixattn.harness.hub import ask_without_login
from lmms_fixattn.harness.journal import Journal
from lmms_fixattn.harness.requests import Dialogue, DocumentError, Request, as_chat, document_errors, stopping
from lmms_fixattn.harness.results import record_runs
from lmms_fixattn.harness.schedule import RequestShape, pictures_of, plan, prefetch, with_encoded_images
from lmms_fixattn.methods import PROVIDERS, Method
from lmms_fixattn.models import DEFAULT_CHECKPOINT, arguments
from lmms_fixattn.models.checkpoint import Checkpoint
from lmms_fixattn.models.encoding import Encoded, PromptEncoder, whole_pictures
from lmms_fixattn.models.prompts import rewrite_question
from lmms_fixattn.models.transformers_api import attention_in_use
from lmms_fixattn.versions import check_versions, installed

__all__ = ["DocumentError", "FixattnModel", "FixattnModelSimple"]

DEFAULT_METHOD = "fixattn"

record_runs()
ask_without_login()


class FixattnModel(lmms):  # type: ignore[misc]
    """A vision-language model under lmms-eval, with one of this package's methods.

    Args:
        pretrained: a hub id, a local directory, or ``demo`` (a tiny model in the package).
        revision: branch, tag or commit on the hub.
        method: a name of :data:`lmms_fixattn.METHODS`, by default fixattn (the unmodified model is vanilla); its
            hyper-parameters are further arguments, by name, typed or as strings.
        conversation: the prompt's form, see :mod:`lmms_fixattn.models.prompts`.
        dtype: ``auto`` (the checkpoint's on an accelerator, float32 on a CPU) or a name such as float16.
        device: by default a CUDA GPU where there is one. With several processes each takes its own.
        device_map: transformers' device_map, such as ``auto`` to spread one model over several GPUs.
        batch_size: documents answered at once, or ``auto`` for what an estimate of the free memory allows. Where memory
            runs out, a batch is split in two and retried.
        max_batch_size: for ``auto``, the most documents at once.
        load_in_4bit, load_in_8bit: quantise the weights while loading, by transformers and bitsandbytes.
        attn_implementation: transformers' attention backend of everything that the method does not edit.
        compile: whether decoding runs on a static cache with compiled steps. Where that fails, or differs from plain
            steps by more than rounding, it ends with a warning.

    Raises:
        ValueError: an unknown name or value, with the allowed ones; no checkpoint there, or of no family that is known;
            a method that does not fit the model.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str = DEFAULT_CHECKPOINT,
        revision: str = "main",
        method: str | None = None,
        conversation: str = "default",
        dtype: str | torch.dtype = "auto",
        device: str | torch.device | None = None,
        device_map: str = "",
        batch_size: int | str = 1,
        attn_implementation: str | None = None,
        load_in_4bit: bool | str = False,
        load_in_8bit: bool | str = False,
        compile: bool | str = False,
        max_batch_size: int | None = None,
        **hyper_parameters: Any,
    ) -> None:
        super().__init__()
        remarks = check_versions()
        self.method_is_default = method is None
        self.method = arguments.resolve_method(
            method or DEFAULT_METHOD, hyper_parameters, arguments.own_names(FixattnModel)
        )
        self._changed = self.method.changed()
        logger.info(f"llava_fixattn: method={self.written_method()}")
        for remark in remarks:
            logger.warning(f"llava_fixattn: {remark}")
        self._journal: Journal | None = None
        self._bar: Any = None
        self.batch_size, self._most = arguments.batch_size(batch_size, max_batch_size)
        self._bits = arguments.bits(load_in_4bit, load_in_8bit)
        self._largest = 0
        self.counts: dict[str, int] = {}
        """What the latest run was spared: pictures asked about and encoded, prompts with an image and how many
        prefixes up to its end were computed."""
        self._attention = arguments.attention(attn_implementation)
        self._device_map = device_map

        self.accelerator = Accelerator()
        if self.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
            raise ValueError(
                f"llava_fixattn runs one whole model in each process, not {self.accelerator.distributed_type.value}; "
                "launch with plain data parallelism, or spread one model with device_map=auto"
            )
        self._rank = self.accelerator.process_index
        self._world_size = self.accelerator.num_processes
        several = self._world_size > 1 and not device_map
        self.device = self.accelerator.device if several else arguments.device(device)

        self._compiles = arguments.flag("compile", compile)
        self._compiled = CompiledSteps(self._compiles)

        self._checkpoint = Checkpoint.find(pretrained, str(revision))
        self._checkpoint.check_disk_space()
        self._dtype = arguments.dtype(dtype, self.device, self._checkpoint.config.dtype)
        self.encoder = PromptEncoder(self._checkpoint.load_processor(), self._checkpoint.config, conversation)
        self._model: Any = None
        self._fit(self.method)
        self._record = self._describe(pretrained)
        self._warned: set[str] = set()
        logger.info(f"llava_fixattn: {self.record()}")
        anew = {"pictures": "encodes its picture", "prefixes": "computes its prompt's prefix"}
        if missing := [words for part, words in anew.items() if not self._record["reuse"][part]]:
            name = self._checkpoint.family.name
            logger.info(
                f"llava_fixattn: with {name} each question {' and '.join(missing)} anew; none is kept for the next"
            )

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str | Mapping[str, Any], additional_config: Mapping[str, Any] | None = None
    ) -> FixattnModel:
        """Make the model of a --model_args string; what it says wins over lmms-eval's own --batch_size and --device."""
        others = {name: value for name, value in (additional_config or {}).items() if value is not None}
        with readable_failures():
            return cls(**{**others, **arguments.split_args(arg_string)})

    def use(self, method: Method) -> None:
        """Answer with this method from now on, its per-model constants filled in; record() and identity() follow.

        Raises:
            ValueError: the method does not fit the model; the method before it stays.
        """
        self._fit(method)
        self.method_is_default = False

    def _fit(self, method: Method) -> None:
        with intervene(self._outline, method, self.tokenizer):
            pass  # what does not fit is an error now, not once data and weights are there
        self.method = method.for_model(self._checkpoint.family.text_model)
        self._changed = method.changed()
        self._largest = 0
        self._compiled.restart()

    @contextmanager
    def serving(self, journal: Journal, bar: Any) -> Iterator[None]:
        """Keep the answers of the runs in this block in a journal, batch by batch, and count them on one bar.

        Answers that the journal holds are taken from it. Batches are formed over all requests, those included, so that
        an interrupted run goes on in the same batches. The model stays loaded: clean() does nothing within the block.

        Args:
            bar: a tqdm bar, updated by the requests that are newly answered; None: each run has its own.
        """
        self._journal, self._bar = journal, bar
        try:
            yield
        finally:
            self._journal = self._bar = None

    @property
    def model(self) -> Any:
        """The transformers model, loaded when it is first used: what is wrong with tasks or data shows before that.

        Loaded again where lmms-eval's clean() has freed it after a run.
        """
        if self._model is None:
            self._model = self._checkpoint.load_model(
                self._dtype, self.device, self._device_map, self._attention, self._bits
            )
        return self._model

    @cached_property
    def _outline(self) -> Any:
        """The model without weights; clean() deletes it, and it is made again."""
        return self._checkpoint.outline_model(self._dtype, self._attention)

    @property
    def tokenizer(self) -> Any:
        return self.encoder.tokenizer

    @property
    def config(self) -> Any:
        """The transformers configuration of the checkpoint."""
        return self._checkpoint.config

    @property
    def max_length(self) -> int:
        """The number of positions of the text model."""
        return self._checkpoint.family.positions

    @property
    def chat_template(self) -> Any:
        raise ValueError("llava_fixattn always writes chat prompts, see conversation=; leave out --apply_chat_template")

    def clean(self) -> None:
        """Free the model's memory, as lmms-eval asks after a run; a further run loads it again."""
        if self._journal is not None:
            return
        super().clean()
        self._model = None
        self._compiled.free()

    def record(self) -> dict[str, Any]:
        """Return what a result states of this model: method, settings, prompt form, versions, data type, backend."""
        method = {"name": self.method.name, **self.method.settings()}
        if packages := [PROVIDERS[part.name] for part in self.method.parts if part.name in PROVIDERS]:
            method["package"] = ", ".join(packages)
        return {
            "method": method,
            "method_is_default": self.method_is_default,
            "changed_settings": dict(self._changed),
            **copy.deepcopy(self._record),
            "largest_batch": self._largest,
            "compile": self._compiled.active,
        }

    def identity(self) -> dict[str, Any]:
        """Return what the answers depend on besides the request and, where they are drawn, the seed.

        For the key of --use_cache. Compiling is what was asked for: whether it lasts shows only while answering.
        """
        aside = {
            "method_is_default",
            "changed_settings",
            "batch_size",
            "largest_batch",
            "compile",
            "processes",
            "device",
            "reuse",
        }
        kept = {name: value for name, value in self.record().items() if name not in aside}
        kind = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return {**kept, "device": kind, "compile": self._compiles, "checkpoint": self._checkpoint.fingerprint}

    @property
    def draws(self) -> bool:
        """Whether the method itself samples, whatever a task asks for: its answers depend on the seed and the batch."""
        return bool(self.method.generation.get("do_sample"))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.record()})"

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError(
            "llava_fixattn runs generation tasks only: its methods act on the newest position of a growing answer, so "
            "they give no likelihood of a fixed one; choose tasks of output_type generate_until"
        )

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answer each request, in batches; results come in the order of the requests.

        Prompts are read ahead: while a batch is answered, the documents of the next ones are opened. A picture that
        several requests ask about is encoded once, and what prompts of a batch begin with, its image included, is
        computed once. Requests that sample draw by a seed of their batch's own, made of torch's initial seed and of
        which requests they are, so that a resumed run draws what a whole one does; repeats of a request differ.

        Raises:
            DocumentError: a document could not be read or answered; what was answered before it is in the journal.
        """
        with stopping(self):
            return self._answer_all("generate_until", requests, self._read, self._answer)

    def generate_until_multi_round(self, requests: list[Instance]) -> list[list[str]]:
        """Hold each request's conversation, its answers fed back; return the answers of its rounds.

        The task writes the whole conversation of every round: doc_to_messages(doc) for the first; for later ones
        doc_to_messages(doc, round_idx=, previous_output=, previous_round_info=) -> (messages, ended, outputs, info).
        Each round of a batch's unfinished conversations is one batch. First rounds are read ahead.

        Raises:
            DocumentError: a document could not be read or answered.
        """
        with stopping(self):
            return self._answer_all("generate_until_multi_round", requests, self._open, self._converse)

    def _answer_all(
        self,
        kind: str,
        requests: Sequence[Instance],
        read: Callable[[Sequence[Request]], Any],
        answer: Callable[[Sequence[Request], Any, _Run], list[Any]],
    ) -> list[Any]:
        """Answer all requests, batch by batch, except those whose answers the journal holds.

        Args:
            read: what to do for a batch ahead of its turn, in another thread; ``answer`` is given the result.
        """
        asked = Request.all_of(kind, requests)
        journal = self._journal
        keys = [request.key for request in asked]
        results: dict[int, Any] = {} if journal is None else journal.recall(keys)
        budget = self._budget(None if journal is None else journal.budget)
        batches = [[index for index in batch if index not in results] for batch in plan(self._outlines(asked), budget)]
        groups = [[asked[index] for index in batch] for batch in batches if batch]
        self._largest = max(self._largest, budget.largest)
        spent = (0.0, 0) if journal is None else journal.spent(kind)
        with self._run(len(asked), len(results), budget, *spent) as run:
            for new, group, opened in zip(filter(None, batches), groups, prefetch(read, groups), strict=True):
                before = run.seconds, run.tokens
                answers = answer(group, opened, run)
                if journal is not None:
                    seconds, tokens = run.seconds - before[0], run.tokens - before[1]
                    journal.keep(kind, [keys[index] for index in new], answers, seconds, tokens, budget.state())
                results.update(zip(new, answers, strict=True))
                self._largest = max(self._largest, budget.largest)
                run.done(len(new))
        return [results[index] for index in range(len(asked))]

    def _budget(self, before: Mapping[str, Any] | None) -> MemoryBudget:
        """Return the budget of batches, which is that of the interrupted run that this one goes on with."""
        if isinstance(self.batch_size, int):
            budget = MemoryBudget(self.batch_size)
        elif before is None:
            branches = 1 + any(part.branch is not None for part in self.method.parts)
            budget = estimate(self.model, self._most, branches)
        else:
            budget = MemoryBudget(before["rows"], before["positions"])
        if before is not None:
            budget.fitting = before["fitting"]
            budget.largest = before["largest"]
        return budget

    def _outlines(self, asked: Sequence[Request]) -> list[RequestShape]:
        closed = cache(lambda task, split: with_encoded_images(self.task_dict[task][split]))
        pictures = []
        for request in asked:
            with document_errors(request):
                pictures.append(pictures_of(closed(request.task, request.split)[request.doc_id]))
        tokens = self.encoder.outline([request.context for request in asked], [len(named) for named in pictures])
        return [
            RequestShape(request.settings, request.settings.positions(count), named)
            for request, count, named in zip(asked, tokens, pictures, strict=True)
        ]

    def _read(self, group: Sequence[Request]) -> list[Encoded]:
        """Open the documents of a batch and encode their prompts."""
        encoded = []
        for request in group:
            with document_errors(request):
                encoded.append(self._encode(request, request.doc_to_messages(self._document(request))))
        return encoded

    def _encode(self, request: Request, messages: Any) -> Encoded:
        prompt = self.encoder.encode(rewrite_question(messages, self.method.ask))
        self._check_beams(prompt, self._beams(request.settings))
        return prompt

    def _open(self, group: Sequence[Request]) -> tuple[list[Dialogue], list[tuple[Dialogue, Encoded]]]:
        """Open the documents of a batch of conversations and encode their first rounds."""
        dialogues = []
        for request in group:
            with document_errors(request):
                dialogues.append(Dialogue(request, self._document(request)))
        return dialogues, self._next_round(dialogues)

    def _next_round(self, dialogues: Sequence[Dialogue]) -> list[tuple[Dialogue, Encoded]]:
        """Return the conversations that go on, with the prompts of their next rounds."""
        going_on = []
        for dialogue in dialogues:
            with document_errors(dialogue.request):
                dialogue.open_round()
                if dialogue.messages is not None:
                    going_on.append((dialogue, self._encode(dialogue.request, dialogue.messages)))
        return going_on

    def _converse(
        self,
        group: Sequence[Request],
        opened: tuple[list[Dialogue], list[tuple[Dialogue, Encoded]]],
        run: _Run,
    ) -> list[list[str]]:
        dialogues, live = opened
        while live:
            results = self._answer([dialogue.request for dialogue, _ in live], [prompt for _, prompt in live], run)
            for (dialogue, _), result in zip(live, results, strict=True):
                dialogue.answers.append(result.text)
            live = self._next_round([dialogue for dialogue, _ in live])
        return [dialogue.answers for dialogue in dialogues]

    def _document(self, request: Request) -> Any:
        return self.task_dict[request.task][request.split][request.doc_id]

    def _answer(self, group: Sequence[Request], encoded: Sequence[Encoded], run: _Run) -> list[GenerationResult]:
        """Answer one batch of prompts, whose requests share their settings, at once or as memory allows."""
        for request, prompt in zip(group, encoded, strict=True):
            if prompt.dropped_marks:
                self._warn_once(f"{request.task}: left out literal image marks of the text, which stand for no image")
            if request.ignored:
                self._warn_once(f"{request.task}: generation_kwargs without use here: {', '.join(request.ignored)}")
        longest = group[0].settings.positions(max(len(prompt.ids) for prompt in encoded))
        with run.timed():
            answers = run.budget.answer(
                list(zip(group, encoded, strict=True)), longest, lambda batch: self._answer_at_once(batch, run)
            )
        run.pictures += sum(len(prompt.pictures) for prompt in encoded)
        run.with_image += sum(bool(prompt.pictures) for prompt in encoded)
        run.tokens += sum(answer.tokens for answer in answers)
        return [
            GenerationResult(answer, TokenCounts(input_tokens=len(prompt.ids), output_tokens=answer.tokens))
            for answer, prompt in zip(answers, encoded, strict=True)
        ]

    def _answer_at_once(self, batch: Sequence[tuple[Request, Encoded]], run: _Run) -> list[Answer]:
        requests, encoded = (list(each) for each in zip(*batch, strict=True))
        encoded += [encoded[-1]] * self._missing(requests[0].settings, encoded, run.budget)
        pictures = [picture for prompt in encoded for picture in prompt.pictures]
        with (
            document_errors(*requests),
            run.features.reused(self.model, pictures),
            run.prefixes.shared(self.model, [prompt.prefix for prompt in encoded]),
            self._seeded(requests),
        ):
            return self._generate(self.encoder.batch(encoded), requests[0].settings)[: len(requests)]

    def _missing(self, settings: Settings, encoded: Sequence[Encoded], budget: MemoryBudget) -> int:
        """Return by how many rows to fill a batch up, so that it runs on the graph of the larger ones before it."""
        if not self._compiled.serves(self._beams(settings)) or settings.temperature is not None:
            return 0  # what is drawn depends on the number of rows
        longest = settings.positions(max(len(prompt.ids) for prompt in encoded))
        return max(0, budget.largest - len(encoded)) if budget.largest * longest <= budget.fitting else 0

    def _check_beams(self, prompt: Encoded, beams: int) -> None:
        if len(prompt.images) > 1 and beams > 1 and not self._checkpoint.family.keeps_images_in_order_under_beams():
            raise ValueError(
                "this version of transformers mixes up the images of a prompt under beam search; "
                "install a newer one, or use num_beams=1 where a document has several images"
            )

    def _beams(self, settings: Settings) -> int:
        return int(self.method.generation.get("num_beams", settings.beams))

    def _seeded(self, requests: Sequence[Request]) -> AbstractContextManager[None]:
        """Draw by a seed of these requests' own inside the block; torch's generators go on afterwards as before."""
        which = " ".join([str(torch.initial_seed()), *(request.key for request in requests)])
        seed = int.from_bytes(hashlib.sha256(which.encode()).digest()[:7], "big")
        return drawing_apart(self.model, seed)

    def _generate(self, inputs: dict[str, torch.Tensor], settings: Settings) -> list[Answer]:
        generating = partial(self._compiled.generate, beams=self._beams(settings))
        return Runner(self.model, self.encoder).answer(inputs, settings, generating)

    @contextmanager
    def _run(self, total: int, kept: int, budget: MemoryBudget, seconds: float, tokens: int) -> Iterator[_Run]:
        """Run with the method installed and a progress bar; report the throughput to lmms-eval.

        Args:
            kept: of the total, what is there already.
            seconds, tokens: what an interrupted run of the same requests has spent.
        """
        model = self.model  # loaded before the bar is there
        own_bar = None
        if self._bar is None:
            own_bar = tqdm(total=total, initial=kept, disable=self._rank != 0, desc="llava_fixattn")
        with own_bar or nullcontext(self._bar) as bar:
            run = _Run(bar, budget, PrefixCache(prefix_cache_budget(model)), seconds, tokens)
            with intervene(model, self.method, self.tokenizer), whole_pictures():
                yield run
        self.counts = run.counts()
        if run.seconds:
            log_metrics(run.seconds, run.tokens, run.tokens / run.seconds, {"total_requests": total, **self.counts})

    def _warn_once(self, warning: str) -> None:
        if warning not in self._warned:
            self._warned.add(warning)
            logger.warning(f"llava_fixattn: {warning}")

    def written_method(self) -> str:
        """Return the method and the settings that are not its defaults, as --model_args would say them."""
        name = self.method.name
        if self.method_is_default:
            name += " (default; the unmodified model is method=vanilla)"
        return ",".join([name, *(f"{key}={value}" for key, value in self._changed.items())])

    def _describe(self, pretrained: str) -> dict[str, Any]:
        family = self._checkpoint.family
        return {
            "pretrained": pretrained,
            "revision": self._checkpoint.revision,
            "commit": self._checkpoint.commit,
            "text_layers": family.text_config.num_hidden_layers,
            "conversation": self.encoder.form,
            "dtype": str(self._dtype).removeprefix("torch."),
            "device": str(self.device),
            "device_map": self._device_map,
            "attention": {
                "text": attention_in_use(family.text(self._outline)),
                "vision": attention_in_use(family.tower(self._outline)),
            },
            "reuse": {"pictures": family.keeps_pictures, "prefixes": family.shares_prefixes},
            "image_processor": type(self.encoder.processor.image_processor).__name__,
            "quantization": f"{self._bits} bits" if self._bits else None,
            "batch_size": self.batch_size,
            "processes": self._world_size,
            "versions": installed(),
        }


class FixattnModelSimple(FixattnModel):
    """The same model for --force_simple, where tasks hand over a text and their pictures instead of messages."""

    is_simple = True

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        return super().generate_until([as_chat(instance) for instance in requests])

    def generate_until_multi_round(self, requests: list[Instance]) -> list[list[str]]:
        return super().generate_until_multi_round([as_chat(instance) for instance in requests])


class _Run:
    """Progress, seconds and tokens of one call, and what is kept for as long as it lasts."""

    def __init__(self, bar: Any, budget: MemoryBudget, prefixes: PrefixCache, seconds: float, tokens: int) -> None:
        self._bar = bar
        self.budget = budget
        self.features = VisionCache()
        self.prefixes = prefixes
        self.seconds = seconds
        self.tokens = tokens
        self.pictures = self.with_image = 0  # pictures in prompts, and prompts with any

    def done(self, documents: int) -> None:
        self._bar.update(documents)

    @contextmanager
    def timed(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start

    def counts(self) -> dict[str, int]:
        return {
            "images_asked": self.pictures,
            "images_encoded": self.features.encoded,
            "image_prompts_asked": self.with_image,
            "image_prompts_computed": self.prefixes.computed,
        }
