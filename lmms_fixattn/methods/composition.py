"""Several methods at once: "pai+spin". Not a method of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lmms_fixattn.methods.base import Method
from lmms_fixattn.methods.text_model import TextModel


@dataclass(frozen=True)
class Composition(Method):
    """Methods that act one after the other, in the order in which they are written.

    In every edited layer all edit the scores in turn, then the weights in turn; each keeps its own layers, gains and
    measurements. Those that guide choose new next-token scores in turn; questions are rewritten in turn.

    Raises:
        ValueError: the same method twice, vanilla beside others, two contrastive branches, or two values for one
            argument of ``generate``.
    """

    summary: ClassVar[str] = "several methods in turn"
    source: ClassVar[str] = "its parts"
    verified: ClassVar[str] = "the methods in turn, on LLaVA written out by hand"

    members: tuple[Method, ...]

    def __post_init__(self) -> None:
        names = [member.name for member in self.members]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{self.name}: {twice[0]} is named twice; its strength is a hyper-parameter")
        if "vanilla" in names:
            raise ValueError(f"{self.name}: vanilla is the unmodified model and adds nothing; leave it out")
        branching = [member for member in self.members if member.branch is not None]
        if len(branching) > 1:
            first, second = branching[:2]
            without = [f"{member.name}.gamma=1" for member in branching if hasattr(member, "gamma")]
            advice = f"turn one off ({' or '.join(without)})" if without else "leave one out"
            raise ValueError(
                f"{self.name}: {first.name} and {second.name} each need a contrastive branch, and a step has "
                f"room for one; {advice}"
            )
        owners: dict[str, str] = {}
        for member in self.members:
            for argument in member.generation:
                if argument in owners:
                    raise ValueError(f"{self.name}: {owners[argument]} and {member.name} both set {argument}")
                owners[argument] = member.name

    @property
    def name(self) -> str:  # type: ignore[override]
        return "+".join(member.name for member in self.members)

    @property
    def parts(self) -> tuple[Method, ...]:
        return self.members

    @property
    def generation(self) -> Mapping[str, Any]:
        return {argument: value for member in self.members for argument, value in member.generation.items()}

    def for_model(self, text: TextModel) -> Composition:
        return dataclasses.replace(self, members=tuple(member.for_model(text) for member in self.members))

    def settings(self) -> dict[str, Any]:
        return {f"{m.name}.{key}": value for m in self.members for key, value in m.settings().items()}

    def changed(self) -> dict[str, Any]:
        return {f"{m.name}.{key}": value for m in self.members for key, value in m.changed().items()}

    def ask(self, question: str) -> str:
        for member in self.members:
            question = member.ask(question)
        return question


def distribute(names: Sequence[str], fields: dict[str, list[str]], given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Give each hyper-parameter to its member: "pai.alpha" to pai, "kept" to the only member that has one.

    Args:
        names: of the members.
        fields: by member, the names of its hyper-parameters.

    Raises:
        ValueError: a name that no member has, or several have.
    """
    settings: dict[str, dict[str, Any]] = {name: {} for name in names}
    whole = "+".join(names)
    for key, value in given.items():
        member, dot, parameter = key.rpartition(".")
        if not dot:
            owners = [name for name in names if key in fields[name]]
            if len(owners) != 1:
                choices = ", ".join(f"{name}.{key}=" for name in owners)
                known = ", ".join(f"{name}.{field}" for name in names for field in fields[name])
                said = f"{' and '.join(owners)} have it; write {choices}" if owners else f"its parts have: {known}"
                raise ValueError(f"method {whole}: whose hyper-parameter is {key!r}? {said}")
            member, parameter = owners[0], key
        elif member not in settings:
            raise ValueError(f"method {whole} has no part {member!r}, which {key} names; parts: {', '.join(names)}")
        if parameter in settings[member]:
            raise ValueError(f"method {whole}: {member}.{parameter} is given twice")
        settings[member][parameter] = value
    return settings
