"""Read and check `--model_args`: the model's own settings and the method's hyper-parameters."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any

import torch

from lmms_fixattn.errors import did_you_mean
from lmms_fixattn.methods import METHODS, Method, make_method, parameters_of
from lmms_fixattn.models.transformers_api import loadable_attention

_DTYPES = {
    "auto": None,
    "float32": torch.float32,
    "float": torch.float32,
    "fp32": torch.float32,
    "float16": torch.float16,
    "half": torch.float16,
    "fp16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
}
_NOT_OFFERED = {
    "trust_remote_code": "this package never runs code from a checkpoint",
    "chat_template": "choose the prompt's form with conversation=",
    "use_cache": "decoding always uses the key-value cache",
    "max_frames_num": "the model reads no video",
}


def split_args(text: str | Mapping[str, Any]) -> dict[str, Any]:
    """Split "a=1,b=[2,3]" into {"a": "1", "b": "[2,3]"}; commas inside brackets, braces and quotes do not split.

    Values stay strings: lmms-eval's own parser would turn revision=1234567 into a number.

    Raises:
        ValueError: an item without "=", or a name that is given twice.
    """
    if isinstance(text, Mapping):
        return dict(text)
    args: dict[str, Any] = {}
    for item in _split_at_commas(text):
        name, equals, value = item.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not name:
            raise ValueError(f"model_args: expected name=value pairs separated by commas, got {item.strip()!r}")
        if name in args:
            raise ValueError(f"model_args: {name} is given twice ({args[name]!r} and {value!r})")
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        args[name] = value
    return args


def resolve_method(name: str, given: Mapping[str, Any], own: Iterable[str]) -> Method:
    """Make the method from the arguments that the model itself does not know.

    Args:
        given: what is left of model_args.
        own: the names of the model's own arguments, for the error message.

    Raises:
        ValueError: an unknown method, name or value, with the allowed ones.
    """
    own = list(own)
    if set(name.split("+")) <= set(METHODS):
        known = parameters_of(name)
        everywhere = {*known, *(parameter for method in METHODS for parameter in parameters_of(method))}
        for argument in given:
            if argument in _NOT_OFFERED:
                raise ValueError(f"llava_fixattn does not take {argument}: {_NOT_OFFERED[argument]}")
            if argument not in everywhere:
                raise ValueError(
                    f"llava_fixattn has no model_arg {argument!r}{did_you_mean(argument, [*own, *known])}; "
                    f"it takes {', '.join(own)}, and for method {name}: {', '.join(known) or 'nothing more'}"
                )
    return make_method(name, **given)


def own_names(constructor: Any) -> list[str]:
    """Return the names of a constructor's own keyword arguments that a user may set, in order."""
    named = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = inspect.signature(constructor).parameters.values()
    return [p.name for p in parameters if p.kind is named and p.name not in ("self", "max_batch_size")]


def batch_size(value: Any, largest: Any = None) -> tuple[int | str, int | None]:
    """Return a batch size of at least 1 or "auto", and for "auto" the largest one that is allowed, None for any.

    Raises:
        ValueError: anything else, or a largest size beside a batch size of its own.
    """
    if isinstance(value, str) and value.strip().lower() == "auto":
        return "auto", None if largest is None else _whole("max_batch_size", largest, "")
    if largest is not None:
        raise ValueError("max_batch_size belongs to batch_size=auto; leave it out, or set batch_size=auto")
    return _whole("batch_size", value, ', or "auto"'), None


def _whole(name: str, value: Any, otherwise: str) -> int:
    try:
        size = int(value)
        if isinstance(value, bool) or size != float(value) or size < 1:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be a whole number of at least 1{otherwise}, got {value!r}") from None
    return size


def bits(load_in_4bit: Any, load_in_8bit: Any) -> int | None:
    """Return how many bits weights are loaded in, 4 or 8; None for those of the data type.

    Raises:
        ValueError: both at once, no yes or no, or bitsandbytes, which transformers needs for it, is not installed.
    """
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "none": False}
    chosen = []
    for name, value, number in (("load_in_4bit", load_in_4bit, 4), ("load_in_8bit", load_in_8bit, 8)):
        if str(value).strip().lower() not in words:
            raise ValueError(f"{name} must be true or false, got {value!r}")
        chosen += [number] if words[str(value).strip().lower()] else []
    if len(chosen) > 1:
        raise ValueError("load_in_4bit and load_in_8bit are both true; choose one")
    if chosen and find_spec("bitsandbytes") is None:
        raise ValueError(f"load_in_{chosen[0]}bit needs bitsandbytes, which is not installed: pip install bitsandbytes")
    return chosen[0] if chosen else None


def dtype(value: Any, device: torch.device, stored: Any) -> torch.dtype:
    """Return the data type to run in.

    "auto" is the checkpoint's own type on an accelerator, and float32 on a CPU, where half precision is slower and less
    exact.

    Raises:
        ValueError: not one of the names or a torch.dtype among them.
    """
    if isinstance(value, torch.dtype):
        name = str(value).removeprefix("torch.")
    else:
        name = str(value).strip().lower().removeprefix("torch.")
    if name not in _DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, got {value!r}{did_you_mean(name, _DTYPES)}")
    chosen = _DTYPES[name]
    if chosen is not None:
        return chosen
    if device.type == "cpu":
        return torch.float32
    return stored if isinstance(stored, torch.dtype) else torch.float16


def device(value: Any) -> torch.device:
    """Return the device, by default a CUDA GPU where there is one, else the CPU.

    Raises:
        ValueError: no such device here.
    """
    if value is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(value if isinstance(value, torch.device) else str(value))
    except RuntimeError:
        raise ValueError(f"device must be cpu, cuda or cuda:N (or another of torch's), got {value!r}") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device={value}: torch sees {torch.cuda.device_count()} CUDA devices here; use device=cpu")
    return chosen


def compiled(value: Any, device: torch.device, device_map: str) -> bool:
    """Return whether to compile decoding: "auto" does on a CUDA GPU that holds the whole model.

    Raises:
        ValueError: neither auto nor true or false.
    """
    word = str(value).strip().lower()
    if word not in ("auto", "true", "false"):
        raise ValueError(f"compile must be auto, true or false, got {value!r}")
    return word == "true" or (word == "auto" and device.type == "cuda" and not device_map)


def attention(value: Any) -> str | None:
    """Return an attention backend's name, None for transformers' choice; raise ValueError for an unknown one.

    Only names that are registered in transformers: a kernel's hub id would run downloaded code.
    """
    if value is None or str(value).lower() in ("", "none", "auto"):
        return None
    known = loadable_attention()
    if value not in known:
        raise ValueError(
            f"attn_implementation must be one of {', '.join(known)}, got {value!r}{did_you_mean(value, known)}"
        )
    return str(value)


def _split_at_commas(text: str) -> list[str]:
    items, depth, quote = [""], 0, ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "[{(":
            depth += 1
        elif char in ")}]":
            depth -= 1
        elif char == "," and depth <= 0:
            items.append("")
            continue
        items[-1] += char
    if quote or depth:
        raise ValueError(f"model_args: a quote or bracket is not closed in {text!r}")
    return [item for item in items if item.strip()]
