"""The head of one request: what of it is refused, and the request that came whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import httptools

from app.errors import Problem

if TYPE_CHECKING:
    from app.relay.http.response import ClientResponse

MAX_HEADER_LINES: Final = 256
MAX_HEAD_BYTES: Final = 64 * 1024
# A request whose body is announced as larger than this, or not announced, is made a task of.
HELD_BYTES: Final = 32 * 1024


class HeldRequest(NamedTuple):
    """One request as it was read. `headers`: names in lower case; `pieces`: of its body."""

    response: ClientResponse
    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    pieces: list[bytes]

    @property
    def body(self) -> bytes:
        """The whole body, once it is there."""
        return self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)


def check(version: str, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether it is known that the body is small; Problem (400, 431) for a head that is not a request's."""
    if version not in ("1.0", "1.1"):
        raise invalid_http()
    hosts = 0
    is_small = True
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            is_small = int(value) <= HELD_BYTES  # the parser takes digits only
        elif name == b"transfer-encoding":
            is_small = False
            if value.lower() != b"chunked" or version == "1.0":
                raise invalid_http()
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise Problem(400, "invalid_host", "A request has exactly one Host header.")
    if len(target) > MAX_HEAD_BYTES:
        raise too_large()
    if not (target.startswith(b"/") or target == b"*") or not target.isascii():
        raise Problem(400, "invalid_path", "The request's target must be a path that starts with '/'.")
    return is_small


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
