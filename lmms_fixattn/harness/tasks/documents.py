"""The documents of a task: loaded where lmms-eval processes them, recorded where it writes a task's configuration."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from lmms_fixattn import __version__
from lmms_fixattn.data import DataError, images
from lmms_fixattn.data.image_lists import ImageList
from lmms_fixattn.errors import UserError
from lmms_fixattn.plugin import after_import


@dataclass
class Documents(ABC):
    """Replace a task's nominal documents by the real ones, and say what they were.

    lmms-eval calls `process_docs` while it builds a task and afterwards writes the task's configuration, dataclasses as
    dictionaries, into the result file and into the key of its response cache. An object that fills in its own fields
    therefore records the data of every result, and answers to other data are never taken from the cache.

    Attributes:
        image_list, image_list_sha256: which images, and the digest of their ids (data.image_lists).
        source: where images and truth were read.
        data_sha256: digest of every document: texts, truth and the bytes of its image.
        lmms_fixattn: version of this package.
    """

    image_list: str = ""
    image_list_sha256: str = ""
    source: str = ""
    data_sha256: str = ""
    lmms_fixattn: str = __version__

    def __post_init__(self) -> None:
        after_import("lmms_eval.api.task", _raise_data_errors_at_once)

    def __call__(self, _nominal: Any) -> Any:
        """Return the real documents, a datasets.Dataset.

        Raises:
            DataError: whatever keeps them from being loaded.
        """
        try:
            dataset = self.load()
        except UserError:
            raise
        except (ValueError, ImportError, LookupError, OSError) as error:
            raise DataError(str(error)) from error
        self.data_sha256 = _digest(dataset)
        return dataset

    def record_images(self, images: ImageList, source: str) -> None:
        """Say which images the documents are of, and where they were read."""
        self.image_list, self.image_list_sha256, self.source = images.name, images.sha256, source

    @abstractmethod
    def load(self) -> Any:
        """Return the documents and fill in the fields that say what they are."""


def _digest(dataset: Any) -> str:
    whole = hashlib.sha256()
    for row in dataset:
        image = row.pop("image")
        whole.update(images.digest(image).encode())
        whole.update(json.dumps(row, sort_keys=True).encode())
    return whole.hexdigest()


def _raise_data_errors_at_once(task: ModuleType) -> None:
    """Let a UserError through lmms-eval's retries, once for all tasks.

    ConfigurableTask.download, which calls process_docs, and process_results are tried five times two seconds apart and
    then end in a RetryError that hides the message. Missing data do not appear by waiting.
    """
    from tenacity import retry_if_not_exception_type

    for method in (task.ConfigurableTask.download, task.ConfigurableTask.process_results):
        policy = getattr(method, "retry", None)
        if policy is not None and not getattr(policy.retry, "passes_data_errors", False):
            policy.retry = policy.retry & retry_if_not_exception_type(UserError)
            policy.retry.passes_data_errors = True
