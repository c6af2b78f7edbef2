"""What every method inherits, whatever it does: a new one is covered by its line in METHOD_CASES."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest
import torch
from fitted_methods import fitted
from method_cases import METHOD_CASES
from query_rows import make_rows
from tiny_llava import WordTokenizer, batch, make_prompt, text_model

from lmms_fixattn import METHODS, intervene, make_method

parameters = [(name, field.name) for name in METHODS for field in dataclasses.fields(METHODS[name])]
MOVED = [(name, parameter) for name, case in METHOD_CASES.items() for parameter in case.moves]


TWO, ONE, OTHER = ((50, 1), (51, 2)), ((52, 1),), ((53, 1),)
"""Prompts by seed and number of images."""


@cache
def scores(model, method, prompts):
    """Return the final log-probabilities of each step, [steps, rows, vocabulary]."""
    torch.manual_seed(0)
    inputs = batch([make_prompt(seed, images) for seed, images in prompts])
    with intervene(model, method, WordTokenizer()):
        out = model.generate(
            **inputs, max_new_tokens=3, min_new_tokens=3, output_scores=True, return_dict_in_generate=True
        )
    return torch.stack(out.scores).log_softmax(-1)


def differ(one, other, by):
    if one.shape != other.shape or not torch.equal(one.isfinite(), other.isfinite()):
        return True
    return (one - other).masked_fill(~one.isfinite(), 0).abs().max() > by


EDITING = [name for name, case in METHOD_CASES.items() if case.edits_scores or case.edits_weights]


def test_every_method_has_its_line_of_cases_and_a_test_file(request):
    assert list(METHOD_CASES) == list(METHODS)
    for name, case in METHOD_CASES.items():
        method = fitted(name)
        assert (name in EDITING) == (method.edited_layers is not None), f"{name}: say which columns it edits"
        parameters = {field.name for field in dataclasses.fields(method)}
        assert case.moves.keys() | case.unmoving == parameters, f"{name}: say what moves each hyper-parameter"
        acts = method.edited_layers is not None or method.guides or name == "vanilla"
        told = {case.formula is not None, bool(case.by_hand), case.recorded is not None}
        assert told == {acts}, f"{name}: give its formula, cases by hand and recorded settings, or none of the three"
    files = {path.name for path in request.path.parent.glob("test_*.py")}
    assert {f"test_{method.__module__.rpartition('.')[2]}.py" for method in METHODS.values()} <= files


@pytest.mark.parametrize("name", METHODS)
def test_neutral_settings_equal_the_untouched_model(llava, name):
    method = fitted(name, **METHOD_CASES[name].neutral)
    inputs = batch([make_prompt(seed, images) for seed, images in TWO])
    out = llava.generate(
        **inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False, output_scores=True, return_dict_in_generate=True
    )
    expected = torch.stack(out.scores).log_softmax(-1)
    torch.testing.assert_close(scores(llava, method, TWO), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "vanilla"])
def test_the_defaults_change_the_scores_or_the_question(llava, name):
    default, vanilla = (scores(llava, fitted(n), ONE) for n in (name, "vanilla"))
    assert differ(default, vanilla, by=1e-2) or make_method(name).ask("What is it?") != "What is it?"


@pytest.mark.parametrize(("name", "parameter"), MOVED)
def test_every_hyper_parameter_moves_the_scores(grouped_llava, name, parameter):
    moved, still = (fitted(name, key_heads=3, **settings) for settings in METHOD_CASES[name].moved(parameter))
    if moved.ask("What is it?") == still.ask("What is it?"):
        assert differ(*(scores(grouped_llava, method, OTHER) for method in (moved, still)), by=1e-3)


@pytest.mark.parametrize("settings", [{}, {"head_modulation": "proportional"}])
@pytest.mark.parametrize("name", EDITING)
def test_only_its_own_columns_change_and_masked_keys_stay_masked(name, settings):
    parameters = {field.name for field in dataclasses.fields(METHODS[name])}
    settings = {key: value for key, value in {"gamma": 1, **settings}.items() if key in parameters}
    method = fitted(name, **settings).for_model(text_model())
    draw = torch.Generator().manual_seed(7)
    is_image = torch.zeros(3, 17, dtype=torch.bool)
    is_image[0, 2:9] = is_image[1, 8:15] = True
    observed = (
        {4: method.observe_input(4, torch.randn(3, 17, 42, generator=draw))} if method.has("observe_input") else {}
    )
    touched = False
    for prefill in [phase for phase in (True, False) if method.needs_row(phase)]:
        keys = 17 if prefill else 23
        before = 2 * torch.randn(3, 6, keys, generator=draw)
        keep = torch.rand(3, 1, keys, generator=draw) > 0.3
        gain = torch.rand(3, 17, generator=draw)
        rows = make_rows(before.clone(), is_image, gain, keep=keep, prefill=prefill, layer=4, observed=observed)
        method.edit_scores(rows)
        between = rows.weights()
        weights = between.clone()
        method.edit_weights(rows, weights)
        kinds = {kind: getattr(rows.columns, kind)[:, 0] for kind in ("before", "image", "after")}
        kinds = {kind: torch.nn.functional.pad(mask, (0, keys - 17)) for kind, mask in kinds.items()}
        kinds["generated"] = (torch.arange(keys) >= 17) & rows.columns.has_image[:, 0]
        case = METHOD_CASES[name]
        for changed, own in ((rows.scores != before, case.edits_scores), (weights != between, case.edits_weights)):
            allowed = sum((kinds[kind] for kind in own), torch.zeros(3, keys, dtype=torch.bool))
            assert not (changed.any(dim=1) & ~allowed.bool()).any()
            touched |= bool(changed.any())
        assert weights.isfinite().all()
        assert weights.min() >= 0
        assert (weights.masked_select(~keep.expand_as(weights)) == 0).all()
    assert touched


@pytest.mark.parametrize(("name", "parameter"), parameters)
@pytest.mark.parametrize("value", ["nonsense", "", None, "nan", -1, float("inf"), [3.5]])
def test_a_bad_value_raises_at_construction_and_says_what_was_expected(name, parameter, value):
    expected = "(a number|a whole number|true or false|one of|a range|published|none|any)"
    with pytest.raises(ValueError, match=rf"{name}: {parameter} must be {expected}"):
        make_method(name, **{parameter: value})


@pytest.mark.parametrize("name", METHODS)
def test_strings_and_typed_values_make_the_same_method(name):
    method = make_method(name)
    values = dataclasses.asdict(method)
    words = {key: f"{v[0]}-{v[1] or ''}" if isinstance(v, tuple) else str(v) for key, v in values.items()}
    assert make_method(name, **words) == make_method(name, **values) == method
    assert hash(method) == hash(make_method(name))
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.alpha = 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_where_it_comes_from(name):
    method = METHODS[name]
    assert method.summary
    assert method.verified
    assert any(kind in method.source for kind in ("arXiv:", "openreview.net", "a control of this package"))
    assert method.__doc__
    assert all(field.metadata["meaning"] for field in dataclasses.fields(method))


def test_unknown_names_are_refused_with_the_nearest_one():
    with pytest.raises(
        ValueError, match=r"unknown method 'fixatn' \(did you mean 'fixattn'\?\); methods: vanilla, pai"
    ):
        make_method("fixatn")
    with pytest.raises(
        ValueError, match=r"pai has no hyper-parameter 'alhpa' \(did you mean 'alpha'\?\).*it has: gamma"
    ):
        make_method("pai", alhpa=1)
    with pytest.raises(ValueError, match=r"pai has no hyper-parameter 'beta'.*\(fixattn, adaiat have it\)"):
        make_method("pai", beta=1)
    with pytest.raises(ValueError, match=r"got 'proportion' \(did you mean 'proportional'\?\)"):
        make_method("fixattn", head_modulation="proportion")


@pytest.mark.parametrize(
    ("given", "parsed"),
    [("2-32", (2, 32)), ("2-", (2, None)), ((2, 32), (2, 32)), ([0, None], (0, None)), ("0-1", (0, 1))],
)
def test_layers_are_a_range_with_the_end_excluded(given, parsed):
    assert make_method("pai", layers=given).layers == parsed


@pytest.mark.parametrize(
    "bad", ["2", "-5", "5-5", "7-3", "a-b", (2,), (3, 2), (True, 4), (-1, 3), (1.5, 3), "2-32-40", 5]
)
def test_layers_that_are_no_range_are_refused(bad):
    with pytest.raises(ValueError, match="a range of layers with the end excluded"):
        make_method("pai", layers=bad)
