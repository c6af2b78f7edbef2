"""The packaged demo model, loaded once, with one scene."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="session")
def subject() -> Any:
    from lmms_fixattn.inspection.asking import Subject

    return Subject("demo")


@pytest.fixture(scope="session")
def prompt(subject: Any) -> Any:
    from lmms_fixattn.inspection.command import CAPTION_PROMPT, DEMO_IMAGE

    return subject.encode(str(DEMO_IMAGE), [CAPTION_PROMPT])
