"""What a result says of the model, and what is said of what will not be saved."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lmms_fixattn.harness import results


class Model:
    """A model that describes itself."""

    is_simple = False

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def record(self) -> dict[str, Any]:
        return {"method": self.settings}

    def identity(self) -> dict[str, Any]:
        return self.record()


def test_result_states_the_model_once_wrapped_and_others_stay_as_they_are() -> None:
    def evaluate(lm: Any, task_dict: Any, response_cache: Any = None) -> Any:
        return None if task_dict is None else {"results": task_dict, "cache": response_cache}

    evaluator = SimpleNamespace(evaluate=evaluate)
    results._wrap_evaluate(evaluator)
    wrapped = evaluator.evaluate
    results._wrap_evaluate(evaluator)
    assert evaluator.evaluate is wrapped
    stated = wrapped(lm=Model(alpha=1), task_dict={}, response_cache=None)
    assert stated == {"results": {}, "cache": None, "lmms_fixattn": {"method": {"alpha": 1}}}
    assert wrapped(Model(), None) is None
    assert wrapped(object(), {}) == {"results": {}, "cache": None}


def arguments(**given: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"output_path": None, "log_samples": False, "model_args": "", **given})


def test_a_run_says_at_its_start_what_it_will_not_keep(said: list[str], tmp_path: Path) -> None:
    results.check_what_is_saved(arguments())
    results.check_what_is_saved(arguments(output_path=str(tmp_path / "a")))
    results.check_what_is_saved(arguments(output_path=str(tmp_path / "b"), log_samples=True))
    without, figures_only = said
    assert without.startswith("WARNING: ")
    assert "will not be saved" in without
    assert "--output_path DIR --log_samples" in without
    assert figures_only.startswith("WARNING: ")
    assert "add --log_samples" in figures_only
    assert list((tmp_path / "b").iterdir()) == []


def test_only_the_first_process_says_so(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    results.check_what_is_saved(arguments())
    assert said == []


def test_an_output_path_that_cannot_be_written_stops_the_run_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"--output_path .*file/below: nothing can be written there"):
        results.check_what_is_saved(arguments(output_path=str(tmp_path / "file" / "below")))


@pytest.mark.parametrize(
    ("default", "given", "shown"),
    [
        (True, "", "method=fixattn"),
        (True, "pretrained=demo", "method=fixattn,pretrained=demo"),
        (False, "method=fixattn", "method=fixattn"),
    ],
)
def test_the_line_above_the_table_names_the_default_method(default: bool, given: str, shown: str) -> None:
    model, cli_args = Model(), arguments(model_args=given)
    model.method, model.method_is_default = SimpleNamespace(name="fixattn"), default  # type: ignore[attr-defined]
    results.show_method(cli_args, model)
    assert cli_args.model_args == shown
