"""What tells a request from all others of a run."""

from __future__ import annotations

from typing import Any

import pytest
from lmms_eval.api.instance import Instance

from lmms_fixattn.harness.requests import Request


def ask(task: str, split: str, doc_id: Any, context: str, **kwargs: Any) -> Instance:
    metadata = {"task": task, "doc_id": doc_id, "repeats": 1}
    return Instance("generate_until", (context, print, kwargs, doc_id, task, split), 0, metadata)


def test_keys_tell_apart_whatever_tells_requests_apart_and_count_repeats() -> None:
    requests = [
        ask("t", "test", 1, "What?"),
        ask("t", "test", 2, "What?"),
        ask("t", "val", 1, "What?"),
        ask("u", "test", 1, "What?"),
        ask("t", "test", 1, "Who?"),
        ask("t", "test", 1, "What?", max_new_tokens=3),
        ask("t", "test", 1, "What?"),
        ask("t", "test", "1", "What?"),
    ]
    keys = [request.key for request in Request.all_of("generate_until", requests)]
    assert len(set(keys)) == len(keys)
    assert keys == [request.key for request in Request.all_of("generate_until", requests)]
    others = [request.key for request in Request.all_of("generate_until_multi_round", requests)]
    assert not set(keys) & set(others)
    first, repeated = keys[0], keys[6]
    assert (first.rpartition("/")[0], first[-2:], repeated[-2:]) == (repeated.rpartition("/")[0], "/1", "/2")


def test_settings_that_cannot_be_meant_name_their_task() -> None:
    with pytest.raises(ValueError, match=r"^task t, generation_kwargs: .*max_new_tokens"):
        Request.all_of("generate_until", [ask("t", "test", 1, "What?", max_new_tokens=-1)])
