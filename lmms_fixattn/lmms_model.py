"""The lmms-eval model `llava_fixattn`: LLaVA-1.5 with one of the methods, in batches, without swallowed errors."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from loguru import logger
from tqdm import tqdm

from lmms_fixattn import model_args
from lmms_fixattn.checkpoint import Checkpoint
from lmms_fixattn.conversation import asking, check_form
from lmms_fixattn.generation import Answer, Settings, StopAtStrings, end_tokens, finish
from lmms_fixattn.intervention import intervene
from lmms_fixattn.lmms_journal import Journal, keys_of
from lmms_fixattn.lmms_run import record_runs
from lmms_fixattn.methods import Method
from lmms_fixattn.prompt_encoding import Encoded, PromptEncoder, whole_pictures
from lmms_fixattn.text_model import TextModel
from lmms_fixattn.versions import check_versions, installed, keeps_images_in_order_under_beams

record_runs()


class DocumentError(RuntimeError):
    """A document could not be answered. The message names it and the cause; the run ends."""


class LlavaFixattn(lmms):  # type: ignore[misc]
    """LLaVA-1.5 under lmms-eval, with one of this package's methods.

    Args:
        pretrained: a hub id, a local directory, or ``demo`` (a tiny model in the package).
        revision: branch, tag or commit on the hub.
        method: a name of :data:`lmms_fixattn.METHODS`; its hyper-parameters are further arguments, by name, typed or as
            strings.
        conversation: the prompt's form, see :mod:`lmms_fixattn.conversation`.
        dtype: ``auto`` (the checkpoint's on an accelerator, float32 on a CPU) or a name such as float16.
        device: by default a CUDA GPU where there is one. With several processes each takes its own.
        device_map: transformers' device_map, such as ``auto`` to spread one model over several GPUs.
        batch_size: documents answered at once.
        attn_implementation: transformers' attention backend of everything that the method does not edit.

    Raises:
        ValueError: an unknown name or value, with the allowed ones; no checkpoint there, or no LLaVA; a method that
            does not fit the model.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str = "llava-hf/llava-1.5-7b-hf",
        revision: str = "main",
        method: str = "fixattn",
        conversation: str = "default",
        dtype: str | torch.dtype = "auto",
        device: str | torch.device | None = None,
        device_map: str = "",
        batch_size: int | str = 1,
        attn_implementation: str | None = None,
        max_batch_size: int | None = None,
        **hyper_parameters: Any,
    ) -> None:
        super().__init__()
        check_versions()
        self.method = model_args.resolve_method(method, hyper_parameters, model_args.own_names(LlavaFixattn))
        self._journal: Journal | None = None
        self._bar: Any = None
        self.batch_size = model_args.batch_size(batch_size, max_batch_size)
        check_form(conversation)
        self._attention = model_args.attention(attn_implementation)
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
        self.device = self.accelerator.device if several else model_args.device(device)

        self._checkpoint = Checkpoint.find(pretrained, str(revision))
        self._dtype = model_args.dtype(dtype, self.device, self._checkpoint.config.dtype)
        self.encoder = PromptEncoder(self._checkpoint.load_processor(), self._checkpoint.config, conversation)
        self._model: Any = None
        self.use(self.method)
        self._record = self._describe(pretrained)
        self._warned: set[str] = set()
        logger.info(f"llava_fixattn: {self.record()}")

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str | Mapping[str, Any], additional_config: Mapping[str, Any] | None = None
    ) -> LlavaFixattn:
        """Make the model of a --model_args string; what it says wins over lmms-eval's own --batch_size and --device."""
        others = {name: value for name, value in (additional_config or {}).items() if value is not None}
        return cls(**{**others, **model_args.split_args(arg_string)})

    def use(self, method: Method) -> None:
        """Answer with this method from now on, its per-model constants filled in; record() and identity() follow.

        Raises:
            ValueError: the method does not fit the model; the method before it stays.
        """
        with intervene(self.model, method, self.tokenizer):
            pass  # what does not fit is an error now, not once the data is loaded
        self.method = method.for_model(TextModel.of(self.model.config.text_config))

    @contextmanager
    def serving(self, journal: Journal, bar: Any) -> Iterator[None]:
        """Keep the answers of the runs in this block in a journal, batch by batch, and count them on one bar.

        Answers that the journal holds are taken from it. Batches are formed over all requests, those included, so that
        an interrupted run goes on in the same batches. The model stays loaded: clean() does nothing within the block.

        Args:
            bar: a tqdm bar, updated by the requests that are newly answered.
        """
        self._journal, self._bar = journal, bar
        try:
            yield
        finally:
            self._journal = self._bar = None

    @property
    def model(self) -> Any:
        """The transformers model; loaded again where lmms-eval's clean() has freed it after a run."""
        if self._model is None:
            self._model = self._checkpoint.load_model(self._dtype, self.device, self._device_map, self._attention)
        return self._model

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
        return int(self.config.text_config.max_position_embeddings)

    @property
    def chat_template(self) -> Any:
        raise ValueError("llava_fixattn always writes chat prompts, see conversation=; leave out --apply_chat_template")

    def clean(self) -> None:
        """Free the model's memory, as lmms-eval asks after a run; a further run loads it again."""
        if self._journal is not None:
            return
        super().clean()
        self._model = None

    def record(self) -> dict[str, Any]:
        """Return what a result states of this model: method, settings, prompt form, versions, data type, backend."""
        method = {"name": self.method.name, **self.method.settings()}
        return {"method": method, **copy.deepcopy(self._record)}

    def identity(self) -> dict[str, Any]:
        """Return what the answers depend on besides the request, for the key of --use_cache."""
        aside = {"batch_size", "processes", "device"}
        kept = {name: value for name, value in self.record().items() if name not in aside}
        return {**kept, "device": self.device.type, "checkpoint": self._checkpoint.fingerprint}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.record()})"

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError(
            "llava_fixattn runs generation tasks only: its methods act on the newest position of a growing answer, so "
            "they give no likelihood of a fixed one; choose tasks of output_type generate_until"
        )

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answer each request, in batches; results come in the order of the requests.

        Raises:
            DocumentError: a document could not be read or answered.
        """
        return self._answer_all("generate_until", requests, self._answer_once)

    def generate_until_multi_round(self, requests: list[Instance]) -> list[list[str]]:
        """Hold each request's conversation, its answers fed back; return the answers of its rounds.

        The task writes the whole conversation of every round: doc_to_messages(doc) for the first; for later ones
        doc_to_messages(doc, round_idx=, previous_output=, previous_round_info=) -> (messages, ended, outputs, info).
        Each round of a batch's unfinished conversations is one batch.

        Raises:
            DocumentError: a document could not be read or answered.
        """
        return self._answer_all("generate_until_multi_round", requests, self._converse)

    def _answer_all(
        self, kind: str, requests: Sequence[Instance], answer: Callable[[Sequence[_Request], _Tally], list[Any]]
    ) -> list[Any]:
        """Answer all requests, batch by batch, except those whose answers the journal holds."""
        asked = [_Request.of(instance) for instance in requests]
        journal = self._journal
        keys = [] if journal is None else keys_of(kind, (request.identity for request in asked))
        results: dict[int, Any] = {} if journal is None else journal.recall(keys)
        with self._run(len(asked), *(() if journal is None else journal.spent(kind))) as tally:
            for batch in self._batches(asked):
                new = [index for index in batch if index not in results]
                if not new:
                    continue
                before = tally.seconds, tally.tokens
                answers = answer([asked[index] for index in new], tally)
                if journal is not None:
                    seconds, tokens = tally.seconds - before[0], tally.tokens - before[1]
                    journal.keep(kind, [keys[index] for index in new], answers, seconds, tokens)
                results.update(zip(new, answers, strict=True))
                tally.done(len(new))
        return [results[index] for index in range(len(asked))]

    def _answer_once(self, group: Sequence[_Request], tally: _Tally) -> list[GenerationResult]:
        conversations = []
        for request in group:
            with _naming(request):
                conversations.append(request.doc_to_messages(self._document(request)))
        return self._answer(group, conversations, tally)

    def _converse(self, group: Sequence[_Request], tally: _Tally) -> list[list[str]]:
        dialogues = live = [_Dialogue(request) for request in group]
        while live:
            for dialogue in live:
                with _naming(dialogue.request):
                    dialogue.open_round(self._document(dialogue.request))
            live = [dialogue for dialogue in live if dialogue.messages is not None]
            asking, conversations = [d.request for d in live], [d.messages for d in live]
            for dialogue, result in zip(live, self._answer(asking, conversations, tally), strict=True):
                dialogue.answers.append(result.text)
        return [dialogue.answers for dialogue in dialogues]

    def _document(self, request: _Request) -> Any:
        return self.task_dict[request.task][request.split][request.doc_id]

    def _batches(self, asked: Sequence[_Request]) -> Iterator[list[int]]:
        """Yield indices of requests that share their settings, longest text first, so that memory runs out early."""
        groups: dict[Settings, list[int]] = {}
        for index, request in enumerate(asked):
            groups.setdefault(request.settings, []).append(index)
        for group in groups.values():
            group.sort(key=lambda index: (-len(asked[index].context), index))
            for start in range(0, len(group), self.batch_size):
                yield group[start : start + self.batch_size]

    def _answer(self, group: Sequence[_Request], conversations: Sequence[Any], tally: _Tally) -> list[GenerationResult]:
        """Answer one batch of conversations, whose requests share their settings."""
        if not group:
            return []
        encoded: list[Encoded] = []
        for request, messages in zip(group, conversations, strict=True):
            with _naming(request):
                encoded.append(self.encoder.encode(asking(messages, self.method.ask)))
                _check_beams(encoded[-1], request.settings)
            if encoded[-1].dropped_marks:
                self._warn_once(f"{request.task}: left out literal <image> marks of the text that stand for no image")
            if request.ignored:
                self._warn_once(f"{request.task}: generation_kwargs without use here: {', '.join(request.ignored)}")
        with _naming(*group), tally.timed():
            answers = self._generate(self.encoder.batch(encoded), group[0].settings)
        tally.tokens += sum(answer.tokens for answer in answers)
        return [
            GenerationResult(answer, TokenCounts(input_tokens=len(prompt.ids), output_tokens=answer.tokens))
            for answer, prompt in zip(answers, encoded, strict=True)
        ]

    def _generate(self, inputs: dict[str, torch.Tensor], settings: Settings) -> list[Answer]:
        model, decode = self.model, self.encoder.decode
        inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self._dtype)
        start = inputs["input_ids"].shape[1]
        eos = end_tokens(self.model, self.tokenizer)
        special = {"eos_token_id": eos, "pad_token_id": self.tokenizer.pad_token_id}
        stopping = [StopAtStrings(settings.stops, start, decode)] if settings.stops else []
        with torch.inference_mode():
            rows = model.generate(**inputs, generation_config=settings.config(special), stopping_criteria=stopping)
        return [finish(row, eos, settings.stops, decode) for row in rows[:, start:].tolist()]

    @contextmanager
    def _run(self, total: int, seconds: float = 0.0, tokens: int = 0) -> Iterator[_Tally]:
        """Run with the method installed and a progress bar; report the throughput to lmms-eval.

        Args:
            seconds, tokens: what an interrupted run of the same requests has spent.
        """
        own_bar = tqdm(total=total, disable=self._rank != 0, desc="llava_fixattn") if self._bar is None else None
        with own_bar or nullcontext(self._bar) as bar:
            tally = _Tally(bar, seconds, tokens)
            with intervene(self.model, self.method, self.tokenizer), whole_pictures():
                yield tally
        if tally.seconds:
            log_metrics(tally.seconds, tally.tokens, tally.tokens / tally.seconds, {"total_requests": total})

    def _warn_once(self, warning: str) -> None:
        if warning not in self._warned:
            self._warned.add(warning)
            logger.warning(f"llava_fixattn: {warning}")

    def _describe(self, pretrained: str) -> dict[str, Any]:
        config = self.model.config
        return {
            "pretrained": pretrained,
            "revision": self._checkpoint.revision,
            "commit": getattr(config, "_commit_hash", None),
            "text_layers": config.text_config.num_hidden_layers,
            "conversation": self.encoder.form,
            "dtype": str(self._dtype).removeprefix("torch."),
            "device": str(self.device),
            "device_map": self._device_map,
            "attention": {
                "text": config.text_config._attn_implementation,
                "vision": config.vision_config._attn_implementation,
            },
            "image_processor": type(self.encoder.processor.image_processor).__name__,
            "batch_size": self.batch_size,
            "processes": self._world_size,
            "versions": installed(),
        }


class LlavaFixattnSimple(LlavaFixattn):
    """The same model for --force_simple, where tasks hand over a text and their pictures instead of messages."""

    is_simple = True

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        return super().generate_until([_as_chat(instance) for instance in requests])

    def generate_until_multi_round(self, requests: list[Instance]) -> list[list[str]]:
        return super().generate_until_multi_round([_as_chat(instance) for instance in requests])


@dataclass(frozen=True)
class _Request:
    """What lmms-eval asks: an answer to one document of a task."""

    context: str
    doc_to_messages: Callable[..., Any]
    settings: Settings
    ignored: tuple[str, ...]
    doc_id: Any
    task: str
    split: str

    @classmethod
    def of(cls, instance: Instance) -> _Request:
        context, doc_to_messages, kwargs, doc_id, task, split = instance.args
        try:
            settings, ignored = Settings.of(kwargs)
        except ValueError as error:
            raise ValueError(f"task {task}, generation_kwargs: {error}") from error
        return cls(context, doc_to_messages, settings, ignored, doc_id, task, split)

    @property
    def identity(self) -> tuple[Any, ...]:
        """What tells this request from others of its kind; two equal ones ask for the same again."""
        return self.task, self.split, self.doc_id, self.context, self.settings

    def __str__(self) -> str:
        return f"document {self.doc_id} of {self.task} (split {self.split})"


class _Dialogue:
    """A conversation of several rounds, of which the task writes every one."""

    def __init__(self, request: _Request) -> None:
        self.request = request
        self.answers: list[str] = []
        self.messages: Any = None  # of the round to answer; None: it has ended
        self._round = 0
        self._info: Any = None

    def open_round(self, document: Any) -> None:
        """Ask the task for the next round's conversation."""
        write = self.request.doc_to_messages
        if self._round == 0:
            self.messages = write(document)
        else:
            written = write(
                document,
                round_idx=self._round,
                previous_output=list(self.answers),
                previous_round_info=self._info,
            )
            # A task of one round takes no round_idx, and writes its messages again.
            ended = not isinstance(written, tuple)
            if not ended:
                self.messages, ended, answers, self._info = written
                self.answers = self.answers if answers is None else list(answers)
            self.messages = None if ended else self.messages
        self._round += 1


