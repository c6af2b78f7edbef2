"""The methods by name. A new one is a file in this folder and a line in METHODS."""

from __future__ import annotations

import dataclasses
from typing import Any

from lmms_fixattn.methods.adaiat import AdaIAT
from lmms_fixattn.methods.adhh import ADHH
from lmms_fixattn.methods.base import Method, did_you_mean
from lmms_fixattn.methods.fixattn import FixAttn
from lmms_fixattn.methods.hgai import HGAI
from lmms_fixattn.methods.iat import IAT
from lmms_fixattn.methods.pai import PAI
from lmms_fixattn.methods.spin import SPIN
from lmms_fixattn.methods.vaf import VAF
from lmms_fixattn.methods.vanilla import Vanilla
from lmms_fixattn.methods.var import VAR

_ALL: tuple[type[Method], ...] = (Vanilla, PAI, FixAttn, HGAI, VAF, SPIN, ADHH, VAR, IAT, AdaIAT)
METHODS: dict[str, type[Method]] = {method.name: method for method in _ALL}

__all__ = ["METHODS", "Method", "make_method"]


def make_method(name: str, **hyper_parameters: Any) -> Method:
    """Make the method of this name; values may be typed or the strings of ``--model_args``.

    >>> make_method("fixattn", alpha="0.5", layers="2-32")
    FixAttn(alpha=0.5, ..., layers=(2, 32), ...)

    Raises:
        ValueError: an unknown method or hyper-parameter (with the allowed ones), or a value out of its range.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}{did_you_mean(name, METHODS)}; methods: {', '.join(METHODS)}")
    known = [parameter.name for parameter in dataclasses.fields(METHODS[name])]
    for given in hyper_parameters:
        if given not in known:
            raise ValueError(
                f"method {name} has no hyper-parameter {given!r}{did_you_mean(given, known)}{_owners(given)}; "
                f"it has: {', '.join(known) or 'none'}"
            )
    return METHODS[name](**hyper_parameters)


def _owners(parameter: str) -> str:
    owners = [name for name, method in METHODS.items() if parameter in {f.name for f in dataclasses.fields(method)}]
    return f" ({', '.join(owners)} {'has' if len(owners) == 1 else 'have'} it)" if owners else ""
