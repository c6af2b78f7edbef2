"""What runs say of their method, and the warnings where one could be taken for another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmms_fixattn import METHODS
from lmms_fixattn.report import recorded
from lmms_fixattn.report.runs import Run

SETTINGS = {"alpha": 0.7, "layers": [2, 32]}


def run(name: str, method: str | None = "fixattn", data: str = "d", **model: Any) -> Run:
    stated = {"method": {"name": method, **SETTINGS}, **model} if method else {}
    return Run(name, Path(name), record={"lmms_fixattn": stated, "tasks": {"chair_coco": {"data_sha256": data}}})


def test_every_method_is_known_by_name_without_importing_one() -> None:
    assert set(METHODS) == recorded.METHOD_NAMES


def test_a_run_states_its_method_and_what_is_not_the_default() -> None:
    runs = [
        run("a", changed_settings={"alpha": 0.5, "layers": [2, None]}),
        run("b", method_is_default=True, changed_settings={}),
        run("older"),
        run("other", method=None),
        Run("file", Path("file")),
    ]
    assert recorded.methods(runs) == [
        "a ran method=fixattn with alpha=0.5, layers=[2, null]",
        "b ran method=fixattn (default)",
        "older ran method=fixattn with alpha=0.7, layers=[2, 32]",
    ]


@pytest.mark.parametrize(
    ("name", "method", "warned"),
    [
        ("vanilla", "fixattn", True),
        ("PAI", "fixattn", True),
        ("pai+spin", "pai", True),
        ("fixattn", "fixattn", False),
        ("FixAttn", "fixattn", False),
        ("pai+spin", "pai+spin", False),
        ("baseline", "fixattn", False),
        ("vanilla-7b", "fixattn", False),
        ("vanilla", None, False),
    ],
)
def test_a_run_called_by_another_methods_name_is_warned_of(name: str, method: str | None, warned: bool) -> None:
    found = recorded.misnamed([run(name, method)])
    assert found == ([f"careful: the run called {name} ran method={method}"] if warned else [])


def test_the_warning_says_where_the_default_was_taken() -> None:
    (warning,) = recorded.misnamed([run("vanilla", method_is_default=True)])
    assert warning.endswith("ran method=fixattn, the default of llava_fixattn")


def test_two_runs_of_one_method_and_its_settings_on_the_same_data_are_noted() -> None:
    one, same = run("one", method_is_default=True), run("same", conversation=None)
    assert len(recorded.alike([one, same])) == 1
    for other in (
        run("x", "pai"),
        run("x", data="e"),
        run("x", conversation="pai"),
        run("x", None),
        run("x", commit="c"),
    ):
        assert recorded.alike([one, other]) == []
