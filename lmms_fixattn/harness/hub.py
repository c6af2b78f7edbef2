"""How lmms-eval's tasks get their data sets: without a login where none is stored, and with errors in one line.

The YAML of its `pope`, like that of most of its tasks, says `token: True`: without a stored login the download ends in
LocalTokenNotFoundError before anything was asked, though the data set is public, and five tries later in a RetryError
that does not say so. There is no setting for either, so ConfigurableTask.download is wrapped once, by the model's
module: runs of other models are left as they are.
"""

from __future__ import annotations

import functools
from typing import Any

from loguru import logger

from lmms_fixattn.data import DataError
from lmms_fixattn.plugin import after_import


def ask_without_login() -> None:
    """Wrap `ConfigurableTask.download`, now or when its module is imported; a second call changes nothing."""
    after_import("lmms_eval.api.task", _wrap_download)


def _wrap_download(module: Any) -> None:
    download = module.ConfigurableTask.download
    if getattr(download, "asks_without_login", False):
        return

    @functools.wraps(download)  # which also passes on the policy by which it is tried again
    def download_without_login(self: Any, dataset_kwargs: Any = None) -> None:
        from huggingface_hub import get_token
        from tenacity import RetryError

        if dataset_kwargs and dataset_kwargs.get("token") is True and get_token() is None:
            logger.info(f"llava_fixattn: data set {self.DATASET_PATH} is read without a login, as none is stored")
            dataset_kwargs = {**dataset_kwargs, "token": None}
        try:
            download(self, dataset_kwargs)
        except RetryError as error:
            cause = error.last_attempt.exception() or error
            reason = f"{type(cause).__name__}: {(str(cause).strip() or 'no message').splitlines()[0]}"
            raise DataError(
                f"task {self.config.task}: data set {self.DATASET_PATH} could not be loaded ({reason}); give this "
                "machine access to the hub, or a copy of HF_HOME of a machine that has it (`hf auth login` where it is "
                "not public)"
            ) from cause

    download_without_login.asks_without_login = True  # type: ignore[attr-defined]
    module.ConfigurableTask.download = download_without_login
