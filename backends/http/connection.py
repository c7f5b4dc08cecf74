"""One HTTP/1.1 connection to an engine, parsed by httptools: bytes out, callbacks in, nothing retried.

Callbacks instead of awaits per piece: a task switch per streamed event costs more than parsing it (docs/decisions.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias, cast

import httptools

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADER_LINES = 256

# Gets bytes of a chunked body that begin where a chunk begins, and the loop's time. True: they were nothing but whole
# chunks, and are dealt with. False: it has not looked at them, and they are parsed as all others are.
ChunkTaker: TypeAlias = Callable[[bytes, float], bool]


_MOST_NAMES: Final = 256
_names: dict[bytes, str] = {}  # of headers, as engines write them, in lower case


def _name(given: bytes) -> str:
    name = given.decode("latin-1").lower()
    if len(_names) < _MOST_NAMES:
        _names[given] = name
    return name


class Listener(Protocol):
    """What the response on a connection is delivered to; its methods are called from the event loop and must not block.

    First `on_head`, with the headers' names in lower case; then `on_data` for each piece of the body; then `on_end`.
    Behind what came in one read with the head: `on_news`. At any point `on_lost` instead, where the response will not
    be completed: `answered` says whether a byte of it came, `malformed` why it is not valid HTTP (None where it is).
    """

    def on_head(self, status: int, headers: dict[str, str]) -> None: ...
    def on_news(self) -> None: ...
    def on_data(self, data: bytes) -> None: ...
    def on_end(self) -> None: ...
    def on_lost(self, exc: Exception | None, *, answered: bool, malformed: str | None) -> None: ...


class Connection(asyncio.Protocol):
    """Carries one exchange at a time; `is_reusable` once a response ended cleanly and both sides keep it open."""

    transport: asyncio.Transport

    def __init__(self, on_closed: Callable[[Connection], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self._on_closed = on_closed
        self._listener: Listener | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self._taker: ChunkTaker | None = None
        self._next_taker: ChunkTaker | None = None  # the same while the parser is between two chunks
        self._time = asyncio.get_running_loop().time
        self.received_at = 0.0  # when bytes came last, in the loop's time
        self._head_bytes = 0
        self._header_lines = 0
        self._answered = False  # a byte of the response has come
        self._is_head_new = False  # its head came with what is read now
        self._in_body = False
        self._until_close = False  # neither length nor chunks: the end of the connection is the end of the response
        self._ended = False
        self._is_sent = True  # its request is written: what comes before is not the response to it
        self._keeps_alive = False
        self.is_reusable = False
        self.is_closed = False
        self.idle_since = 0.0

    @property
    def listener(self) -> Listener | None:
        """What the response is delivered to; None while the connection is idle."""
        return self._listener

    # -- what the exchange does

    def send(self, listener: Listener, *pieces: bytes) -> None:
        """Write one request, at the end of the event loop's turn; its response goes to `listener`.

        Engines and clients that sleep are woken once for what a turn writes: that is a quarter of a request's cost.
        """
        self._listener = listener
        if not self.is_reusable:  # else it is at the beginning of a message
            self._parser = httptools.HttpResponseParser(self)
        self._answered = self._is_head_new = self._in_body = self._until_close = False
        self._ended = self.is_reusable = self._is_sent = False
        self._taker = self._next_taker = None
        self._pieces.clear()
        self._start_head()
        self.loop.call_soon(self._write, pieces)

    def _write(self, pieces: tuple[bytes, ...]) -> None:
        self._is_sent = True
        if not self.transport.is_closing():  # else nobody waits for its response any more
            for piece in pieces:
                self.transport.write(piece)

    def take_chunks(self, taker: ChunkTaker | None) -> None:
        """Offer `taker` what comes of this response behind a chunk that ended an event, before it is parsed; the
        listener gets what it does not take. None: nothing is offered any more."""
        self._taker = taker
        self._next_taker = None

    def release(self) -> None:
        """Forget the listener. If bytes come from now on, the connection is closed: nobody asked for them."""
        self._listener = self._taker = self._next_taker = None

    def abort(self) -> None:
        """Close at once, without flushing: this is how an engine learns that nobody waits for its response any more."""
        self.is_reusable = False
        self._listener = self._taker = self._next_taker = None
        self.transport.abort()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one, but does not derive from it

    def data_received(self, data: bytes) -> None:
        self.received_at = now = self._time()
        taker = self._next_taker
        if taker is not None and taker(data, now):
            return
        self._next_taker = None
        if self._listener is None or self._ended:
            self.is_reusable = False
            self.transport.abort()
            return
        self._answered = True
        if not self._in_body:
            self._head_bytes += len(data)
        malformed = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            malformed = str(exc) or type(exc).__name__
        except httptools.HttpParserUpgrade:
            malformed = "it switched protocols"
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._deliver(body, malformed)
        # Within a chunked response two line feeds in a row are never framing, and what follows what a chunk carries is
        # its end: the parser has read a whole chunk, and nothing of the next one.
        if self._taker is not None and body.endswith(b"\n\n") and data.endswith(b"\n\n\r\n"):
            self._next_taker = self._taker

    def _deliver(self, body: bytes, malformed: str | None) -> None:
        listener = self._listener
        if body and listener is not None:
            listener.on_data(body)
        if self._listener is None:
            return
        if self._ended:
            self.is_reusable = malformed is None and not self._until_close and self._keeps_alive and self._is_sent
            self._listener.on_end()
        if self._is_head_new and listener is not None:
            self._is_head_new = False
            listener.on_news()
        if self._ended or self._listener is None:
            return
        if malformed is not None or (not self._in_body and self._head_bytes > MAX_HEAD_BYTES):
            listener = self._listener
            self.abort()
            listener.on_lost(None, answered=True, malformed=malformed or "its headers are too large")

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed, self.is_reusable = True, False
        listener = self._listener
        self.release()
        self._on_closed(self)
        if listener is None or self._ended:
            return
        if exc is None and self._in_body and self._until_close:
            self._ended = True
            listener.on_end()
        else:
            listener.on_lost(exc, answered=self._answered, malformed=None)

    # -- httptools

    def _start_head(self) -> None:
        self._headers = {}
        self._head_bytes = self._header_lines = 0

    def on_message_begin(self) -> None:
        if self._ended:  # nobody asked for what comes behind the response, and the next one would begin with it
            raise ValueError("it sent more than its response")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_lines += 1
        if self._header_lines > MAX_HEADER_LINES:
            raise ValueError("too many header lines")
        if not self._in_body:
            self._headers[_names.get(name) or _name(name)] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return
        self._in_body = True
        headers = self._headers
        self._until_close = (
            status not in (204, 304)
            and "content-length" not in headers
            and "chunked" not in headers.get("transfer-encoding", "").lower()
        )
        if self._listener is not None:
            self._is_head_new = True
            self._listener.on_head(status, headers)

    def on_body(self, body: bytes) -> None:
        if not self._ended:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        if self._in_body:
            self._ended = True
            self._keeps_alive = self._parser.should_keep_alive()  # llhttp forgets it with the next message
        else:
            self._start_head()  # an informational response (100 Continue): the real one follows
