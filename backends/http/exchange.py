"""One request and its response on one connection: what arrives, in which order, until when, and how it can fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping
from typing import Protocol, TypeAlias

import msgspec

from backends.endpoint import Endpoint
from backends.errors import BackendError, Broken, Disconnected, TimedOut, Unreachable
from backends.http.connection import ChunkTaker, Connection
from backends.http.delta import Delta

# What may wait here before `pump` is called; beyond it the engine's stream is paused.
_BUFFER_BYTES = 256 * 1024
# After its end mark a stream's last chunk is given this long to arrive, so that the connection can be used again.
_LINGER_S = 1.0
# How long an engine that is known not to work may be silent before its requests fail.
DOUBTED_S = 20.0


# Whether the coroutine that runs now is run without a task (backends/http/carrying.py, which sets it).
is_carried = False


class ResponseTimings(msgspec.Struct, frozen=True):
    """How the engine spent its time on a request, in seconds, as it reports it; None for what it does not report."""

    load_s: float | None = None
    prompt_s: float | None = None
    generate_s: float | None = None

    def phases(self) -> dict[str, float]:
        """Seconds by phase (`load`, `prompt`, `generate`), of the phases that are known."""
        phases = {"load": self.load_s, "prompt": self.prompt_s, "generate": self.generate_s}
        return {name: seconds for name, seconds in phases.items() if seconds is not None}

    def headers(self) -> dict[str, str]:
        """The headers for a client that does not stream, in milliseconds: `x-modelport-load-ms` and so on."""
        return {f"x-modelport-{name}-ms": f"{seconds * 1000:.1f}" for name, seconds in self.phases().items()}


class DeltaResponse(Protocol):
    """A response of an engine that does not speak OpenAI's API; the members are those of Exchange, but for `pump`.

    A stream is deltas, and a whole response is OpenAI's. `notes` are headers that the client's response is to carry,
    `timings` what the engine reported of its time: both are complete once the response is.
    """

    @property
    def endpoint(self) -> Endpoint: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def is_stream(self) -> bool: ...
    @property
    def notes(self) -> Mapping[str, str]: ...
    @property
    def timings(self) -> ResponseTimings | None: ...
    async def read(self, limit_bytes: int) -> bytes: ...
    async def pump(self, sink: Callable[[list[Delta]], bool]) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def linger(self) -> None: ...


class Exchange:
    """A response that is on its way. Close it in every case; closing is synchronous and may be repeated.

    Its deadlines are looked at by the pool, which calls `look` again and again: timers of its own would cost as much as
    sending it.
    """

    # How each begins.
    status = 0
    headers: dict[str, str] = {}  # noqa: RUF012  # replaced, never changed
    notes: Mapping[str, str] = {}
    timings: ResponseTimings | None = None
    _waiter: asyncio.Future[None] | None = None
    _resume: Callable[[BaseException | None], None] | None = None
    _sink: Callable[[bytes], bool] | None = None
    _buffered = 0
    _error: BaseException | None = None
    _is_ended = _is_closed = _is_lingering = False
    _is_paused = False  # by the caller of `pump`
    _is_full = False  # paused by us, because `pump` was not called yet
    _is_held = False  # whether the transport is paused now
    _doubt: str | None = None  # why it is known not to work

    def __init__(
        self, endpoint: Endpoint, connection: Connection, done: Callable[[Connection, str], None], address: str
    ) -> None:
        self.endpoint = endpoint
        self._connection = connection
        self._done = done
        self._address = address
        self._loop = connection.loop
        self._buffer: list[bytes] = []
        self._last = self._loop.time()  # when it was sent, or read on; the connection knows when bytes came
        self._between_s = endpoint.timeouts.between_events_s
        self._limit_s = endpoint.timeouts.first_byte_s

    def __repr__(self) -> str:
        return f"<Exchange {self.endpoint.engine}#{self.endpoint.generation} {self.status}>"

    # -- what the relay does

    @property
    def is_stream(self) -> bool:
        """Whether the engine answers with a stream of events."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"

    async def head(self) -> None:
        """Wait for status and headers. Raises BackendError when there will be none, or the response cannot be used."""
        if not self.status:
            await self._wait()
        if self.status < 300 and "content-encoding" not in self.headers:
            return
        encoding = self.headers.get("content-encoding", "identity").lower()
        if encoding not in ("", "identity"):
            raise Broken(self.endpoint.engine, "it compressed its response although it was asked not to")
        if 300 <= self.status < 400:
            raise Broken(self.endpoint.engine, f"it answered with a redirect ({self.status}), which is never followed")

    async def read(self, limit_bytes: int) -> bytes:
        """The whole body; Broken when it is larger than `limit_bytes`."""
        if self._is_ended and self._error is None and self._buffered <= limit_bytes:
            return self._taken()
        pieces: list[bytes] = []
        size = 0

        def take(data: bytes) -> bool:
            nonlocal size
            size += len(data)
            if size > limit_bytes:
                raise Broken(self.endpoint.engine, f"its response is larger than {limit_bytes} bytes")
            pieces.append(data)
            return False

        await self.pump(take)
        return b"".join(pieces)

    def _taken(self) -> bytes:
        """All that has come and was not handed on."""
        self._sink = _ignore
        if self._is_full:
            self._is_full = False
            self._flow()
        buffered, self._buffer, self._buffered = self._buffer, [], 0
        return buffered[0] if len(buffered) == 1 else b"".join(buffered)

    async def pump(self, sink: Callable[[bytes], bool]) -> None:
        """Hand each piece to `sink` as it comes, until the end or until `sink` returns True: it has enough.

        Raises BackendError when the response fails. One that `sink` raises ends the exchange and is raised here.
        """
        self._sink = sink
        if self._is_full:
            self._is_full = False
            self._flow()
        if self._buffered:
            buffered, self._buffer, self._buffered = self._buffer, [], 0
            for piece in buffered:
                if sink(piece):
                    return
        if not self._is_ended:
            await self._wait()

    def __await__(self) -> Generator[Exchange, None, None]:
        """Without a task: whoever runs the coroutine gets the exchange itself, and calls `follow`."""
        yield self

    def follow(self, resume: Callable[[BaseException | None], None]) -> None:
        """Call this once when the wait is over, with the error that ends it."""
        self._resume = resume

    def take_chunks(self, taker: ChunkTaker) -> None:
        """From now on until `pump` ends, offer what begins with a chunk to `taker`, and to the sink what it does not
        take (Connection.take_chunks)."""
        self._connection.take_chunks(taker)

    def pause(self) -> None:
        """Stop reading from the engine; meanwhile no timeout runs."""
        if not self._is_ended and not self._is_closed:
            self._is_paused = True
            self._flow()

    def resume(self) -> None:
        """Read on."""
        self._is_paused = False
        self._flow()

    def doubt(self, reason: str | None) -> None:
        """Why its engine is known not to work: it may be silent for DOUBTED_S only, from now on. None: it works."""
        if reason == self._doubt or self._is_ended or self._is_closed or self._error is not None or self._is_lingering:
            return
        self._doubt = reason
        self.look(self._loop.time())

    def close(self) -> None:
        """End the exchange. The connection is kept when the response ended cleanly, else closed, which cancels the
        engine's work. After `linger` the exchange closes itself, and this does nothing.
        """
        if not self._is_lingering:
            self._close()

    def _close(self) -> None:
        if self._is_closed:
            return
        self._is_paused = self._is_full = False
        self._flow()
        self._is_closed = True
        self._sink = self._resume = None
        self._connection.take_chunks(None)
        if self._error is not None and not self._connection.is_closed:
            self._connection.abort()
        self._done(self._connection, self._address)

    def linger(self) -> None:
        """Close, but first receive, in the background, the last bytes of a response that is complete in meaning."""
        if self._is_ended or self._is_closed or self._error is not None:
            self.close()
            return
        self._is_paused = self._is_full = False
        self._flow()
        self._connection.take_chunks(None)
        self._sink, self._is_lingering = _ignore, True
        self._last, self._limit_s = self._loop.time(), _LINGER_S

    # -- what the connection delivers

    def on_head(self, status: int, headers: dict[str, str]) -> None:
        self.status, self.headers = status, headers

    def on_news(self) -> None:
        if self._sink is None:
            self._wake(None)

    def on_data(self, data: bytes) -> None:
        if not self._is_lingering:
            self._limit_s = self._between_s
        if self._sink is None:
            self._buffer.append(data)
            self._buffered += len(data)
            if self._buffered > _BUFFER_BYTES and not self._is_full:
                self._is_full = True
                self._flow()
            return
        try:
            if self._sink(data):
                self._sink = _ignore
                self._connection.take_chunks(None)
                self._wake(None)
        except Exception as exc:  # noqa: BLE001  # raised again where the request waits, which logs what is our mistake
            self._fail(exc)
            self._connection.abort()

    def on_end(self) -> None:
        self._is_ended = True
        if self._is_lingering:
            self._close()
        elif self._sink is not None:
            self._wake(None)

    def on_lost(self, exc: Exception | None, *, answered: bool, malformed: str | None) -> None:
        engine = self.endpoint.engine
        was_reset = isinstance(exc, ConnectionResetError | BrokenPipeError)
        error: BackendError
        if malformed is not None:
            error = Broken(engine, f"its response is not valid HTTP ({malformed})")
        elif answered:
            error = Disconnected(engine, "its connection ended in the middle of the response")
        elif was_reset and self.endpoint.is_ours:
            error = Unreachable(engine, "it ended before it read the request")
        else:
            error = Disconnected(engine, "it closed the connection without a response")
        error.__cause__ = exc
        if self._is_lingering:
            self._close()
        else:
            self._fail(error)

    # -- inside

    def _flow(self) -> None:
        """Pause or resume the transport as needed. Also after the end: the connection is used again."""
        is_held = self._is_paused or self._is_full
        if is_held is self._is_held:
            return
        self._is_held = is_held
        self._last = self._loop.time()
        if self._connection.is_closed:
            return
        if is_held:
            self._connection.transport.pause_reading()
        else:
            self._connection.transport.resume_reading()

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        if is_carried:
            await self
            return
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self, error: BaseException | None) -> None:
        if self._resume is not None:
            resume, self._resume = self._resume, None
            resume(error)
        elif self._waiter is not None and not self._waiter.done():
            if error is None:
                self._waiter.set_result(None)
            else:
                self._waiter.set_exception(error)

    def _fail(self, error: BaseException) -> None:
        self._error = error
        self._wake(error)

    def look(self, now: float) -> None:
        """Whether it has been silent for too long, at this time of the loop's clock."""
        limit_s = self._limit_s if self._doubt is None else min(self._limit_s, DOUBTED_S)
        last = self._last if self._is_lingering else max(self._last, self._connection.received_at)
        if self._is_held or self._error is not None or now - last < limit_s - 0.001:
            return
        if self._is_lingering:
            self._close()
            return
        known = f", and it is known not to work: {self._doubt}" if self._doubt is not None else ""
        self._fail(TimedOut(self.endpoint.engine, f"nothing came from it for {limit_s:g} s{known}"))
        self._connection.abort()


def _ignore(_: bytes) -> bool:
    """The sink of an exchange whose response is complete in meaning."""
    return False


EngineResponse: TypeAlias = Exchange | DeltaResponse
