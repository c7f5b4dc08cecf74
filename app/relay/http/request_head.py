"""The head of one request: what of it is refused, and the request that came whole."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Final

import httptools

from app.errors import Problem

if TYPE_CHECKING:
    from app.relay.http.response import ClientResponse

MAX_HEADER_LINES: Final = 256
MAX_HEAD_BYTES: Final = 64 * 1024
# Up to this size of what was read of a head, none of its bounds can be passed.
SMALL_HEAD_BYTES: Final = MAX_HEAD_BYTES // 2
# A request whose body is announced as larger than this, or not announced, is made a task of.
HELD_BYTES: Final = 32 * 1024


class HeldRequest:
    """One request as it was read. `headers`: names in lower case; `body`: whole once it is there."""

    __slots__ = ("body", "headers", "method", "response", "target")

    def __init__(
        self, response: ClientResponse, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]]
    ) -> None:
        self.response = response
        self.method = method
        self.target = target
        self.headers = headers
        self.body = b""

    def __repr__(self) -> str:
        return f"<HeldRequest {self.method!r} {len(self.body)} bytes>"


class BodySize(Enum):
    """What a request's head says of its body."""

    SMALL = "small"
    UNKNOWN = "unknown"  # or large
    ASKS_FIRST = "asks first"  # its client waits to be told to send it (`expect: 100-continue`)


def check(
    version: str, target: bytes, headers: Sequence[tuple[bytes, bytes]], *, may_be_large: bool = True
) -> BodySize:
    """What there is to know of the body; Problem (400, 431) for a head that is not a request's. `may_be_large`: whether
    its size has to be looked at."""
    if version != "1.1" and version != "1.0":
        raise invalid_http()
    if len(headers) > MAX_HEADER_LINES:
        raise too_large()
    if may_be_large and (len(target) > MAX_HEAD_BYTES or sum(map(_size, headers)) > MAX_HEAD_BYTES):
        raise too_large()
    fields = dict(headers)
    is_repeated = len(fields) < len(headers)
    hosts = sum([name == b"host" for name, _ in headers]) if is_repeated else int(b"host" in fields)
    if hosts != 1 and (hosts > 1 or version == "1.1"):
        raise Problem(400, "invalid_host", "A request has exactly one Host header.")
    size = BodySize.SMALL
    if b"transfer-encoding" in fields:
        size = BodySize.UNKNOWN
        values = [value.lower() for name, value in headers if name == b"transfer-encoding"]
        if version == "1.0" or any(value != b"chunked" for value in values):
            raise invalid_http()
    elif int(fields.get(b"content-length", b"0")) > HELD_BYTES:  # the parser takes digits only
        size = BodySize.UNKNOWN
    if b"expect" in fields and any(name == b"expect" and value.lower() == b"100-continue" for name, value in headers):
        size = BodySize.ASKS_FIRST
    if not (target.startswith(b"/") or target == b"*") or not target.isascii():
        raise Problem(400, "invalid_path", "The request's target must be a path that starts with '/'.")
    return size


def _size(header: tuple[bytes, bytes]) -> int:
    return len(header[0]) + len(header[1]) + len(": \r\n")


def too_large() -> Problem:
    """431 for more of a head than is read."""
    message = f"The request's headers are larger than {MAX_HEAD_BYTES} bytes or more than {MAX_HEADER_LINES} lines."
    return Problem(431, "headers_too_large", message)


def refusal(error: httptools.HttpParserError) -> Problem:
    """The problem for what the parser, or a callback of it, has refused."""
    for cause in (error.__cause__, error.__context__):
        if isinstance(cause, Problem):
            return cause
    return invalid_http()


def invalid_http() -> Problem:
    """400 for what is no HTTP."""
    return Problem(400, "invalid_http", "This is not a valid HTTP/1.1 request.")
