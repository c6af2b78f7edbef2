"""Open and digest an image: a file by its path, or the bytes that the hub delivers.

Images are taken as LLaVA's processor takes them: an EXIF orientation is not applied, transparency is dropped. What has
more than 8 bits a channel is scaled to 8, where PIL alone would clip it to white.
"""

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

MOST_PIXELS = 8000 * 8000
"""Of a picture: one of 400 bytes may claim as many as its format can say, and take seconds and gigabytes to decode."""

_STRICT = threading.Lock()
_BITS, _PHOTOMETRIC = 258, 262  # tags of a TIFF


class PictureError(ValueError):
    """A picture cannot be shown to a model: the message says what it is or has, after "picture NAME"."""


def open_rgb(image_id: int, source: Source) -> PilImage:
    """Open and decode an image as RGB.

    Raises:
        DataError: the image is not there, is no image, is cut short, or cannot be shown (:func:`read_rgb`); names its
            id and path.
    """
    data = _data(source)
    place = data if isinstance(data, str) else f"{len(data)} bytes of the hub"
    try:
        return read_rgb(data)
    except PictureError as error:
        raise DataError(f"image {image_id} {error}: {place}; restore it from the data set's archive") from error


def read_rgb(data: str | bytes) -> PilImage:
    """Return the picture of a file, by its path or content, in RGB (:func:`to_rgb`).

    Raises:
        PictureError: it is missing, broken, cut short, too large or cannot be shown.
    """
    from PIL import Image, ImageFile

    # lmms-eval tells PIL to pad truncated files with grey, which would be captioned as if nothing were wrong.
    with _STRICT:
        padded, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            with Image.open(data if isinstance(data, str) else io.BytesIO(data)) as image:
                return to_rgb(image)
        except PictureError:
            raise
        except Image.DecompressionBombError as error:
            raise PictureError(f"is too large ({error}); make it smaller") from error
        except FileNotFoundError as error:
            raise PictureError("is missing") from error
        except Exception as error:  # Pillow's readers raise anything on a damaged file
            raise PictureError(f"cannot be read ({error})") from error
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = padded


def to_rgb(image: PilImage) -> PilImage:
    """Return an opened image in RGB, 8 bits a channel. Grey of 16 bits is divided by 257, so that 65535 becomes 255.

    Raises:
        PictureError: it has more than MOST_PIXELS; or nothing says which of its values are black and white: floating
            point, 32 bits, or grey of a TIFF with 9 to 15 bits or 0 for white.
        OSError: it cannot be read to its end.
    """
    if image.width * image.height > MOST_PIXELS:
        raise PictureError(
            f"is too large ({image.width} x {image.height} pixels, more than {MOST_PIXELS // 10**6} million); make it "
            "smaller"
        )
    depth = "floating-point" if image.mode == "F" else "32-bit"
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        raise PictureError(f"has {depth} values, of which none is known to be white; save it with 8 bits a channel")
    if not image.mode.startswith("I"):
        return image.convert("RGB")
    import numpy as np
    from PIL import Image

    tags = getattr(image, "tag_v2", None)  # of a TIFF, whose bits and white PIL does not heed beyond 8 bits
    if tags is not None and (tags.get(_BITS), tags.get(_PHOTOMETRIC)) != ((16,), 1):
        raise PictureError("is grey of more than 8 bits in an unusual form; save it with 8 bits")
    grey = np.rint(np.asarray(image).astype(np.float64) / 257).clip(0, 255)
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


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
