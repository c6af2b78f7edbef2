"""Where documents come from: frozen image lists, COCO-format folders, POPE questions, the hub."""

from __future__ import annotations

from lmms_fixattn.errors import UserError


class DataError(UserError):
    """Say in one line which data is missing or wrong, what was expected and how to get it."""
