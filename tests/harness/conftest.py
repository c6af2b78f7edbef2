"""What several tests of this room need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from loguru import logger


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What is logged."""
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{level}: {message}")
    yield lines
    logger.remove(sink)
