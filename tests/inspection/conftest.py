"""The packaged demo model, loaded once, with one scene."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="session")
def session() -> Any:
    from lmms_fixattn.inspection.session import Session

    return Session("demo")


@pytest.fixture(scope="session")
def prompt(session: Any) -> Any:
    from lmms_fixattn.inspection.command import CAPTION_PROMPT, DEMO_IMAGE

    return session.encode(str(DEMO_IMAGE), [CAPTION_PROMPT])
