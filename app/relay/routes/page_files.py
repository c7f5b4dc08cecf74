"""The page at `/` and its files, as they were built beforehand (app/page/built): read once, when the relay starts."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Final

import msgspec

from app.errors import not_found
from app.relay.http.request import Request

BUILT: Final = Path(__file__).resolve().parents[2] / "page" / "built"
PREFIX: Final = "/page/"
INDEX: Final = "index.html"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
}
# Nothing but the gateway's own files and data URLs of pictures is loaded, no text becomes markup or code, no other
# page may show this one in a frame.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cache-control": "no-cache",
}


class PageFile(msgspec.Struct, frozen=True):
    """One file as it is sent: plain, and compressed by gzip. `tag`: its ETag, quoted."""

    content_type: str
    body: bytes
    packed: bytes
    tag: str


class PageFiles:
    """Answers with the files of one folder and of nothing else: a name is looked up among those that were read."""

    def __init__(self, folder: Path = BUILT) -> None:
        """A folder that does not exist is a page that was not built: there are no files then."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in _TYPES)
        self._files = {path.relative_to(folder).as_posix(): _read(path) for path in paths}

    @property
    def is_built(self) -> bool:
        """Whether there is a page."""
        return INDEX in self._files

    @property
    def names(self) -> list[str]:
        """The files below `/page/`; the page itself is at `/` only, because its links are relative to that."""
        return [name for name in self._files if name != INDEX]

    async def welcome(self, request: Request) -> None:
        """The page for browsers; for everybody else what Ollama answers at its root, by which programs look for it."""
        if self.is_built and prefers_page(request.headers.get("accept", "")):
            _answer(request, self._files[INDEX], "accept, accept-encoding")
        else:
            headers = {"vary": _varies(request, "accept")}
            request.answer(200, b"Ollama is running", "text/plain; charset=utf-8", **headers)

    async def file(self, request: Request) -> None:
        """Answer with the file that the path names; Problem (404) for any other."""
        name = request.path.removeprefix(PREFIX)
        if name not in self.names:
            raise not_found()
        _answer(request, self._files[name], "accept-encoding")


def prefers_page(accept: str) -> bool:
    """Whether an `Accept` header wants HTML rather than plain text: a browser's does, one that takes anything not."""
    weights: dict[str, float] = {}
    for part in accept.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        quality = next((each[2:].strip() for each in parameters if each.startswith("q=")), "1")
        weights[kind] = float(quality) if quality.replace(".", "", 1).isdigit() and quality.isascii() else 0.0
    others = weights.get("text/plain", weights.get("text/*", weights.get("*/*", 0.0)))
    html = weights.get("text/html", 0.0)
    return html > 0 and html >= others


def _read(path: Path) -> PageFile:
    body = path.read_bytes()
    digest = hashlib.sha256(body).hexdigest()[:32]
    return PageFile(_TYPES[path.suffix], body, gzip.compress(body, 9, mtime=0), f'"{digest}"')


def _answer(request: Request, file: PageFile, vary: str) -> None:
    headers = {**_HEADERS, "etag": file.tag, "vary": _varies(request, vary)}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if file.tag in known or "*" in known:
        request.response.answer(304, {**request.base, **headers}, b"")
        return
    body = file.body
    if _takes_gzip(request.headers.get("accept-encoding", "")) and len(file.packed) < len(body):
        # The same ETag, made weak: the bytes differ, what they say does not.
        headers |= {"content-encoding": "gzip", "etag": f"W/{file.tag}"}
        body = file.packed
    request.answer(200, body, file.content_type, **headers)


def _varies(request: Request, vary: str) -> str:
    return f"{request.base['vary']}, {vary}" if "vary" in request.base else vary


def _takes_gzip(accepted: str) -> bool:
    each = [part.strip().lower().replace(" ", "") for part in accepted.split(",")]
    return any(part == "gzip" or (part.startswith("gzip;q=") and part[7:].strip("0.") != "") for part in each)
