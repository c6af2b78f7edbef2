"""A stand-in on the loopback for COCO's image host, with faults to order."""

from __future__ import annotations

import io
import socket
import struct
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler
from typing import Any

from loopback import LoopbackServer
from PIL import Image
from processes import LONGEST

Fault = Callable[[BaseHTTPRequestHandler, bytes], None]


@cache
def jpeg(image_id: int, width: int = 67, height: int = 41) -> bytes:
    """Return the JPEG that the server has for an image: noise, so that no part of it is empty."""
    file = io.BytesIO()
    Image.effect_noise((width, height), image_id % 97 + 20).convert("RGB").save(file, "jpeg", quality=90)
    return file.getvalue()


def status(code: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Fault:
    """Answer with a status."""

    def answer(handler: BaseHTTPRequestHandler, _whole: bytes) -> None:
        handler.send_response(code)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def sent(change: Callable[[bytes], bytes]) -> Fault:
    """Answer 200 with other bytes than the image's."""

    def answer(handler: BaseHTTPRequestHandler, whole: bytes) -> None:
        status(200, {"Content-Type": "image/jpeg"}, change(whole))(handler, whole)

    return answer


def truncated(handler: BaseHTTPRequestHandler, whole: bytes) -> None:
    """Promise the image and send half of it."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(whole)))
    handler.end_headers()
    handler.wfile.write(whole[: len(whole) // 2])
    handler.close_connection = True


def reset(handler: BaseHTTPRequestHandler, _whole: bytes) -> None:
    """Break the connection off without an answer."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()


def held_until(event: threading.Event) -> Fault:
    """Answer with the image, but not before an event."""

    def answer(handler: BaseHTTPRequestHandler, whole: bytes) -> None:
        event.wait(LONGEST)
        sent(bytes)(handler, whole)

    return answer


class ImageServer(LoopbackServer):
    """Serve any COCO val2014 image, by /val2014/COCO_val2014_NUMBER.jpg, while a `with` block lasts.

    Attributes:
        asked: how often each image was asked for.
        faults: what to answer in place of the image, by id: one of them a request, until they are used up.
        always: what to answer in place of any image; None: the image.
    """

    def __init__(self) -> None:
        self.asked: dict[int, int] = defaultdict(int)
        self.faults: dict[int, deque[Fault]] = defaultdict(deque)
        self.always: Fault | None = None
        self._lock = threading.Lock()

    def handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server._answer(self)

            def log_message(self, *_args: Any) -> None:
                pass

        return Handler

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        folder, _, name = handler.path.rpartition("/")
        number = name.removeprefix("COCO_val2014_").removesuffix(".jpg")
        if folder not in ("/val2014", "/moved/val2014") or not number.isdigit():
            status(404)(handler, b"")
            return
        image_id = int(number)
        with self._lock:
            self.asked[image_id] += 1
            fault = self.faults[image_id].popleft() if self.faults[image_id] else self.always
        (fault or sent(bytes))(handler, jpeg(image_id))
