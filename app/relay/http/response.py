"""The way back to one client: what is written on its connection for one request, and when it is gone.

It writes straight to uvicorn's transport, because an ASGI `send` per streamed event costs more than the event
(docs/decisions.md); everything before the answer, and keep-alive after it, stays uvicorn's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from app.table import Key

if TYPE_CHECKING:
    from app.relay.http.protocol import ServerProtocol


class _NoEvent:
    """Nobody waits for uvicorn's event."""

    def set(self) -> None:
        """Nothing happens."""


class OwnCycle:
    """What there is to know of one request that uvicorn has no cycle for; the members are uvicorn's."""

    __slots__ = (
        "default_headers",
        "disconnected",
        "keep_alive",
        "more_body",
        "on_response",
        "response_complete",
        "response_started",
        "transport",
        "waiting_for_100_continue",
    )
    message_event = _NoEvent()

    def __init__(self, protocol: ServerProtocol, keep_alive: bool) -> None:
        self.transport = protocol.transport
        self.on_response = protocol.on_response_complete
        self.default_headers = protocol.server_state.default_headers
        self.keep_alive = keep_alive
        self.more_body = True
        self.disconnected = self.response_started = self.response_complete = self.waiting_for_100_continue = False


class ClientResponse:
    """What is written belongs to one request's own cycle of uvicorn's: a pipelined successor is never touched.

    `has_chunks`: the client reads HTTP/1.1. `arrived`: time.perf_counter() at the request's last header byte; uvloop's
    own clock counts whole milliseconds.
    """

    # How each begins.
    cycle: RequestResponseCycle | OwnCycle | None = None
    is_gone = False
    is_revoked = False  # its request ends now, because the client's key opens nothing any more
    key: Key | None = None  # the client's, once it was checked
    asked_at: float | None = None  # time.perf_counter() when an engine was first sent the request
    serving: str | None = None  # the digest of what the answer is made from, where it is known
    limit_lines: Callable[[], bytes] | None = None  # header lines about the limits of the client's key, if it has some
    _model_headers: bytes | None = None  # of an answer that an engine gives: whose it is
    _is_chunked = False
    _unsent = b""  # status line and headers, until the first piece of the body goes with them
    _on_gone: Callable[[], None] | None = None
    _on_pause: Callable[[], None] | None = None
    _on_resume: Callable[[], None] | None = None

    def __init__(
        self, protocol: ServerProtocol, arrived: float, *, is_head: bool = False, has_chunks: bool = True
    ) -> None:
        self._protocol = protocol
        self.arrived = arrived
        self._is_head = is_head
        self._has_chunks = has_chunks

    @property
    def is_started(self) -> bool:
        """Whether a status line was written."""
        return self.cycle is not None and self.cycle.response_started

    @property
    def is_full(self) -> bool:
        """Whether the client has not read yet what was written."""
        return self._protocol.flow.write_paused

    @property
    def client_address(self) -> str | None:
        """The address at the other end of the connection: the client's, or that of a proxy before us."""
        peer = self._protocol.transport.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) else None

    # -- the request's side

    def when_gone(self, call: Callable[[], None] | None) -> None:
        """Call this once when the client has left; at once where it has left already. None: call nothing any more."""
        self._on_gone = call
        if self.is_gone and call is not None:
            self._on_gone = None
            call()

    def revoke(self) -> None:
        """End the request at once; its client is told why."""
        call, self._on_gone = self._on_gone, None
        if call is not None:
            self.is_revoked = True
            call()

    def when_full(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """Call these when the client reads slower than we write, and when it has caught up."""
        self._on_pause, self._on_resume = pause, resume
        if self._protocol.flow.write_paused:
            pause()

    def body_taken(self) -> None:
        """The whole body was read. Of a large one the connection may have stopped being read meanwhile, and would then
        not say that its client left."""
        if not self._protocol.transport.is_closing():
            self._protocol.flow.resume_reading()

    def served_by(self, model: str, backend: str, attempts: int) -> None:
        """Which model and backend the answer's headers will name, and in which attempt; the last call counts."""
        self._model_headers = _model_headers(model, backend, attempts)
        self.serving = None

    def start(self, status: int, headers: Mapping[str, str] | Sequence[tuple[str, str]], length: int | None) -> None:
        """Status line and headers; `length` None starts a stream (chunks for HTTP/1.1, until close for 1.0).

        They leave with the first piece of the body, or with the end: one write less, of two or three.
        """
        cycle = self.cycle
        assert cycle is not None
        assert not cycle.response_started
        if cycle.disconnected:
            return
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        own = "".join([f"{name}: {value}\r\n" for name, value in pairs]).encode("latin-1")
        lines = [STATUS_LINE[status], _lines_of(cycle.default_headers), own]
        if self.limit_lines is not None:
            lines.append(self.limit_lines())
        if self._model_headers is not None:
            took_ms = (time.perf_counter() - self.arrived) * 1000
            lines.append(b"%bopenai-processing-ms: %d\r\n" % (self._model_headers, took_ms))
            if self.serving is not None:
                lines.append(b"x-modelport-serving: %b\r\n" % self.serving.encode())
        if cycle.more_body or self._protocol.is_last(self):
            cycle.keep_alive = False  # the rest of a body that nobody reads would be taken for the next request
        if status in (204, 304):
            pass  # has no body and must not state its length
        elif length is not None:
            lines.append(b"content-length: %d\r\n" % length)
        elif self._has_chunks:
            self._is_chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        else:
            cycle.keep_alive = False
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        self._unsent = b"".join(lines)

    def write(self, data: bytes) -> None:
        """A piece of the body."""
        cycle = self.cycle
        if not data or cycle is None or cycle.disconnected or self._is_head:
            return
        head, self._unsent = self._unsent, b""
        if self._is_chunked and not head:
            cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        elif self._is_chunked:
            self._protocol.write(b"%b%x\r\n%b\r\n" % (head, len(data), data))
        elif head:
            self._protocol.write_later(head + data)
        else:  # until the connection's end
            self._protocol.write(data)

    @property
    def takes_chunks(self) -> bool:
        """Whether the client gets chunks (write_chunks): a stream over HTTP/1.1 whose head has left."""
        return self._is_chunked and not self._is_head and not self._unsent

    def write_chunks(self, framed: bytes) -> None:
        """A piece of the body as whole chunks, with their framing. Only where `takes_chunks`."""
        cycle = self.cycle
        if cycle is not None and not cycle.disconnected:
            cycle.transport.write(framed)

    def finish(self) -> None:
        """The answer is complete; the connection may carry another request."""
        cycle = self.cycle
        if cycle is None or cycle.disconnected or cycle.response_complete:
            return
        end = b"0\r\n\r\n" if self._is_chunked and not self._is_head else b""
        if end or self._unsent:
            self._protocol.write(self._unsent + end)
        cycle.response_complete = True
        cycle.message_event.set()
        self._protocol.complete(self)
        if not cycle.keep_alive:
            self._protocol.hang_up()
        cycle.on_response()

    def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """A whole answer."""
        self.start(status, headers, len(body))
        self.write(body)
        self.finish()

    def cut(self) -> None:
        """End the connection without the end of the answer: FIN, no terminating chunk.

        A client takes a clean end for a complete answer (openai-python does so without `[DONE]`). Not RST: it can
        destroy the error event that the client has not read yet.
        """
        if self.cycle is not None:
            if self._unsent and not self.cycle.disconnected:
                self._protocol.write(self._unsent)
            self.cycle.disconnected = True  # silences uvicorn's complaint about an incomplete answer
            self.cycle.message_event.set()
        self._protocol.hang_up()

    def part(self, arrived: float, sink: Callable[[bytes], None]) -> PartialResponse:
        """One of several answers in this response, the work at which began at `arrived`."""
        return PartialResponse(self, self._protocol, arrived, sink)

    # -- the connection's side

    def lost(self) -> None:
        """The client has closed the connection."""
        self.is_gone = True
        if self.cycle is not None:  # uvicorn tells only the last of several pipelined ones
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        call, self._on_gone = self._on_gone, None
        self._on_pause = self._on_resume = None
        if call is not None:
            call()

    def full(self) -> None:
        if self._on_pause is not None:
            self._on_pause()

    def drained(self) -> None:
        if self._on_resume is not None:
            self._on_resume()


class PartialResponse(ClientResponse):
    """One of several answers that a client gets in one response: what is written goes to `sink`, without a head.

    `backend` answers it, once it is known; `status` is that of a whole answer or a refusal.
    """

    def __init__(
        self, whole: ClientResponse, protocol: ServerProtocol, arrived: float, sink: Callable[[bytes], None]
    ) -> None:
        self._whole = whole
        super().__init__(protocol, arrived)
        self._sink = sink
        self._is_begun = False
        self.backend: str | None = None
        self.status: int | None = None

    @property
    def is_gone(self) -> bool:
        """The client has left: it is the same one for all of them."""
        return self._whole.is_gone

    @is_gone.setter
    def is_gone(self, value: bool) -> None:
        """The whole response is told by its connection."""

    @property
    def is_revoked(self) -> bool:
        """As the whole response is."""
        return self._whole.is_revoked

    @is_revoked.setter
    def is_revoked(self, value: bool) -> None:
        """The whole response is told."""

    @property
    def is_started(self) -> bool:
        """Whether anything was written, or is about to be."""
        return self._is_begun

    def served_by(self, model: str, backend: str, attempts: int) -> None:
        """Which backend answers; the last call counts."""
        self.backend = backend
        self.serving = None

    def start(self, status: int, headers: Mapping[str, str] | Sequence[tuple[str, str]], length: int | None) -> None:
        """The head is the whole response's."""
        self._is_begun = True
        self.status = status

    def write(self, data: bytes) -> None:
        """A piece of this answer."""
        if data and not self.is_gone:
            self._sink(data)

    def finish(self) -> None:
        """This answer is complete; the others go on."""
        self._on_pause = self._on_resume = None

    def cut(self) -> None:
        """This answer has failed, and has said so; the others go on."""
        self.finish()


class _Lines:
    """uvicorn's own headers as lines: one list for all responses of a second."""

    of: list[tuple[bytes, bytes]] | None = None
    joined = b""


def _lines_of(headers: list[tuple[bytes, bytes]]) -> bytes:
    if headers is not _Lines.of:
        _Lines.of, _Lines.joined = headers, b"".join([b"%b: %b\r\n" % pair for pair in headers])
    return _Lines.joined


@lru_cache(maxsize=1024)
def _model_headers(model: str, backend: str, attempts: int) -> bytes:
    """The header lines, as bytes: the same for nearly every request."""
    model, backend = (name if name.isascii() and name.isprintable() else quote(name) for name in (model, backend))
    lines = (f"x-modelport-model: {model}", f"x-modelport-backend: {backend}", f"x-modelport-attempts: {attempts}", "")
    return "\r\n".join(lines).encode("ascii")
