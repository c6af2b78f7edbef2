"""Documents' images, opened when a model asks for them."""

from __future__ import annotations

from typing import Any

from lmms_fixattn.data.images import open_rgb


def doc_to_visual(doc: dict[str, Any]) -> list[Any]:
    """Return the document's one image, RGB; data.images says what is raised."""
    return [open_rgb(doc["image_id"], doc["image"])]
