"""The methods by name. A new one is a file in this folder and a line in METHODS, or a package of its own.

A package adds a method, without a change of this one, by an entry point of its name in the group
``lmms_fixattn.methods``::

    [project.entry-points."lmms_fixattn.methods"]
    toy = "my_package.toy:Toy"
"""

from __future__ import annotations

import dataclasses
from importlib.metadata import entry_points
from typing import Any

from lmms_fixattn.errors import did_you_mean
from lmms_fixattn.methods.adaiat import AdaIAT
from lmms_fixattn.methods.adhh import ADHH
from lmms_fixattn.methods.base import Method
from lmms_fixattn.methods.brief import Brief
from lmms_fixattn.methods.composition import Composition, distribute
from lmms_fixattn.methods.deco import DeCo
from lmms_fixattn.methods.decoding import Beam, NoRepeatNgram, Nucleus, RepetitionPenalty
from lmms_fixattn.methods.dola import DoLa
from lmms_fixattn.methods.fixattn import FixAttn
from lmms_fixattn.methods.hgai import HGAI
from lmms_fixattn.methods.iat import IAT
from lmms_fixattn.methods.icd import ICD
from lmms_fixattn.methods.m3id import M3ID
from lmms_fixattn.methods.pai import PAI
from lmms_fixattn.methods.spin import SPIN
from lmms_fixattn.methods.truncate import Truncate
from lmms_fixattn.methods.vaf import VAF
from lmms_fixattn.methods.vanilla import Vanilla
from lmms_fixattn.methods.var import VAR
from lmms_fixattn.methods.vcd import VCD

_ALL: tuple[type[Method], ...] = (
    Vanilla,
    PAI, FixAttn, HGAI, VAF, SPIN, ADHH, VAR, IAT, AdaIAT,  # attention
    VCD, ICD, M3ID,  # contrast
    DoLa, DeCo,  # layers
    Truncate, Brief,  # length
    Beam, Nucleus, RepetitionPenalty, NoRepeatNgram,  # decoding
)  # fmt: skip
METHODS: dict[str, type[Method]] = {method.name: method for method in _ALL}
GROUP = "lmms_fixattn.methods"
"""The group of entry points by which other packages add methods."""
PROVIDERS: dict[str, str] = {}
"""Which package, in which version, a method comes from, by the method's name; of this package's own there are none."""
UNUSABLE: dict[str, str] = {}
"""Why a method of another package cannot be used, by its name."""

__all__ = ["METHODS", "Method", "make_method", "method_class", "parameters_of"]


def make_method(name: str, **hyper_parameters: Any) -> Method:
    """Make the method of this name; values may be typed or the strings of ``--model_args``.

    Several in turn are joined by plus signs; a hyper-parameter that more than one of them has is given as
    ``{"pai.layers": ...}``.

    >>> make_method("fixattn", alpha="0.5", layers="2-32")
    FixAttn(alpha=0.5, ..., layers=(2, 32), ...)
    >>> make_method("pai+spin", alpha=0.3, **{"spin.layers": "0-16"})
    Composition(members=(PAI(...), SPIN(...)))

    Raises:
        ValueError: an unknown method or hyper-parameter (with the allowed ones), a value out of its range, or methods
            that do not go together.
    """
    names = [part.strip() for part in name.split("+")]
    for part in names:
        method_class(part)
    if len(names) == 1:
        return _make(names[0], hyper_parameters)
    settings = distribute(names, {part: parameters_of(part) for part in names}, hyper_parameters)
    return Composition(tuple(_make(part, settings[part]) for part in names))


def parameters_of(name: str) -> list[str]:
    """Return the names of a method's hyper-parameters; of several in turn, also with the method's name before them."""
    parts = name.split("+")
    own = [[parameter.name for parameter in dataclasses.fields(METHODS[part])] for part in parts]
    plain = list(dict.fromkeys(parameter for parameters in own for parameter in parameters))
    if len(parts) == 1:
        return plain
    return [*plain, *(f"{part}.{key}" for part, keys in zip(parts, own, strict=True) for key in keys)]


def method_class(name: str) -> type[Method]:
    """Return the method of this name.

    Raises:
        ValueError: there is none, or it is another package's and cannot be used.
    """
    if name in UNUSABLE:
        raise ValueError(f"method {name!r} {UNUSABLE[name]}")
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}{did_you_mean(name, METHODS)}; methods: {', '.join(METHODS)}")
    return METHODS[name]


def _make(name: str, hyper_parameters: dict[str, Any]) -> Method:
    known = parameters_of(name)
    for given in hyper_parameters:
        if given not in known:
            raise ValueError(
                f"method {name} has no hyper-parameter {given!r}{did_you_mean(given, known)}{_owners(given)}; "
                f"it has: {', '.join(known) or 'none'}"
            )
    return METHODS[name](**hyper_parameters)


def _owners(parameter: str) -> str:
    owners = [name for name in METHODS if parameter in parameters_of(name)]
    return f" ({', '.join(owners)} {'has' if len(owners) == 1 else 'have'} it)" if owners else ""


def _add_methods_of_other_packages() -> None:
    for point in entry_points(group=GROUP):
        package = f"{point.dist.name} {point.dist.version}" if point.dist else "another package"
        try:
            method = point.load()
        except Exception as error:  # one package's fault must not cost the user all other methods
            UNUSABLE[point.name] = f"of {package} cannot be loaded: {type(error).__name__}: {error}"
            continue
        if not (isinstance(method, type) and issubclass(method, Method)):
            UNUSABLE[point.name] = f"of {package} is no subclass of lmms_fixattn.methods.Method: {point.value}"
        elif missing := [name for name in ("name", "summary", "source", "verified") if not hasattr(method, name)]:
            UNUSABLE[point.name] = f"of {package} does not state its {missing[0]}"
        elif method.name != point.name:
            UNUSABLE[point.name] = f"of {package} calls itself {method.name!r}; its entry point must have that name"
        elif point.name in METHODS:
            UNUSABLE[point.name] = f"is defined twice: by {PROVIDERS.get(point.name, 'lmms-fixattn')} and by {package}"
        else:
            METHODS[point.name], PROVIDERS[point.name] = method, package


_add_methods_of_other_packages()
