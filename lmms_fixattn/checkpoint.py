"""Load a LLaVA-1.5 checkpoint: which one was meant, is it one, and is it complete."""

from __future__ import annotations

import copy
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_CACHE
from loguru import logger
from tqdm import tqdm
from transformers import AutoConfig, AutoProcessor, BitsAndBytesConfig, GenerationConfig, LlavaForConditionalGeneration

DEMO = Path(__file__).with_name("demo") / "model"
_WANTED = "expected a LLaVA-1.5 checkpoint in the transformers layout, such as llava-hf/llava-1.5-7b-hf"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's place, and its configuration.

    Attributes:
        place: a local directory, or a hub id.
        revision: of the hub, as it was asked for; None for a local directory.
        commit: which that is, so that all files are of one commit; None for a local directory.
    """

    place: str
    revision: str | None
    config: Any
    commit: str | None = None

    @classmethod
    def find(cls, pretrained: str, revision: str) -> Checkpoint:
        """Find the checkpoint and read its configuration.

        Args:
            pretrained: ``demo`` (ships in the package), a local directory, or a hub id. A directory wins over a hub id
                of the same name, and the log says so.
            revision: branch, tag or commit on the hub; a local directory has only ``main``.

        Raises:
            ValueError: nothing there, no LLaVA with a CLIP vision tower, or a revision of a local directory.
        """
        local = DEMO if pretrained == "demo" else Path(pretrained).expanduser()
        if local.is_dir():
            if revision != "main":
                raise ValueError(f"revision={revision}: the local directory {local} has no revisions; leave it out")
            place, revision_here = str(local.resolve()), None
            logger.info(f"llava_fixattn: pretrained={pretrained} is the local directory {place}")
        elif pretrained == "demo" or pretrained.startswith(("/", "./", "../", "~")):
            raise ValueError(f"pretrained={pretrained}: there is no directory {local}")
        else:
            place, revision_here = pretrained, revision
        with _reading("configuration", place):
            config = AutoConfig.from_pretrained(place, **_source(revision_here))
        _check_architecture(place, config)
        commit = None
        if revision_here is not None:
            read = try_to_load_from_cache(place, "config.json", revision=revision_here)
            commit = Path(read).parent.name if isinstance(read, str) else None
        return cls(place, revision_here, config, commit)

    @property
    def fingerprint(self) -> str:
        """What tells these weights from others: the hub's commit, or the sizes and times of local files."""
        if self.revision is not None:
            return f"{self.place}@{self.commit or self.revision}"
        files = sorted(path for path in Path(self.place).iterdir() if path.suffix in (".safetensors", ".json"))
        return ";".join(f"{path.name}:{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in files)

    def load_processor(self) -> Any:
        """Load the tokenizer and the image processor, set up for batches that are padded on the left."""
        with _reading("processor", self.place):
            processor = AutoProcessor.from_pretrained(self.place, **_source(self.commit or self.revision))
        processor.tokenizer.padding_side = "left"
        if processor.tokenizer.pad_token_id is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token
        return processor

    def check_disk_space(self) -> None:
        """See to it that the weights which the hub is to send have room in its cache.

        Where the hub is out of reach nothing is known of their size, and nothing is checked.

        Raises:
            ValueError: they have not, with what is needed and what is there.
        """
        needed = sum(file.file_size or 0 for file in self._to_download())
        folder = next(path for path in (Path(HF_HUB_CACHE), *Path(HF_HUB_CACHE).parents) if path.is_dir())
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise ValueError(
                f"the weights of {self.place} are {needed / 1e9:.2f} GB to download, and {HF_HUB_CACHE} has room for "
                f"{free / 1e9:.2f} GB; make room, or set HF_HOME to a folder on a larger disk"
            )

    def _to_download(self) -> list[Any]:
        """Return what the hub says of the weight files that are not in its cache yet."""
        if self.revision is None:
            return []
        try:
            files = snapshot_download(self.place, dry_run=True, tqdm_class=_NoBar, **self._weights)
        except (OSError, ValueError):  # ValueError: of no form that the hub's ids have
            return []
        return [file for file in files if file.will_download]

    @property
    def _weights(self) -> dict[str, Any]:
        return {"revision": self.commit or self.revision, "allow_patterns": "model*.safetensors"}

    def _download(self) -> None:
        """Have the weights in the hub's cache, and check what came: the hub's client checks sizes only.

        Raises:
            ValueError: a file that is not what the hub says that it is; it is deleted.
        """
        if not (coming := self._to_download()):
            return
        snapshot_download(self.place, **self._weights)
        for file in coming:
            path = Path(file.local_path).resolve()  # in the cache a large file is named by its sha256
            if len(path.name) == 64 and _sha256(path) != path.name:
                path.unlink()
                Path(file.local_path).unlink(missing_ok=True)
                raise ValueError(f"{file.filename} came damaged and was deleted; run again to download it anew")

    def outline_model(self, dtype: torch.dtype, attention: str | None) -> Any:
        """Return the model without its weights, on the "meta" device, which takes neither memory nor time.

        It tells what a method and an attention backend tell of the model before its weights are there.
        """
        with _reading("model", self.place), torch.device("meta"):
            config = copy.deepcopy(self.config)
            return LlavaForConditionalGeneration._from_config(config, dtype=dtype, attn_implementation=attention)

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
            self._download()
            model, info = LlavaForConditionalGeneration.from_pretrained(
                self.place,
                config=self.config,
                dtype=dtype,
                device_map=device_map or ({"": device} if bits else None),
                attn_implementation=attention,
                use_safetensors=True,
                output_loading_info=True,
                **quantised,
                **_source(self.commit or self.revision),
            )
        missing = sorted(info["missing_keys"])
        if missing:
            raise ValueError(
                f"{self.place} lacks {len(missing)} of the model's weights, such as {missing[0]}; {_WANTED}"
            )
        # A checkpoint's sampling defaults (Vicuna's temperature 0.9, top_p 0.6) must not leak into a task's settings.
        tokens = ("bos_token_id", "eos_token_id", "pad_token_id")
        model.generation_config = GenerationConfig(**{key: getattr(model.generation_config, key) for key in tokens})
        return (model if device_map or bits else model.to(device)).eval()


class _NoBar(tqdm):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 24):
            digest.update(piece)
    return digest.hexdigest()


def _quantisation(bits: int, dtype: torch.dtype) -> BitsAndBytesConfig:
    if bits == 4:
        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=dtype)
    return BitsAndBytesConfig(load_in_8bit=True)


def _source(revision: str | None) -> dict[str, Any]:
    place = {"local_files_only": True} if revision is None else {"revision": revision}
    return {**place, "trust_remote_code": False}


def _check_architecture(place: str, config: Any) -> None:
    if config.model_type != "llava":
        raise ValueError(f"{place} is a {config.model_type} model; {_WANTED}")
    tower = getattr(config.vision_config, "model_type", None)
    if tower != "clip_vision_model":
        raise ValueError(f"{place} has a {tower} vision tower, not CLIP's; {_WANTED}")


@contextmanager
def _reading(what: str, place: str) -> Iterator[None]:
    """Turn what transformers says of an unreadable part into one line that says what was expected."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        cause = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"no {what} could be read from {place} ({cause}); {_WANTED}, a local directory of one, or demo"
        ) from error
