"""Settings of the machine that runs the tests must not choose their data."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("LMMS_FIXATTN_"):
            monkeypatch.delenv(name)
