"""A server with the Hugging Face hub's API, as far as downloads need it: the files of one folder, by commit."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

PIECE = 256 * 1024
LARGE = 100 * 1024  # what git would not keep itself


class FakeHub:
    """Repositories by name, each a folder at one commit. `served` counts the bytes of files that were sent."""

    def __init__(self) -> None:
        self.folders: dict[str, tuple[str, Path]] = {}
        self.token: str | None = None  # without it a gated repository's files are refused
        self.stops_at: int | None = None  # of served bytes: it then sends nothing until `goes_on`
        self.goes_on = threading.Event()
        self.stopped = threading.Event()
        self.served = 0
        self.ranges: list[str] = []
        self.asked: list[str] = []
        self.sizes: dict[str, int] = {}  # what it says of files, instead of how large they are
        self.overrides: dict[str, dict[str, Any]] = {}  # what it reports of files instead
        self.refuses_tokens = False
        self.fails_with = 0
        self.lock = threading.Lock()
        hub = self

        class Handler(_Handler):
            def setup(self) -> None:
                super().setup()
                self.hub = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, name: str, folder: Path, commit: str = "a" * 40) -> None:
        """Add this repository; one that it has already gets a new commit."""
        self.folders[name] = commit, folder

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.goes_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        with contextlib.suppress(ConnectionError):
            self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        with self.hub.lock:
            self.hub.asked.append(f"{self.command} {path}")
        api, _, rest = path.partition("/api/models/")
        if self.hub.fails_with:
            self._refuse(self.hub.fails_with, "")
        elif self.hub.refuses_tokens and "authorization" in self.headers:
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif not api and "/tree/" in rest:
            name, _, revision = rest.partition("/tree/")
            self._list(name, revision)
        elif not api and rest:
            name, _, revision = rest.partition("/revision/")
            self._describe(name, revision or "main")
        else:
            name, _, rest = path[1:].partition("/resolve/")
            revision, _, file = rest.partition("/")
            self._send(name, revision, file)

    def _found(self, name: str, revision: str) -> tuple[str, Path] | None:
        repository = self.hub.folders.get(name)
        if repository is None:
            self._refuse(404, "RepoNotFound")
        elif revision not in ("main", repository[0]):
            self._refuse(404, "RevisionNotFound")
        else:
            return repository
        return None

    def _describe(self, name: str, revision: str) -> None:
        repository = self._found(name, revision)
        if repository is None:
            return
        commit, folder = repository
        files = [_described(folder, path) for path in sorted(folder.rglob("*")) if path.is_file()]
        for file in files:
            file["size"] = self.hub.sizes.get(file["rfilename"], file["size"])
            file.update(self.hub.overrides.get(file["rfilename"], {}))
        info: dict[str, Any] = {"id": name, "modelId": name, "sha": commit, "siblings": files, "gated": False}
        self._send_json({**info, "private": False, "tags": [], "downloads": 0, "likes": 0})

    def _list(self, name: str, revision: str) -> None:
        repository = self._found(name, revision)
        if repository is None:
            return
        files = [_described(repository[1], path) for path in sorted(repository[1].rglob("*")) if path.is_file()]
        self._send_json(
            [{"type": "file", "path": one["rfilename"], "size": one["size"], "oid": one["blobId"]} for one in files]
        )

    def _send_json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send(self, name: str, revision: str, file: str) -> None:
        repository = self._found(name, revision)
        if repository is None:
            return
        if self.hub.token is not None and self.headers.get("authorization") != f"Bearer {self.hub.token}":
            self._refuse(403 if self.headers.get("authorization") else 401, "GatedRepo")
            return
        commit, folder = repository
        path = folder / file
        if not path.is_file():
            self._refuse(404, "EntryNotFound")
            return
        size, begin = path.stat().st_size, 0
        if (asked := self.headers.get("range")) is not None:
            begin = int(asked.removeprefix("bytes=").partition("-")[0])
            with self.hub.lock:
                self.hub.ranges.append(asked)
        self.send_response(206 if begin else 200)
        self.send_header("x-repo-commit", commit)
        self.send_header("etag", f'"{_etag(path)}"')
        self.send_header("accept-ranges", "bytes")
        self.send_header("content-length", str(size - begin))
        if begin:
            self.send_header("content-range", f"bytes {begin}-{size - 1}/{size}")
        self.end_headers()
        if self.command == "GET":
            for piece in _pieces(path, begin):
                self._wait_where_it_stops(len(piece))
                self.wfile.write(piece)

    def _wait_where_it_stops(self, size: int) -> None:
        with self.hub.lock:
            self.hub.served += size
            is_over = self.hub.stops_at is not None and self.hub.served > self.hub.stops_at
        if is_over:
            self.hub.stopped.set()
            self.hub.goes_on.wait()

    def _refuse(self, status: int, code: str, message: str = "") -> None:
        self.send_response(status)
        self.send_header("x-error-message", message)
        self.send_header("x-error-code", code)
        self.send_header("content-length", "0")
        self.end_headers()


def _pieces(path: Path, begin: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(begin)
        while piece := file.read(PIECE):
            yield piece


def _described(folder: Path, path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    entry: dict[str, Any] = {"rfilename": str(path.relative_to(folder)), "size": size, "blobId": _git(path)}
    if size > LARGE:
        entry["lfs"] = {"sha256": _etag(path), "size": size, "pointerSize": 134}
    return entry


def _etag(path: Path) -> str:
    if path.stat().st_size <= LARGE:
        return _git(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
