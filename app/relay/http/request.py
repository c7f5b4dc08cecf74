"""One HTTP request at the data listener: its head, its body, its key, and the one way to answer it."""

from __future__ import annotations

import copy
import random
import re
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from app.dialects.client_api import ResponseEncoder
from app.errors import JSON, Problem, unauthorized
from app.relay.http.protocol import EXTENSION
from app.relay.http.request_head import HeldRequest
from app.relay.http.response import ClientResponse
from app.table import Key, Table

if TYPE_CHECKING:
    from app.relay.limits.key_allowance import KeyAllowance

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

MAX_ID_CHARS = 128
_REQUEST_ID = re.compile(rf"[A-Za-z0-9._:-]{{1,{MAX_ID_CHARS}}}\Z")
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}\Z")
_JSON_TYPE = re.compile(r"application/(?:[a-z0-9.+-]+\+)?json\Z")
# What of a client's request reaches an engine besides the body; never Authorization, Cookie or Origin.
FORWARDED = ("traceparent", "tracestate")
_TRACEPARENT, _TRACESTATE = (name.encode() for name in FORWARDED)

MAX_NAMED = 32
ADJUSTED, DROPPED = "x-modelport-adjusted-params", "x-modelport-dropped-params"

# The answer's headers that a page's script may read: its SDK retries by them.
_READABLE_HEADERS = (
    "x-request-id, retry-after, retry-after-ms, x-should-retry, openai-processing-ms, "
    "x-modelport-model, x-modelport-backend, x-modelport-attempts, x-modelport-serving, "
    "x-modelport-dropped-params, x-modelport-adjusted-params, "
    "x-modelport-load-ms, x-modelport-prompt-ms, x-modelport-generate-ms, "
    "x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    "x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, "
    "anthropic-ratelimit-requests-limit, anthropic-ratelimit-requests-remaining, anthropic-ratelimit-requests-reset, "
    "anthropic-ratelimit-tokens-limit, anthropic-ratelimit-tokens-remaining, anthropic-ratelimit-tokens-reset"
)


class ClientGone(Exception):
    """The client has left: nobody waits for the answer any more."""


