"""Ask an image host for one file: as often as it takes, and never taking part of an image for the whole."""

from __future__ import annotations

import io
import threading
from contextlib import suppress
from typing import Any

from lmms_fixattn.data.images import PictureError, read_rgb

HOST = "http://images.cocodataset.org"
"""Where COCO's own annotation files say that its images are (coco_url)."""

_ATTEMPTS = 5
_BACKOFF = 0.5  # seconds before the second attempt, doubled with each further one, unless the host says when
_LONGEST_WAIT = 120.0
_TIMEOUT = (10.0, 30.0)  # seconds to connect, and from one piece to the next
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses that may be another a moment later
_SCAN, _END = b"\xff\xda", b"\xff\xd9"  # JPEG's start of a scan, end of the image


class HostError(Exception):
    """The host is out of reach, or has too much to do; `after` is what it says when to come again."""

    def __init__(self, reason: str, after: str | None = None) -> None:
        super().__init__(reason)
        self.after = after


class ImageError(Exception):
    """The host is there, and what it sent is not the image."""


class RefusedError(ImageError):
    """The host says that it has no such image, or not for us: asking again would not help."""


def get(session: Any, url: str, size: tuple[int, int] | None, stopped: threading.Event) -> bytes:
    """Return the bytes of a JPEG that decodes, after several attempts where it takes them.

    Args:
        session: a requests.Session; it follows redirects and uses the proxy of the environment.
        size: its width and height in pixels, where they are known.
        stopped: ends the waiting between attempts, and the attempts.

    Raises:
        HostError: no answer, or none but "too busy"; other images are likely to fare the same.
        ImageError: the host does not have it, or what it sends is no JPEG, is cut short or has another size.
    """
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, stop_any, stop_when_event_set
    from tenacity.nap import sleep_using_event

    attempts = Retrying(
        stop=stop_any(stop_after_attempt(_ATTEMPTS), stop_when_event_set(stopped)),
        wait=_wait,
        sleep=sleep_using_event(stopped),
        retry=retry_if_exception(lambda e: isinstance(e, HostError | ImageError) and not isinstance(e, RefusedError)),
        reraise=True,
    )
    data: bytes = attempts(_ask, session, url, size)
    return data


def fault(data: bytes, size: tuple[int, int] | None) -> str | None:
    """Say what keeps bytes from being a whole JPEG of this size, as far as it shows without decoding; None: nothing.

    What decoders let pass is caught here: the lack of the last two bytes, and zeros in place of a tail.
    """
    from PIL import Image

    if data.rfind(_END) <= data.rfind(_SCAN):
        return f"no whole JPEG, {len(data)} bytes that begin with {data[:12]!r}"
    if size is None:
        return None
    try:
        with Image.open(io.BytesIO(data)) as image:
            found = image.size
    except (OSError, SyntaxError, ValueError) as error:
        return f"no JPEG ({error})"
    return None if found == size else f"{found[0]} x {found[1]} pixels, not {size[0]} x {size[1]} as COCO says"


def _ask(session: Any, url: str, size: tuple[int, int] | None) -> bytes:
    import requests

    try:
        response = session.get(url, timeout=_TIMEOUT)
    except requests.exceptions.ChunkedEncodingError as error:
        raise ImageError(f"broke off ({_innermost(error)})") from error
    except requests.exceptions.RequestException as error:
        raise HostError(f"cannot be reached ({_innermost(error)})") from error
    if not response.ok:
        status = f"answered {response.status_code} {response.reason}"
        if response.status_code in _PASSING:
            raise HostError(status, response.headers.get("Retry-After"))
        raise RefusedError(status)
    data: bytes = response.content
    if found := fault(data, size):
        raise ImageError(f"sent {found}")
    try:
        read_rgb(data)
    except PictureError as error:
        raise ImageError(f"sent a picture that {error}") from error
    return data


def _wait(state: Any) -> float:
    """Return the seconds until the next attempt."""
    from tenacity import wait_exponential, wait_random
    from urllib3 import Retry
    from urllib3.exceptions import InvalidHeader

    after = getattr(state.outcome.exception(), "after", None)
    if after is not None:
        with suppress(InvalidHeader):
            return min(float(Retry().parse_retry_after(after)), _LONGEST_WAIT)
    backoff = wait_exponential(multiplier=_BACKOFF, max=_LONGEST_WAIT) + wait_random(0, _BACKOFF)
    return float(backoff(state))


def _innermost(error: BaseException) -> str:
    """Return what an exception of requests says at its core: those around it repeat it with addresses in memory."""
    while isinstance(inner := getattr(error, "reason", error.args[0] if error.args else None), BaseException):
        error = inner
    return " ".join(str(error).rpartition(": ")[2].split()) or type(error).__name__
