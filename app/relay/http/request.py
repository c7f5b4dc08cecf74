"""One HTTP request at the data listener: what it says of itself, and the one way to answer it."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

import msgspec

from app.dialects.client_api import ResponseEncoder
from app.errors import JSON, Problem, unauthorized
from app.keys import find
from app.relay.http.protocol import EXTENSION
from app.relay.http.response import ClientResponse
from app.table import Key, Table

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
_JSON_TYPE = re.compile(r"application/(?:[a-z0-9.+-]+\+)?json\Z")
# What of a client's request reaches an engine besides the body; never Authorization, Cookie or Origin.
FORWARDED = ("traceparent", "tracestate")

MAX_NAMED = 32

# What a page's script may read of an answer's headers: its SDK retries by them.
_SHOWN = (
    "x-request-id, retry-after, retry-after-ms, x-should-retry, openai-processing-ms, "
    "x-modelport-model, x-modelport-backend, x-modelport-attempts, "
    "x-modelport-dropped-params, x-modelport-adjusted-params, "
    "x-modelport-load-ms, x-modelport-prompt-ms, x-modelport-generate-ms"
)


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class Request:
    """Made once per request; header names are lower case."""

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive, table: Table) -> None:
        self.line: ClientResponse = scope["extensions"].pop(
            EXTENSION
        )  # it leads back to the scope: a circle less to collect
        self.method: str = scope["method"]
        self.path: str = scope["raw_path"].decode("ascii")
        self.query: str = scope["query_string"].decode("ascii", "replace")
        self.table = table
        self._pairs: list[tuple[bytes, bytes]] = scope["headers"]
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._pairs}
        self._receive = receive
        given = self.headers.get("x-request-id", "")
        # An identifier, not a secret: uuid4 would ask the kernel for randomness on every request.
        self.id = given if _REQUEST_ID.match(given) else f"{random.getrandbits(128):032x}"
        self.upload_s = 0.0  # spent waiting for the body
        self.held_bytes = 0  # of the body, as app/relay/http/body_intake.py counts them
        self.tongue: ResponseEncoder | None = None  # how a client is answered that does not speak OpenAI
        self.base = {"x-request-id": self.id, **self._cors()}

    def _cors(self) -> dict[str, str]:
        origin = self.headers.get("origin")
        allowed = self.table.cors_origins
        if not allowed:
            return {}
        if origin is None or (origin not in allowed and "*" not in allowed):
            return {"vary": "origin"}
        return _readable(origin)

    def let_read(self, origin: str) -> None:
        """A page of that origin may read the answer."""
        self.base |= _readable(origin)

    def drops(self, names: Collection[str]) -> None:
        """Tell the client which of its parameters nobody heeds; nothing where the answer has begun."""
        self._name("x-modelport-dropped-params", names)

    def adjusts(self, names: Collection[str]) -> None:
        """Tell the client which of its parameters the engine was sent otherwise; as `drops`."""
        self._name("x-modelport-adjusted-params", names)

    def _name(self, header: str, names: Collection[str]) -> None:
        self.base.pop(header, None)  # of another engine, which did not take the request
        if names:
            each = sorted(set(names))
            more = [f"and {len(each) - MAX_NAMED} more"] if len(each) > MAX_NAMED else []
            self.base[header] = ", ".join((*each[:MAX_NAMED], *more))

    def engine_headers(self, content_type: str = JSON) -> list[tuple[str, str]]:
        """What goes to the engine with the body."""
        passed = [(name, self.headers[name]) for name in FORWARDED if name in self.headers]
        return [("content-type", content_type), ("x-request-id", self.id), *passed]

    # -- who asks

    def principal(self, now: float) -> Key | None:
        """The key that asks; None where no key exists at all. Problem (401) otherwise. `now` is Unix seconds."""
        if not self.table.keys:
            return None
        given = [value for name, value in self._pairs if name == b"authorization"]
        if not given:  # Anthropic's clients have a header of their own
            given = [b"Bearer " + value for name, value in self._pairs if name == b"x-api-key"]
        if len(given) > 1:
            raise unauthorized("The request has more than one Authorization header.")
        scheme, _, secret = (given[0] if given else b"").partition(b" ")
        if scheme.lower() != b"bearer" or not secret.strip():
            raise unauthorized("An API key is needed: send it as 'Authorization: Bearer KEY'.")
        key = find(secret.strip(), self.table.keys, now)
        if key is None:
            raise unauthorized("This API key is not known here, or it has expired.")
        return key

    # -- what it brings

    def check_type(self) -> None:
        """Problem (415) unless the body is said to be plain JSON, or nothing is said."""
        self.check_encoding()
        kind, _, rest = self.headers.get("content-type", JSON).lower().partition(";")
        charset = rest.partition("charset=")[2].partition(";")[0].strip(' "')
        if not _JSON_TYPE.match(kind.strip()) or charset not in ("", "utf-8", "utf8", "us-ascii"):
            raise Problem(415, "unsupported_media_type", "The request's body must be application/json in UTF-8.")

    def check_encoding(self) -> None:
        """Problem (415) for a compressed body."""
        if self.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            raise Problem(415, "unsupported_encoding", "Compressed request bodies are not accepted.")

    async def body(self, limit: int | None = None, hold: Callable[[int], None] | None = None) -> bytes:
        """The whole body; Problem (413) beyond the limit, by what is announced and by what comes. `hold` is told of
        every piece, and may refuse it."""
        limit = self.table.limits.max_body_bytes if limit is None else limit
        announced = self.headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > limit:
            raise _too_large(limit)
        pieces: list[bytes] = []
        size = 0
        began = time.perf_counter()
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece = message.get("body", b"")
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
            if hold is not None:
                hold(len(piece))
            pieces.append(piece)
            if not message.get("more_body", False):
                self.upload_s = time.perf_counter() - began
                self.line.body_taken()
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    # -- the answer

    def answer(self, status: int, body: bytes, content_type: str = JSON, **headers: str) -> None:
        """A whole answer."""
        self.line.answer(status, {"content-type": content_type, **self.base, **headers}, body)

    def answer_json(self, value: Any) -> None:
        """200 with a value as JSON."""
        self.answer(200, msgspec.json.encode(value))

    def refuse(self, problem: Problem) -> None:
        """A failure before the first byte."""
        body, kind = problem.body(), JSON
        if self.tongue is not None:
            body, kind = self.tongue.refused(problem), self.tongue.whole_type
        self.line.answer(problem.status, {"content-type": kind, **self.base, **problem.headers}, body)


def _readable(origin: str) -> dict[str, str]:
    return {"vary": "origin", "access-control-allow-origin": origin, "access-control-expose-headers": _SHOWN}


def _too_large(limit: int) -> Problem:
    return Problem(413, "request_too_large", f"The request's body is larger than {limit} bytes.")
