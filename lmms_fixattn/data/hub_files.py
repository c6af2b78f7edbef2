"""A checkpoint's files from the hub, in its cache: the small ones first, the weights once they are needed.

huggingface_hub downloads, resumes and tries again; a snapshot that is in its cache is taken without asking anything but
which commit a branch is at, and without that where the hub is out of reach.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.constants import HF_HUB_CACHE
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential
from tqdm import tqdm

from lmms_fixattn.data import DataError

_SMALL = ("*.json", "*.jinja", "*.model", "*.txt")
_WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")


def configuration(place: str, revision: str) -> Path:
    """Return the folder of a snapshot with everything but the weights; its name is the commit.

    Raises:
        OSError, ValueError: no such repository or revision, or the hub is out of reach and they are not in its cache.
    """
    return Path(_download(place, revision, _SMALL))


def check_disk_space(place: str, commit: str) -> None:
    """See to it that the weights which the hub is to send have room in its cache.

    Where the hub is out of reach nothing is known of their size, and nothing is checked.

    Raises:
        DataError: they have not.
    """
    needed = sum(file.file_size or 0 for file in _to_come(place, commit))
    if needed and needed > (free := shutil.disk_usage(HF_HUB_CACHE).free):
        raise DataError(
            f"the weights of {place} are {needed / 1e9:.2f} GB to download, and {HF_HUB_CACHE} has room for "
            f"{free / 1e9:.2f} GB; make room, or set HF_HOME to a folder on a larger disk"
        )


def download_weights(place: str, commit: str) -> None:
    """Have the weights in the snapshot, and check what came against the hub's digests: its client checks sizes only.

    Raises:
        OSError: they cannot be had.
        ValueError: a file is not what the hub says that it is; it is deleted.
    """
    coming = _to_come(place, commit)
    _download(place, commit, _WEIGHTS)
    for file in coming:
        link = Path(file.local_path)
        content = link.resolve()  # in the cache a large file is named by its sha256
        if len(content.name) == 64 and _sha256(content) != content.name:
            content.unlink()
            link.unlink(missing_ok=True)
            raise ValueError(f"{file.filename} came damaged and was deleted; run again to download it anew")


def _download(place: str, revision: str, files: Sequence[str]) -> str:
    """Return the snapshot's folder; ask an overloaded hub again, which huggingface_hub does not always do."""
    attempts = Retrying(
        stop=stop_after_attempt(5),
        wait=wait_exponential(max=30),
        retry=retry_if_exception(
            lambda error: getattr(getattr(error, "response", None), "status_code", None) in (500, 502, 503, 504)
        ),
        reraise=True,
    )
    try:
        return str(attempts(snapshot_download, place, revision=revision, allow_patterns=list(files)))
    except (OSError, ValueError):
        raise
    except Exception as error:  # of the client below, whose errors have no root in common with Python's
        raise OSError(f"{type(error).__name__}: {error}") from error


def _to_come(place: str, commit: str) -> list[Any]:
    """Return what the hub says of the weight files that are not in its cache yet."""
    try:
        files = snapshot_download(
            place, revision=commit, allow_patterns=list(_WEIGHTS), dry_run=True, tqdm_class=_NoBar
        )
    except OSError:
        return []
    return [file for file in files if file.will_download]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 24):
            digest.update(piece)
    return digest.hexdigest()


class _NoBar(tqdm):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})
