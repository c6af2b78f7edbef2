"""Tasks that ask for a login are read without one where none is stored, and what fails is said in one line."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from lmms_eval.api.task import ConfigurableTask
from tenacity import retry, stop_after_attempt

from lmms_fixattn.data import DataError
from lmms_fixattn.harness import hub


class Task:
    """As lmms-eval's: its download is tried several times."""

    DATASET_PATH = "someone/questions"
    config = SimpleNamespace(task="questions")

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[Any] = []
        self.error = error

    @retry(stop=stop_after_attempt(3))
    def download(self, dataset_kwargs: Any = None) -> None:
        self.asked.append(dataset_kwargs)
        if self.error is not None:
            raise self.error


def wrapped() -> type[Task]:
    module: Any = SimpleNamespace(ConfigurableTask=type("Own", (Task,), {"download": Task.download}))
    hub._wrap_download(module)
    once = module.ConfigurableTask.download
    hub._wrap_download(module)
    assert module.ConfigurableTask.download is once
    assert once.retry is Task.download.retry  # type: ignore[attr-defined]
    return module.ConfigurableTask  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("stored", "given", "asked"),
    [
        (None, {"token": True, "data_dir": "d"}, {"token": None, "data_dir": "d"}),
        ("hf_abc", {"token": True}, {"token": True}),
        (None, {"token": "hf_own"}, {"token": "hf_own"}),
        (None, {"data_files": "f"}, {"data_files": "f"}),
        (None, None, None),
    ],
)
def test_only_a_demand_for_a_login_that_is_not_stored_is_dropped(
    stored: str | None, given: Any, asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: stored)
    task, before = wrapped()(), None if given is None else dict(given)
    task.download(given)
    assert task.asked == [asked]
    assert given == before, "the task's own configuration stays as it is, and so does what the result records of it"


def test_a_download_that_fails_every_time_says_what_and_why() -> None:
    task = wrapped()(ConnectionError("no route to host\nand so on"))
    with pytest.raises(
        DataError, match=r"task questions: data set someone/questions .*ConnectionError: no route to host\)"
    ):
        task.download({})
    assert len(task.asked) == 3


def test_the_models_module_wraps_lmms_evals_own_tasks() -> None:
    import lmms_fixattn.harness.model  # noqa: F401

    assert ConfigurableTask.download.asks_without_login
