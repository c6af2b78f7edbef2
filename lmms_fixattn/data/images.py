"""Open and digest an image: a file by its path, or the bytes that the hub delivers."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmms_fixattn.data import DataError

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

Source = str | Mapping[str, Any]  # a path, or as in datasets.Image(decode=False) {"bytes": ... or None, "path": ...}

_STRICT = threading.Lock()


def open_rgb(image_id: int, source: Source) -> PilImage:
    """Open and decode an image as RGB.

    Raises:
        DataError: the image is not there, is no image, or is cut short; names its id and path.
    """
    from PIL import Image, ImageFile

    data = _data(source)
    place = data if isinstance(data, str) else f"{len(data)} bytes of the hub"
    # lmms-eval tells PIL to pad truncated files with grey, which would be captioned as if nothing were wrong.
    with _STRICT:
        padded, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            with Image.open(data if isinstance(data, str) else io.BytesIO(data)) as image:
                picture: PilImage = image.convert("RGB")
                return picture
        except (OSError, SyntaxError, ValueError) as error:
            state = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
            raise DataError(f"image {image_id} {state}: {place}; restore it from the data set's archive") from error
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = padded


def digest(source: Source) -> str:
    """Return the sha256 of an image's bytes, so that equal data have equal digests wherever they lie."""
    data = _data(source)
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    stat = Path(data).stat()
    return _file_digest(data, stat.st_mtime_ns, stat.st_size)


def _data(source: Source) -> str | bytes:
    data: str | bytes = source if isinstance(source, str) else source["bytes"] or source["path"] or b""
    return data


@lru_cache(maxsize=65536)
def _file_digest(path: str, _mtime: int, _size: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
