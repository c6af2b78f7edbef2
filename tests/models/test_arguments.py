"""--model_args: splitting, checking, and errors that say what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmms_fixattn import METHODS
from lmms_fixattn.models import arguments

OWN = ["pretrained", "method", "batch_size", "dtype"]
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("pretrained=demo", {"pretrained": "demo"}),
        ("layers=2-32,revision=1234567,dtype=1e5", {"layers": "2-32", "revision": "1234567", "dtype": "1e5"}),
        ("a=[1,2],b={x,y},c=(3,4),", {"a": "[1,2]", "b": "{x,y}", "c": "(3,4)"}),
        ("pretrained='my,folder',b=\"\"", {"pretrained": "my,folder", "b": ""}),
        ("pretrained=a=b", {"pretrained": "a=b"}),
        ({"alpha": 0.5}, {"alpha": 0.5}),
    ],
)
def test_arguments_are_split_and_stay_strings(text: Any, expected: dict[str, Any]) -> None:
    assert arguments.split_args(text) == expected


NAMES = st.text("abc_", min_size=1, max_size=5)
VALUES = st.text("xyz0.5-/ =", max_size=8).map(str.strip)


@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_joined_arguments_split_back(args: dict[str, str]) -> None:
    assert arguments.split_args(",".join(f"{name}={value}" for name, value in args.items())) == args


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("pretrained", "expected name=value pairs separated by commas, got 'pretrained'"),
        ("=demo", "got '=demo'"),
        ("method=pai,alpha=1,method=fixattn", r"method is given twice \('pai' and 'fixattn'\)"),
        ("layers=[2,32", "not closed"),
        ("pretrained='demo", "not closed"),
    ],
)
def test_malformed_arguments_raise(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        arguments.split_args(text)


def test_hyper_parameters_arrive_as_strings_or_typed() -> None:
    typed = arguments.resolve_method("fixattn", {"alpha": 0.5, "layers": (2, 32)}, OWN)
    assert arguments.resolve_method("fixattn", {"alpha": "0.5", "layers": "2-32"}, OWN) == typed
    assert typed != METHODS["fixattn"]()


@pytest.mark.parametrize(
    ("method", "given", "complaint"),
    [
        ("fixatn", {}, r"unknown method 'fixatn' \(did you mean 'fixattn'\?\)"),
        ("fixattn", {"alpa": 1}, r"no model_arg 'alpa' \(did you mean 'alpha'\?\); it takes pretrained, method"),
        ("vanilla", {"batchsize": 1}, r"\(did you mean 'batch_size'\?\).*for method vanilla: nothing more"),
        ("pai", {"beta": 0.3}, r"method pai has no hyper-parameter 'beta' \(fixattn, adaiat have it\)"),
        ("fixattn", {"alpha": "big"}, "alpha must be a number"),
        ("fixattn", {"trust_remote_code": True}, "does not take trust_remote_code: .* never runs code"),
    ],
)
def test_unknown_name_or_value_says_what_is_allowed(method: str, given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        arguments.resolve_method(method, given, OWN)


@pytest.mark.parametrize(("value", "size"), [(1, 1), ("8", 8), (3.0, 3)])
def test_batch_size_is_a_whole_number(value: Any, size: int) -> None:
    assert arguments.batch_size(value) == (size, None)


@pytest.mark.parametrize("value", [0, -1, "0", "auto:4", 1.5, True, None, "", float("nan"), float("inf")])
def test_other_batch_sizes_raise(value: Any) -> None:
    with pytest.raises(ValueError, match='batch_size must be a whole number of at least 1, or "auto", got'):
        arguments.batch_size(value)


def test_an_automatic_batch_may_have_a_largest_size_and_no_other_has() -> None:
    assert arguments.batch_size("auto") == ("auto", None)
    assert arguments.batch_size(" Auto ", "12") == ("auto", 12)
    with pytest.raises(ValueError, match="max_batch_size must be a whole number of at least 1, got 0"):
        arguments.batch_size("auto", 0)
    with pytest.raises(ValueError, match="max_batch_size belongs to batch_size=auto"):
        arguments.batch_size(1, 64)


def test_weights_are_quantised_only_when_asked_and_only_where_bitsandbytes_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "find_spec", lambda name: {"bitsandbytes": object()}[name])
    assert arguments.bits(False, "false") is None
    assert (arguments.bits("True", False), arguments.bits(False, "1")) == (4, 8)
    with pytest.raises(ValueError, match="both true; choose one"):
        arguments.bits(True, True)
    with pytest.raises(ValueError, match="load_in_8bit must be true or false, got 'eight'"):
        arguments.bits(False, "eight")
    monkeypatch.setattr(arguments, "find_spec", lambda name: None)
    assert arguments.bits(False, False) is None
    with pytest.raises(ValueError, match="load_in_4bit needs bitsandbytes, which is not installed: pip install"):
        arguments.bits(True, False)


@pytest.mark.parametrize(
    ("value", "device", "expected"),
    [
        ("auto", CPU, torch.float32),
        ("auto", GPU, torch.float16),
        ("half", CPU, torch.float16),
        ("torch.bfloat16", GPU, torch.bfloat16),
        (torch.float32, GPU, torch.float32),
    ],
)
def test_dtype_auto_is_the_checkpoints_own_except_on_a_cpu(value: Any, device: Any, expected: torch.dtype) -> None:
    assert arguments.dtype(value, device, torch.float16) == expected


@pytest.mark.parametrize("value", ["float61", "int8", torch.int32])
def test_unknown_dtype_raises(value: Any) -> None:
    with pytest.raises(ValueError, match="dtype must be one of auto, float32"):
        arguments.dtype(value, CPU, torch.float16)


def test_device_that_is_not_there_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert arguments.device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(ValueError, match="torch sees 1 CUDA devices here"):
        arguments.device("cuda:1")
    with pytest.raises(ValueError, match="device must be cpu, cuda or cuda:N"):
        arguments.device("gpu")


def test_attention_backend_is_one_that_transformers_registers() -> None:
    assert [arguments.attention(name) for name in (None, "", "eager", "sdpa")] == [None, None, "eager", "sdpa"]
    for name in ("spda", "some-hub/kernel"):
        with pytest.raises(ValueError, match="attn_implementation must be one of eager"):
            arguments.attention(name)
