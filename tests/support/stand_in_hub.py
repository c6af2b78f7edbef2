"""A stand-in on the loopback for the Hugging Face hub: what its clients ask, answered as the hub does.

Large files are redirected to another address, as to the hub's LFS storage; that of Xet is left out, which clients take
only where a header offers it. Repositories hold their files as the real ones do, see `hub_repositories`.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from loopback import LoopbackServer, hang

Fault = Callable[["Handler", bytes], None]
_LARGE = (".safetensors", ".parquet", ".model")


@dataclass(frozen=True)
class Repository:
    """A repository at its only commit.

    Attributes:
        kind: models or datasets.
        files: content by path.
    """

    kind: str
    name: str
    files: Mapping[str, bytes]

    @cached_property
    def commit(self) -> str:
        return hashlib.sha1(json.dumps({path: self.blob(path) for path in sorted(self.files)}).encode()).hexdigest()

    def blob(self, path: str) -> str:
        """Return git's id of a file."""
        content = self.files[path]
        return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()

    def sha256(self, path: str) -> str | None:
        """Return the digest by which a large file is stored, None for a small one."""
        return hashlib.sha256(self.files[path]).hexdigest() if path.endswith(_LARGE) else None

    def entry(self, path: str) -> dict[str, Any] | None:
        """Return what the hub says of a file or folder; None where there is none."""
        if path in self.files:
            size, sha256 = len(self.files[path]), self.sha256(path)
            stored = {"lfs": {"oid": sha256, "size": size, "pointerSize": 134}} if sha256 else {}
            return {"type": "file", "oid": self.blob(path), "size": size, "path": path, **stored}
        if any(name.startswith(f"{path}/") for name in self.files):
            return {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0, "path": path}
        return None

    def tree(self, folder: str, recursive: bool) -> list[dict[str, Any]]:
        """Return the entries of a folder, "" for the whole."""
        start = f"{folder}/" if folder else ""
        inside = [name.removeprefix(start) for name in self.files if name.startswith(start)]
        folders = {"/".join(name.split("/")[:depth]) for name in inside for depth in range(1, name.count("/") + 1)}
        paths = sorted({*inside, *folders} if recursive else {name.split("/")[0] for name in inside})
        return [entry for path in paths if (entry := self.entry(f"{start}{path}"))]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    hub: StandInHub

    def do_GET(self) -> None:
        self.hub._answer(self)

    do_HEAD = do_POST = do_GET  # noqa: N815

    def log_message(self, *_args: Any) -> None:
        pass

    def send(self, status: int, body: bytes = b"", **headers: Any) -> None:
        """Send a whole answer; underscores in the names of headers stand for hyphens."""
        self.send_response(status)
        for name, value in {"Content_Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_file(self, body: bytes, **headers: Any) -> None:
        """Send a file, or the rest of it that a Range asks for."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self.send(200, body, Accept_Ranges="bytes", **headers)
            return
        start, end = int(asked[1]), min(int(asked[2] or len(body) - 1), len(body) - 1)
        part = f"bytes {start}-{end}/{len(body)}"
        self.send(206, body[start : end + 1], Accept_Ranges="bytes", Content_Range=part, **headers)


def status(code: int, **headers: Any) -> Fault:
    """Answer with a status."""
    return lambda handler, _body: handler.send(code, **headers)


def damaged(handler: Handler, body: bytes) -> None:
    """Send the whole length, with bits of its second half turned over."""
    half = len(body) // 2
    handler.send_file(body[:half] + bytes(255 - byte for byte in body[half:]))


def moved(handler: Handler, _body: bytes) -> None:
    """Send the client to where the file is."""
    handler.send(307, Location=handler.path)


def truncated(handler: Handler, body: bytes) -> None:
    """Promise the file, send half of it and close."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True


def in_pieces(handler: Handler, body: bytes) -> None:
    """Send the file in four pieces, each with a pause before it."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    quarter = len(body) // 4 + 1
    for start in range(0, len(body), quarter):
        time.sleep(0.1)
        handler.wfile.write(body[start : start + quarter])
        handler.wfile.flush()


def halfway(handler: Handler, body: bytes) -> None:
    """Promise the file, send half of it, and no more until the server is closed."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.wfile.flush()
    hang(handler)


class StandInHub(LoopbackServer):
    """Serve repositories while a `with` block lasts.

    Attributes:
        asked: how often each file's content was asked for, by repository and path, as "name/path".
        faults: what to answer to the next requests for a file's content, one a request.
        tokens: the logins that were sent.
    """

    def __init__(self, *repositories: Repository) -> None:
        self.repositories = {(repository.kind, repository.name): repository for repository in repositories}
        self.asked: Counter[str] = Counter()
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)
        self.tokens: set[str] = set()
        self.unknown: list[str] = []
        """Requests that the stand-in has no answer for: the real hub may have one."""
        self._lock = threading.Lock()
        self._stored = {
            sha256: (f"{repository.name}/{path}", content)
            for repository in repositories
            for path, content in repository.files.items()
            if (sha256 := repository.sha256(path))
        }

    @property
    def storage(self) -> str:
        """Where large files are: another host, as on the hub, to whose address clients take the head of an answer."""
        return f"http://localhost:{self._server.server_port}"

    def handler(self) -> type[Handler]:
        class Own(Handler):
            hub = self

        return Own

    def _answer(self, handler: Handler) -> None:
        url = urlsplit(handler.path)
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        if token := handler.headers.get("Authorization"):
            self.tokens.add(token)
        path = unquote(url.path)
        if stored := re.fullmatch("/lfs/([0-9a-f]{64})", path):
            self._send_content(handler, *self._stored[stored[1]])
        elif found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(.*))?", path):
            self._answer_api(handler, found[1], found[2], found[3] or "", parse_qs(url.query), body)
        elif found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(handler, "datasets" if found[1] else "models", found[2], found[3], found[4])
        else:
            self.unknown.append(f"{handler.command} {handler.path}")
            handler.send(404, X_Error_Message="Not found")

    def _repository(self, handler: Handler, kind: str, name: str, revision: str) -> Repository | None:
        repository = self.repositories.get((kind, name))
        if repository is None:
            handler.send(401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        elif revision not in ("main", repository.commit):
            handler.send(404, X_Error_Code="RevisionNotFound", X_Error_Message=f"Invalid rev id: {revision}")
            return None
        return repository

    def _answer_api(
        self, handler: Handler, kind: str, name: str, rest: str, query: Mapping[str, list[str]], body: bytes
    ) -> None:
        what, _, rest = rest.partition("/")
        revision, _, folder = rest.partition("/")
        repository = self._repository(handler, kind, name, revision or "main")
        if repository is None:
            return
        if what in ("", "revision"):
            siblings = [{"rfilename": path} for path in repository.files]
            answer: Any = {"id": name, "sha": repository.commit, "private": False, "gated": False, "siblings": siblings}
        elif what == "tree":
            answer = repository.tree(folder, query.get("recursive", ["false"])[0].lower() == "true")
            if folder and not answer:
                handler.send(404, X_Error_Code="EntryNotFound", X_Error_Message=f"{folder} does not exist")
                return
        elif what == "paths-info":
            asked = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
            answer = [entry for path in asked if (entry := repository.entry(path))]
        else:
            self.unknown.append(f"{handler.command} {handler.path}")
            handler.send(404, X_Error_Message="Not found")
            return
        handler.send(200, json.dumps(answer).encode(), Content_Type="application/json")

    def _resolve(self, handler: Handler, kind: str, name: str, revision: str, path: str) -> None:
        repository = self._repository(handler, kind, name, revision)
        if repository is None:
            return
        commit = {"X_Repo_Commit": repository.commit}
        if path not in repository.files:
            handler.send(404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found", **commit)
        elif sha256 := repository.sha256(path):
            linked = {"X_Linked_Etag": f'"{sha256}"', "X_Linked_Size": len(repository.files[path])}
            handler.send(302, Location=f"{self.storage}/lfs/{sha256}", **linked, **commit)
        elif handler.command == "HEAD":
            handler.send(200, repository.files[path], ETag=f'"{repository.blob(path)}"', **commit)
        else:
            etag = {"ETag": f'"{repository.blob(path)}"'}
            self._send_content(handler, f"{name}/{path}", repository.files[path], **etag, **commit)

    def _send_content(self, handler: Handler, name: str, content: bytes, **headers: Any) -> None:
        if handler.command == "HEAD":
            handler.send_file(content, **headers)
            return
        with self._lock:
            self.asked[name] += 1
            fault = self.faults[name].popleft() if self.faults[name] else None
        if fault is None:
            handler.send_file(content, **headers)
        else:
            fault(handler, content)
