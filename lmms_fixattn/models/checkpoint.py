"""Load a checkpoint of a family that is known: which one was meant, is it one, and is it complete."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from transformers import AutoConfig, AutoProcessor, BitsAndBytesConfig, GenerationConfig

from lmms_fixattn.data import hub_files
from lmms_fixattn.models.family import Family, expected, family_of

DEMO = Path(__file__).parents[1] / "demo" / "model"
_OF_FOLDER = {"local_files_only": True, "trust_remote_code": False}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's place, and its configuration.

    Attributes:
        place: a local directory, or a hub id.
        revision: of the hub, as it was asked for; None for a local directory.
        folder: where the files are, of the hub in its cache.
        config: its transformers configuration.
        family: the family that it is of.
    """

    place: str
    revision: str | None
    folder: Path
    config: Any
    family: Family

    @classmethod
    def find(cls, pretrained: str, revision: str) -> Checkpoint:
        """Find the checkpoint and read its configuration.

        Args:
            pretrained: ``demo`` (ships in the package), a local directory, or a hub id. A directory wins over a hub id
                of the same name, and the log says so.
            revision: branch, tag or commit on the hub; a local directory has only ``main``.

        Raises:
            ValueError: nothing there, a model of no family that is known, or a revision of a local directory.
        """
        local = DEMO if pretrained == "demo" else Path(pretrained).expanduser()
        if local.is_dir():
            if revision != "main":
                raise ValueError(f"revision={revision}: the local directory {local} has no revisions; leave it out")
            place, revision_here, folder = str(local.resolve()), None, local.resolve()
            logger.info(f"llava_fixattn: pretrained={pretrained} is the local directory {place}")
        elif pretrained == "demo" or pretrained.startswith(("/", "./", "../", "~")):
            raise ValueError(f"pretrained={pretrained}: there is no directory {local}")
        else:
            place, revision_here = pretrained, revision
            with _reading("configuration", place):
                folder = hub_files.configuration(place, revision)
        with _reading("configuration", place):
            config = AutoConfig.from_pretrained(folder, **_OF_FOLDER)
        try:
            family = family_of(config)
            family.check_config()
        except ValueError as error:
            raise ValueError(f"{place} {error}; {expected()}") from None
        return cls(place, revision_here, folder, config, family)

    @property
    def commit(self) -> str | None:
        """The commit that the revision is; None for a local directory."""
        return None if self.revision is None else self.folder.name

    @property
    def fingerprint(self) -> str:
        """What tells these weights, and all that is read beside them, from others: the hub's commit, or the sizes and
        times of local files, the chat template's among them."""
        if self.commit is not None:
            return f"{self.place}@{self.commit}"
        files = sorted(path for path in self.folder.iterdir() if path.is_file() and not path.name.startswith("."))
        return ";".join(f"{path.name}:{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in files)

    def load_processor(self) -> Any:
        """Load the tokenizer and the image processor, set up for batches that are padded on the left."""
        with _reading("processor", self.place):
            processor = AutoProcessor.from_pretrained(self.folder, **_OF_FOLDER)
        processor.tokenizer.padding_side = "left"
        if processor.tokenizer.pad_token_id is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token
        return processor

    def check_disk_space(self) -> None:
        """See to it that weights which are still to be downloaded have room; raise ValueError if not."""
        if self.commit is not None:
            hub_files.check_disk_space(self.place, self.commit)

    def outline_model(self, dtype: torch.dtype, attention: str | None) -> Any:
        """Return the model without its weights, on the "meta" device, which takes neither memory nor time.

        It tells what a method and an attention backend tell of the model before its weights are there.
        """
        with _reading("model", self.place), torch.device("meta"):
            config = copy.deepcopy(self.config)
            return self.family.model_class._from_config(config, dtype=dtype, attn_implementation=attention)

    def load_model(
        self,
        dtype: torch.dtype,
        device: torch.device,
        device_map: str,
        attention: str | None,
        bits: int | None = None,
    ) -> Any:
        """Load the weights, from safetensors files only, in evaluation mode.

        Args:
            device_map: transformers' device_map; empty puts the whole model on ``device``.
            bits: 4 or 8 to quantise the weights by bitsandbytes; None loads them in ``dtype``.

        Raises:
            ValueError: weights are missing, so that part of the model would be random.
        """
        quantised = {"quantization_config": _quantisation(bits, dtype)} if bits else {}
        with _reading("weights (safetensors)", self.place):
            if self.commit is not None:
                hub_files.download_weights(self.place, self.commit)
            model, info = self.family.model_class.from_pretrained(
                self.folder,
                config=self.config,
                dtype=dtype,
                device_map=device_map or ({"": device} if bits else None),
                attn_implementation=attention,
                use_safetensors=True,
                output_loading_info=True,
                **quantised,
                **_OF_FOLDER,
            )
        missing = sorted(info["missing_keys"])
        if missing:
            raise ValueError(
                f"{self.place} lacks {len(missing)} of the model's weights, such as {missing[0]}; {expected()}"
            )
        # A checkpoint's sampling defaults (Vicuna's temperature 0.9, top_p 0.6) must not leak into a task's settings.
        tokens = ("bos_token_id", "eos_token_id", "pad_token_id")
        model.generation_config = GenerationConfig(**{key: getattr(model.generation_config, key) for key in tokens})
        return (model if device_map or bits else model.to(device)).eval()


def _quantisation(bits: int, dtype: torch.dtype) -> BitsAndBytesConfig:
    if bits == 4:
        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=dtype)
    return BitsAndBytesConfig(load_in_8bit=True)


@contextmanager
def _reading(what: str, place: str) -> Iterator[None]:
    """Turn what transformers says of an unreadable part into one line that says what was expected."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        # The hub's client says in its first line which request failed, and only below what of it.
        cause = " ".join((str(error).strip() or type(error).__name__).split("\n\n")[:2])
        cause = " ".join(cause.split())[:300]
        raise ValueError(
            f"no {what} could be read from {place} ({cause}); {expected()}, a local directory of one, or demo"
        ) from error
