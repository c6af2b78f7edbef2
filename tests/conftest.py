"""What every test may use: tiny models, and the reference data where it is at hand."""

from __future__ import annotations

import gc
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run, and no verdict on the machine's speed.
settings.register_profile("project", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# One thread, also in processes of the tests: the models are tiny, and wait longer for threads than these save.
assert "torch" not in sys.modules, "torch was imported before the number of its threads is set"
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_finish() -> None:
    """Take what was imported for the tests out of the garbage collector's rounds, which model after model asks for."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of outputs of released code, which lies beside the checkout on machines that have it."""
    path = Path(__file__).resolve().parents[2] / "shared" / "reference"
    if not path.is_dir():
        pytest.skip("no reference data beside the checkout")
    return path


@pytest.fixture(scope="session")
def llava() -> Any:
    """A tiny LLaVA with one key head a query head."""
    from tiny_llava import build_llava

    return build_llava()


@pytest.fixture(scope="session")
def grouped_llava() -> Any:
    """A tiny LLaVA with grouped-query attention: two query heads a key head."""
    from tiny_llava import build_llava

    return build_llava(key_heads=3, seed=1)


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Say where a miniature of a checkpoint on the hub is, by its name; it is written when it is first asked for."""
    from miniature_checkpoints import write

    root = tmp_path_factory.mktemp("miniatures")
    return cache(lambda name: write(name, root / name))
