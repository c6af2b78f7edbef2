"""What happens outside the versions that were tried, and outside the bounds."""

from __future__ import annotations

import warnings

import pytest
from tiny_llava import build_llava

from lmms_fixattn import __version__, intervene, make_method, versions


@pytest.fixture
def installed(monkeypatch):
    """Let these versions be installed; others stay as they are."""

    def install(**found):
        real = versions.version
        named = {name.replace("_", "-"): version for name, version in found.items()}
        monkeypatch.setattr(versions, "version", lambda name: named.get(name) or real(name))

    return install


def test_the_installed_versions_are_named():
    found = versions.installed()
    assert found["lmms-fixattn"] == __version__
    assert {"python", "torch", "transformers", "lmms-eval"} <= set(found)
    assert "outside_bounds" not in found


@pytest.mark.parametrize("local", ["", "+cu130", ".post1"])
@pytest.mark.parametrize("end", [0, 1])
def test_what_was_tried_passes_without_a_remark(installed, local, end):
    installed(**{name.replace("-", "_"): tried[end] + local for name, tried in versions.TRIED.items()})
    assert versions.check_versions() == []
    assert "than" not in versions.described()


def test_the_bounds_are_those_of_the_metadata_and_hold_all_that_was_tried():
    for library, tried in versions.TRIED.items():
        assert versions.bounds(library)
        assert all(found in versions.bounds(library) for found in tried)


@pytest.mark.parametrize(
    ("library", "found"),
    [("transformers", "5.25.0"), ("transformers", "5.25.0.dev0"), ("transformers", "5.16.1"), ("torch", "2.10.0")],
)
def test_outside_the_bounds_nothing_runs_unless_somebody_insists(installed, monkeypatch, library, found):
    installed(**{library: found})
    model, method = build_llava(), make_method("vanilla")
    told = f'{library} {found} is outside what lmms-fixattn works with: pip install "{library}'
    with pytest.raises(RuntimeError, match=told) as refused, intervene(model, method):
        pass
    assert "set LMMS_FIXATTN_ANY_VERSION=1" in str(refused.value)
    monkeypatch.setenv("LMMS_FIXATTN_ANY_VERSION", "1")
    with pytest.warns(UserWarning, match="lmms-fixattn check"), intervene(model, method):
        pass
    assert versions.installed()["outside_bounds"] == library


def test_inside_the_bounds_what_was_not_tried_gets_a_remark(installed):
    installed(transformers="5.24.7", torch="2.99.0")
    remarks = versions.check_versions()
    assert ["transformers 5.24.7 is newer" in remarks[1], "torch 2.99.0 is newer" in remarks[0]] == [True, True]
    assert all("lmms-fixattn check" in remark for remark in remarks)
    assert versions.described().count("newer than the newest tried") == 2


def test_the_versions_that_run_these_tests_pass_without_a_warning(llava):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with intervene(llava, make_method("pai")):
            pass