class _Tally:
    """Progress, seconds and tokens of one call."""

    def __init__(self, bar: Any, seconds: float, tokens: int) -> None:
        self._bar = bar
        self.seconds = seconds
        self.tokens = tokens

    def done(self, documents: int) -> None:
        self._bar.update(documents)

    @contextmanager
    def timed(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start


@contextmanager
def _naming(*requests: _Request) -> Iterator[None]:
    """Turn an error inside the block into one that names the documents; an answer is never made up in its place."""
    try:
        yield
    except Exception as error:
        which = ", ".join(map(str, requests))
        cause = str(error).strip() or "no message"
        hint = "; use a smaller --batch_size" if isinstance(error, torch.OutOfMemoryError) else ""
        message = f"llava_fixattn stopped at {which}: {type(error).__name__}: {cause}{hint}"
        logger.critical(message)
        raise DocumentError(message) from error


def _check_beams(prompt: Encoded, settings: Settings) -> None:
    several = prompt.pixels is not None and len(prompt.pixels) > 1
    if several and settings.beams > 1 and not keeps_images_in_order_under_beams():
        raise ValueError(
            "this version of transformers mixes up the images of a prompt under beam search; "
            "install a newer one, or use num_beams=1 where a document has several images"
        )


def _as_chat(instance: Instance) -> Instance:
    """Return a request of a simple task in the shape of a chat task's."""
    context, kwargs, doc_to_visual, *doc_to_text, doc_id, task, split = instance.args

    def doc_to_messages(document: Any, round_idx: int | None = None, **earlier: Any) -> Any:
        if round_idx is None:
            return _user_turn(doc_to_visual(document), context)
        written = doc_to_text[0](document, round_idx=round_idx, **earlier)
        if not isinstance(written, tuple):
            return _user_turn([], written)
        visuals, text, *others = written
        return _user_turn(visuals, text), *others

    chat = copy.copy(instance)
    chat.arguments = (context, doc_to_messages, kwargs, doc_id, task, split)
    return chat


def _user_turn(pictures: Sequence[Any] | None, text: str) -> list[dict[str, Any]]:
    images = [{"type": "image", "url": picture} for picture in pictures or []]
    return [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]
