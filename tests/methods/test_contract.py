"""What every method inherits, whatever it does. A new one is covered by its line in METHODS and one in NEUTRAL."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from fitted_methods import fitted
from query_rows import make_rows
from statistics_files import statistics_file
from tiny_llava import WordTokenizer, batch, make_prompt, text_model

from lmms_fixattn import METHODS, intervene, make_method

NEUTRAL = {
    "vanilla": {},
    "pai": {"alpha": 0, "gamma": 1},
    "fixattn": {"alpha": 0, "beta": 0, "gamma": 1},
    "hgai": {"alpha": 0},
    "vaf": {"enhance": 1, "suppress": 1},
    "spin": {"factor": 1},
    "adhh": {"threshold": 1.01},
    "var": {"p": 1},
    "iat": {"alpha": 0},
    "adaiat": {"alpha": 0},
    "truncate": {"words": 1000},
    "brief": {"sentences": 0},
    "beam": {"beams": 1},
    "nucleus": {"temperature": 0},
    "vcd": {"alpha": 0},
    "icd": {"alpha": 0},
    "m3id": {"rate": 0},
    "dola": {"alpha": 0},
    "deco": {"alpha": 0},
    "repetition_penalty": {"penalty": 1},
    "no_repeat_ngram": {"size": 0},
}
"""Settings with which a method does nothing."""

EDITS = {
    "pai": (("image",), ()),
    "fixattn": (("image",), ()),
    "hgai": (("image",), ()),
    "vaf": (("before", "image"), ()),
    "spin": ((), ("before", "image", "after", "generated")),
    "adhh": ((), ("after", "generated")),
    "var": ((), ("before", "image", "after")),
    "iat": (("generated",), ()),
    "adaiat": ((), ("before", "image", "after", "generated")),
}
"""The columns whose scores, and whose weights, a method that edits attention changes of its own."""

MOVES = {
    "alpha": [{"alpha": 1.4}],
    "beta": [{"beta": 1.9}],
    "local_ratio": [{"local_ratio": 0.6}],
    "spatial_ratio": [{"spatial_ratio": 0.3}],
    "spatial": [{"spatial": "received", "spatial_ratio": 0.3}, {"spatial": "released", "spatial_ratio": 0.3}],
    "selection": [{"selection": "random"}],
    "draw": [{"selection": "random", "draw": 7}, {"selection": "random"}],
    "layers": [{"layers": "0-4"}],
    "gamma": [{"gamma": 1.7}],
    "cutoff": [{"cutoff": 0.9}],
    "released_first_token": [{"released_first_token": False}, {"released_first_token": True}],
    "head_modulation": [{"head_modulation": "proportional"}],
    "g_max": [{"head_modulation": "proportional", "g_max": 0.6}, {"head_modulation": "proportional"}],
    "share": [{"head_modulation": "top", "share": 0.9}, {"head_modulation": "top"}],
    "enhance": [{"enhance": 1.9}],
    "suppress": [{"suppress": 0.4}],
    "kept": [{"kept": 0.5}],
    "factor": [{"factor": 0.7}],
    "heads": [{"heads": "[2:1,3:5]"}],
    "threshold": [{"threshold": 0.01}],
    "sink_dims": [{"sink_dims": "[5]"}],
    "tau": [{"tau": 2.1}],
    "rho": [{"rho": 0.1}],
    "image_mass": [{"image_mass": 0.8}],
    "p": [{"p": 0.1}],
    "statistics": [{"statistics": statistics_file(text_model(key_heads=3), seed=1)}],
    "clamp": [{"clamp": False}],
    "noise_step": [{"noise_step": 900}],
    "seed": [{"seed": 7}],
    "rate": [{"rate": 0.3}],
    "top_k": [{"top_k": 2}],
    "words": [{"words": 1}],
    "sentences": [{"sentences": 1}],
    "beams": [{"beams": 3}],
    "top_p": [{"top_p": 0.3}],
    "temperature": [{"temperature": 0.4}],
    "penalty": [{"penalty": 1.9}],
    "size": [{"size": 2}],
}
"""By hyper-parameter, settings that must give other scores than each other, or than the defaults where there is one."""

CHECKS = {"digest"}
"""Hyper-parameters that hold what a run was made with, and move nothing."""

parameters = [(name, field.name) for name in METHODS for field in dataclasses.fields(METHODS[name])]


def scores(model, method, prompts):
    """Return the final log-probabilities of each step, [steps, rows, vocabulary]."""
    torch.manual_seed(0)
    with intervene(model, method, WordTokenizer()):
        out = model.generate(
            **batch(prompts), max_new_tokens=3, min_new_tokens=3, output_scores=True, return_dict_in_generate=True
        )
    return torch.stack(out.scores).log_softmax(-1)


def differ(one, other, by):
    if one.shape != other.shape or not torch.equal(one.isfinite(), other.isfinite()):
        return True
    return (one - other).masked_fill(~one.isfinite(), 0).abs().max() > by


def test_every_method_has_a_neutral_setting_and_a_test_file(request):
    editing = {name for name in METHODS if fitted(name).edited_layers is not None}
    assert set(NEUTRAL) == set(METHODS)
    assert set(EDITS) == editing
    files = {path.name for path in request.path.parent.glob("test_*.py")}
    assert {f"test_{method.__module__.rpartition('.')[2]}.py" for method in METHODS.values()} <= files


@pytest.mark.parametrize("name", METHODS)
def test_neutral_settings_equal_the_untouched_model(llava, name):
    prompts = [make_prompt(seed=50), make_prompt(seed=51, images=2)]
    method = fitted(name, **NEUTRAL[name])
    inputs = batch(prompts)
    out = llava.generate(
        **inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False, output_scores=True, return_dict_in_generate=True
    )
    expected = torch.stack(out.scores).log_softmax(-1)
    torch.testing.assert_close(scores(llava, method, prompts), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "vanilla"])
def test_the_defaults_are_really_on(llava, name):
    prompts = [make_prompt(seed=52)]
    default, vanilla = (scores(llava, fitted(n), prompts) for n in (name, "vanilla"))
    assert differ(default, vanilla, by=1e-2) or make_method(name).ask("What is it?") != "What is it?"


@pytest.mark.parametrize(("name", "parameter"), [pair for pair in parameters if pair[1] not in CHECKS])
def test_every_hyper_parameter_moves_the_scores(grouped_llava, name, parameter):
    prompts = [make_prompt(seed=53)]
    other, *base = MOVES[parameter]
    moved, still = (fitted(name, key_heads=3, **settings) for settings in (other, base[0] if base else {}))
    if moved.ask("What is it?") == still.ask("What is it?"):
        assert differ(*(scores(grouped_llava, method, prompts) for method in (moved, still)), by=1e-3)


@pytest.mark.parametrize("settings", [{}, {"head_modulation": "proportional"}])
@pytest.mark.parametrize("name", EDITS)
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
        for changed, own in ((rows.scores != before, EDITS[name][0]), (weights != between, EDITS[name][1])):
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
