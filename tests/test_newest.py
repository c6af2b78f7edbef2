"""How .ci/newest finds the package to blame: the parts that need no environment."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "newest.py"


@pytest.fixture(scope="module")
def newest():
    spec = importlib.util.spec_from_file_location("newest", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["newest"] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    yield module
    del sys.modules["newest"]


@pytest.fixture
def environment(newest, tmp_path, monkeypatch):
    """An environment that runs this Python, in a project without tests."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.setattr(newest, "ROOT", tmp_path)
    return newest.Environment(tmp_path)


def trial(newest, name, failed="", moved=None):
    return newest.Trial(name, frozenset(moved or {name}), frozenset(failed))


def test_inside_the_bounds_pip_is_asked_for_what_is_declared_and_beyond_them_for_names(newest):
    declared = ["filelock<4", "huggingface_hub>=2,<3", "nltk", 'pytest>=9; extra == "dev"', 'sphinx; extra == "docs"']
    inside = newest.to_install(declared, beyond_bounds=False)
    assert inside == [*newest.TOOLS, "filelock<4", "huggingface_hub>=2,<3", "nltk", "pytest>=9"]
    beyond = newest.to_install(declared, beyond_bounds=True)
    assert beyond == [*newest.TOOLS, "filelock", "huggingface-hub", "nltk", "pytest"]


def test_only_what_is_in_both_at_another_version_has_moved(newest):
    assert newest.moved({"a": "1", "b": "1", "gone": "1"}, {"a": "1", "b": "1.0.1", "new": "1"}) == {"b"}


def test_a_file_that_cannot_be_imported_stands_for_its_tests(newest):
    single = frozenset({"tests/a.py::one", "tests/a.py::two", "tests/b.py::one"})
    assert newest.still_failing(single, ["tests/a.py::two"]) == {"tests/a.py::two"}
    assert newest.still_failing(single, ["tests/a.py"]) == {"tests/a.py::one", "tests/a.py::two"}
    assert newest.still_failing(frozenset({"tests/a.py"}), ["tests/a.py::three"]) == {"tests/a.py"}
    assert newest.still_failing(single, ["tests/a.py::three"]) == set()


def test_the_search_goes_on_until_every_failure_has_a_culprit_and_what_the_project_names_was_tried(newest):
    failed, direct = frozenset("xy"), ["torch", "filelock"]
    half = [trial(newest, "torch", "x", {"torch", "triton"})]
    assert newest.unexplained(failed, half) == {"y"}
    assert newest.worth_trying("filelock", direct, failed, half)
    assert newest.worth_trying("fsspec", direct, failed, half)
    whole = [*half, trial(newest, "filelock", "y")]
    assert not newest.unexplained(failed, whole)
    assert newest.worth_trying("torch", direct, failed, whole)
    assert not newest.worth_trying("fsspec", direct, failed, whole)


def test_what_moved_along_without_a_failure_is_not_tried_alone(newest):
    passed = [trial(newest, "torch", "", {"torch", "triton"})]
    assert not newest.worth_trying("triton", ["triton"], frozenset("x"), passed)


def test_a_part_of_an_upgrade_that_explains_its_failures_is_blamed_in_its_place(newest):
    whole = trial(newest, "transformers", "xy", {"transformers", "tokenizers"})
    part = trial(newest, "tokenizers", "xy")
    passed = trial(newest, "numpy")
    assert newest.culprits([whole, passed, part]) == [part]
    half = trial(newest, "tokenizers", "x")
    assert newest.culprits([whole, passed, half]) == [whole, half]


def test_what_pip_cannot_install_ends_in_its_words_and_no_verdict(newest, environment):
    with pytest.raises(newest.NoVerdictError, match="ERROR: no such package"):
        environment.run("-c", "import sys; print('noise\\nERROR: no such package', file=sys.stderr); sys.exit(1)")


@pytest.mark.system
def test_failures_are_read_from_the_tests_themselves_and_run_again_alone(newest, environment):
    tests, broken = environment.folder / "test_it.py", environment.folder / "test_broken.py"
    tests.write_text("def test_a(): assert False\ndef test_b(): assert False\ndef test_c(): pass\n")
    broken.write_text("import nowhere\n")
    failed = environment.test([])
    assert failed == {"test_it.py::test_a", "test_it.py::test_b", "test_broken.py"}
    tests.write_text("def test_a(): assert False\ndef test_b(): pass\ndef test_c(): assert False\n")
    broken.write_text("def test_d(): pass\n")
    assert environment.test_again(failed, []) == {"test_it.py::test_a"}
    tests.write_text("def test_a(): pass\ndef test_b(): pass\n")
    assert environment.test_again(failed, []) == set()


@pytest.mark.system
def test_a_session_that_cannot_start_is_one_failure(newest, environment):
    (environment.folder / "test_it.py").write_text("def test_a(): pass\n")
    (environment.folder / "conftest.py").write_text("import nowhere\n")
    failed = environment.test([])
    assert failed == {newest.SESSION}
    assert environment.test_again(failed, []) == failed
    (environment.folder / "conftest.py").write_text("")
    assert environment.test_again(failed, []) == set()
