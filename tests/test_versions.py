"""What happens outside the versions that were tried."""

from __future__ import annotations

import re
import warnings
from importlib.metadata import PackageNotFoundError

import pytest

from lmms_fixattn import __version__, versions


def test_the_installed_versions_are_named():
    found = versions.installed()
    assert found["lmms-fixattn"] == __version__
    assert {"python", "torch", "transformers", "lmms-eval"} <= set(found)


@pytest.mark.parametrize("local", ["", "+cu130", ".post1"])
def test_what_was_tried_passes_in_silence(monkeypatch, local):
    for end in (0, 1):
        monkeypatch.setattr(versions, "version", lambda name, end=end: versions.TRIED[name][end] + local)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            versions.check_versions()


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ("0.1", r"torch 0.1 \(older than the oldest tried, [\d.]+\)"),
        ("99.0", r"torch 99.0 \(newer than the newest tried, [\d.]+\)"),
    ],
)
def test_it_is_said_of_each_library_whether_it_was_tried(monkeypatch, found, said):
    monkeypatch.setattr(versions, "version", lambda name: found if name == "torch" else versions.TRIED[name][1])
    words = versions.described().split(", ")
    assert re.search(said, versions.described())
    assert len([word for word in words if word.endswith("(tried)")]) == 2


def test_a_library_that_is_not_there_is_described_as_such(monkeypatch):
    def nothing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(versions, "version", nothing)
    assert versions.described() == "lmms-eval (not installed), torch (not installed), transformers (not installed)"


def test_older_is_refused_and_newer_is_warned_about(monkeypatch):
    monkeypatch.setattr(versions, "version", lambda _: "0.1")
    with pytest.raises(RuntimeError, match=r"lmms-eval 0.1 is too old: lmms-fixattn needs 0.7.3 or newer; pip install"):
        versions.check_versions()
    monkeypatch.setattr(versions, "version", lambda _: "99.0")
    with pytest.warns(UserWarning, match=r"99.0 is newer than the newest that lmms-fixattn was tried with"):
        versions.check_versions()
