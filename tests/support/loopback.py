"""A server on the loopback, for as long as a `with` block lasts."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from processes import LONGEST
from typing_extensions import Self


@contextmanager
def refusing_address() -> Iterator[str]:
    """Keep an address at which every connection is refused, and which no other process can take meanwhile."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))  # and does not listen
        yield f"http://127.0.0.1:{kept.getsockname()[1]}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    closing: threading.Event

    def handle_error(self, *_args: Any) -> None:
        pass  # a client that was killed, or a connection that a fault broke off


def hang(handler: BaseHTTPRequestHandler, *_content: object) -> None:
    """Answer nothing until the server is closed."""
    handler.server.closing.wait(LONGEST)  # type: ignore[attr-defined]
    handler.close_connection = True


class LoopbackServer:
    """Answer requests by the handler of a subclass (:meth:`handler`)."""

    def handler(self) -> type[BaseHTTPRequestHandler]:
        """Return what answers a request."""
        raise NotImplementedError

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), self.handler())
        self._server.closing = threading.Event()
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