class Request:
    """Made once per request. Header names are lower case.

    `path` is not decoded: an encoded slash is no slash here. A proxy may leave the root path on it, which is taken off.
    """

    key: Key | None  # who asks; there once the route's access was checked, and None where no key is configured

    # What few requests have.
    allowance: KeyAllowance | None = None  # of the client's key, where it has limits
    encoder: ResponseEncoder | None = None  # for a client of another dialect than OpenAI's
    trace: list[tuple[str, str]] | None = None  # what engines get in place of the client's FORWARDED
    upload_s = 0.0  # spent waiting for the body
    held_bytes = 0  # of the body, as app/relay/http/body_intake.py counts them
    _headers: dict[str, str] | None = None
    _is_reported = False

    def __init__(
        self,
        response: ClientResponse,
        method: str,
        path: str,
        query: str,
        pairs: list[tuple[bytes, bytes]],
        table: Table,
        body: bytes = b"",
        receive: Receive | None = None,
    ) -> None:
        """`pairs`: the headers. `receive`: of ASGI, for a body that is still to come."""
        self.response = response
        self.method = method
        root = table.root_path
        self.path = path.removeprefix(root) if root and path.startswith(f"{root}/") else path
        self.query = query
        self.table = table
        self._pairs = pairs
        self._fields = dict(pairs)
        self._body = body
        self._receive = receive
        given = self._fields.get(b"x-request-id")
        self.id = _own_id() if given is None else _id_of(given)
        self.base = {"x-request-id": self.id}
        if table.cors_origins:
            self.base |= self._cors()

    @classmethod
    def of_scope(cls, scope: MutableMapping[str, Any], receive: Receive, table: Table) -> Request:
        """The request that uvicorn has made this of."""
        # Out of the scope, to which it leads back: a circle less to collect.
        response: ClientResponse = scope["extensions"].pop(EXTENSION)
        path: str = scope["raw_path"].decode("ascii")
        query = scope["query_string"].decode("ascii", "replace")
        return cls(response, scope["method"], path, query, scope["headers"], table, receive=receive)

    @classmethod
    def of_held(cls, held: HeldRequest, table: Table) -> Request:
        """The request that came whole."""
        path, query = held.target.decode("ascii"), ""
        if "?" in path or "#" in path:
            path, _, query = path.partition("#")[0].partition("?")
        return cls(held.response, held.method.decode("ascii"), path, query, held.headers, table, held.body)

    @property
    def headers(self) -> dict[str, str]:
        """All headers; of one that comes twice the last."""
        if self._headers is None:
            self._headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._pairs}
        return self._headers

    def header(self, name: bytes) -> str | None:
        """One header, of which the others need not be decoded."""
        value = self._fields.get(name)
        return None if value is None else value.decode("latin-1")

    def _cors(self) -> dict[str, str]:
        origin = self.header(b"origin")
        allowed = self.table.cors_origins
        if origin is None or (origin not in allowed and "*" not in allowed):
            return {"vary": "origin"}
        return _readable(origin)

    def let_read(self, origin: str) -> None:
        """Allow pages of that origin to read the answer (CORS)."""
        self.base |= _readable(origin)

    def reports(self, adjusted: Collection[str] = (), dropped: Collection[str] = ()) -> None:
        """Name to the client, in headers, its parameters that the engine was sent with another value, and those that
        have no effect. The last call counts; once the answer has begun it is too late."""
        if not (adjusted or dropped or self._is_reported):
            return
        self._is_reported = True
        for header, names in ((ADJUSTED, adjusted), (DROPPED, dropped)):
            self.base.pop(header, None)  # of another engine, which did not take the request
            if names:
                each = sorted(set(names))
                more = [f"and {len(each) - MAX_NAMED} more"] if len(each) > MAX_NAMED else []
                self.base[header] = ", ".join((*each[:MAX_NAMED], *more))

    def reported(self, header: str) -> list[str]:
        """The names that `reports` put into one of its headers."""
        return [name for name in self.base.get(header, "").split(", ") if name]

    def engine_headers(self, content_type: str = JSON) -> list[tuple[str, str]]:
        """The headers that go to the engine with a body of this type, as (name, value)."""
        passed = self.trace
        if passed is None:
            if _TRACEPARENT not in self._fields and _TRACESTATE not in self._fields:
                return [("content-type", content_type), ("x-request-id", self.id)]
            passed = [(name, self.headers[name]) for name in FORWARDED if name in self.headers]
        return [("content-type", content_type), ("x-request-id", self.id), *passed]

    @property
    def traceparent(self) -> str | None:
        """The trace that it belongs to: the `traceparent` that engines get."""
        return dict(self.trace).get(FORWARDED[0]) if self.trace is not None else self.headers.get(FORWARDED[0])

    def part(self, number: int, response: ClientResponse, encoder: ResponseEncoder | None) -> Request:
        """This request once more, as one of several that are answered in one response. Engines know it by an id of its
        own: two requests with one id are one request to vLLM.
        """
        part = copy.copy(self)
        part.response, part.encoder = response, encoder
        part.id = f"{self.id[: MAX_ID_CHARS - 4]}-{number}"
        part.base = {"x-request-id": part.id}
        part.held_bytes, part.upload_s = 0, 0.0
        return part

    # -- who asks

    def presented_key(self) -> bytes:
        """The one key that it presents; Problem (401) for none, and for more than one."""
        if len(self._fields) == len(self._pairs) and (only := self._fields.get(b"authorization")) is not None:
            if only[:7] == b"Bearer " and (secret := only[7:]) and secret == secret.strip():
                return secret
            given = [only]
        else:
            given = [value for name, value in self._pairs if name == b"authorization"]
        if not given:  # Anthropic's clients have a header of their own
            given = [b"Bearer " + value for name, value in self._pairs if name == b"x-api-key"]
        if len(given) > 1:
            raise unauthorized("The request has more than one Authorization header.")
        scheme, _, secret = (given[0] if given else b"").partition(b" ")
        if scheme.lower() != b"bearer" or not secret.strip():
            raise unauthorized("An API key is needed: send it as 'Authorization: Bearer KEY'.")
        return secret.strip()

    # -- what it brings

    def check_type(self) -> None:
        """Problem (415) for a body whose content type is not JSON in UTF-8; one without a type counts as that."""
        fields = self._fields
        if b"content-encoding" not in fields and fields.get(b"content-type") == b"application/json":
            return
        self.check_encoding()
        kind, _, rest = self.headers.get("content-type", JSON).lower().partition(";")
        charset = rest.partition("charset=")[2].partition(";")[0].strip(' "')
        if not _JSON_TYPE.match(kind.strip()) or charset not in ("", "utf-8", "utf8", "us-ascii"):
            raise Problem(415, "unsupported_media_type", "The request's body must be application/json in UTF-8.")

    def check_encoding(self) -> None:
        """Problem (415) for a compressed body."""
        if self.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            raise Problem(415, "unsupported_encoding", "Compressed request bodies are not accepted.")

    @property
    def body_now(self) -> bytes | None:
        """The whole body where it is there already, and not larger than it may be."""
        body = self._body
        return body if self._receive is None and len(body) <= self.table.limits.max_body_bytes else None

    async def body(self, limit: int | None = None, hold: Callable[[int], None] | None = None) -> bytes:
        """The whole body; Problem (413) beyond `limit` bytes (None: the configured ones), announced or come.

        `hold` is called with the size of every piece, and may refuse it by a Problem. ClientGone once the client left.
        """
        limit = self.table.limits.max_body_bytes if limit is None else limit
        announced = self._fields.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > limit:
            raise _too_large(limit)
        if self._receive is None:
            if hold is not None:
                hold(len(self._body))
            return self._body
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
                self.response.body_taken()
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    # -- the answer

    def answer(self, status: int, body: bytes, content_type: str = JSON, **headers: str) -> None:
        """A whole answer, with the request's own headers besides."""
        self.response.answer(status, {"content-type": content_type, **self.base, **headers}, body)

    def answer_json(self, value: Any) -> None:
        """Status 200 and a value as JSON."""
        self.answer(200, msgspec.json.encode(value))

    def answer_options(self, methods: Sequence[str]) -> None:
        """204 with the methods of the route, and what a page of an allowed origin may send it."""
        allowed = ", ".join(methods)
        headers = {"allow": allowed, **self.base}
        if "access-control-allow-origin" in headers and "access-control-request-method" in self.headers:
            headers |= {
                "access-control-allow-methods": allowed,
                "access-control-allow-headers": _header_names(self.headers.get("access-control-request-headers", "")),
                "access-control-max-age": "600",
            }
        self.response.answer(204, headers, b"")

    def refuse(self, problem: Problem) -> None:
        """A failure before the first byte, in the client's dialect."""
        body, kind = problem.body(), JSON
        if self.encoder is not None:
            body, kind = self.encoder.refused(problem), self.encoder.whole_type
        self.response.answer(problem.status, {"content-type": kind, **self.base, **problem.headers}, body)


def _own_id() -> str:
    """An identifier, not a secret: uuid4 would ask the kernel for randomness on every request."""
    return f"{random.getrandbits(128):032x}"


def _id_of(given: bytes) -> str:
    text = given.decode("latin-1")
    return text if _REQUEST_ID.match(text) else _own_id()


def _header_names(names: str) -> str:
    """The header names that a page asks to send (an SDK has many of its own), without what is not a valid one."""
    asked = [name.strip().lower() for name in names.split(",")]
    return ", ".join(name for name in asked if _HEADER_NAME.match(name)) or "authorization, content-type"


def _readable(origin: str) -> dict[str, str]:
    return {"vary": "origin", "access-control-allow-origin": origin, "access-control-expose-headers": _READABLE_HEADERS}


def _too_large(limit: int) -> Problem:
    return Problem(413, "request_too_large", f"The request's body is larger than {limit} bytes.")
