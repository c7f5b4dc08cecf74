"""How an engine's response reaches the client: in one piece, or event by event as it comes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from app.dialects.client_api import ResponseEncoder
from app.dialects.continuing.continued_chunks import ContinuedChunks
from app.dialects.continuing.permission import Continuable
from app.dialects.continuing.token_record import TokenRecord
from app.dialects.delta_stream import DeltaStream
from app.dialects.openai import response as openai_response
from app.dialects.openai.chunk_encoder import ChunkEncoder
from app.dialects.openai.normalize import ResponseContext
from app.dialects.openai.stream_reader import StreamReader
from app.dialects.sse import CONTENT_TYPE
from app.dialects.usage import Usage
from app.errors import JSON, Problem
from app.relay.http.request import Request
from app.relay.http.response import ClientResponse
from app.table import Limits
from backends.endpoint import Endpoint
from backends.errors import Broken, Disconnected, TimedOut
from backends.http.exchange import EngineResponse, Exchange, ResponseTimings

CLOCK_S = 0.002  # the loop counts whole milliseconds
STREAM_HEADERS = {"content-type": CONTENT_TYPE, "cache-control": "no-cache", "x-accel-buffering": "no"}


class ClientStream:
    """The client's side of one streamed response, whichever engine it comes from in the end.

    The status line waits for the engine's first event, so that a failure until then has a proper status. Only after
    `hold_s` is it sent early, and failures are events from then on. Whenever the client has got nothing for `hold_s`,
    at the beginning or between two events, it gets a comment, since proxies cut what is silent. `waits_for` says what
    for, asked anew for each.
    """

    def __init__(
        self,
        response: ClientResponse,
        headers: Mapping[str, str],
        limits: Limits,
        choices: int = 1,
        encoder: ResponseEncoder | None = None,
    ) -> None:
        self._response = response
        self._choices = choices
        self._headers = headers
        self._encoder = encoder
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._written_at = self._loop.time()
        self._hold = self._loop.call_later(limits.hold_s, self._keep_alive)
        self.waits_for: Callable[[], str] = lambda: "the model"
        self.first_token_at: float | None = None
        self.has_event = False
        self._reader: StreamReader | DeltaStream | None = None
        self._may_take_chunks = False
        self.continuable: Continuable | None = None
        self.tokens: TokenRecord | None = None  # of a stream that may go on at another engine
        self.endpoint: Endpoint | None = None  # which writes it
        self.ending: Callable[[Usage], None] | None = None  # is told what it cost, before its end mark goes out

    def settle(self) -> Usage:
        """What the response has cost until now, however it ended."""
        return self._reader.settle() if self._reader is not None else Usage()

    async def relay(
        self,
        exchange: EngineResponse,
        context: ResponseContext,
        *,
        hides_usage: bool,
        continuable: Continuable | None = None,
    ) -> Usage:
        """Pass the stream on until its end; raises BackendError, before or after the first event."""
        if not exchange.is_stream:
            await self._explain(exchange, context)
            raise Broken(exchange.endpoint.engine, "it did not answer with a stream of events")
        sink = self._begin(exchange, context, hides_usage=hides_usage, continuable=continuable)
        return await self._pump(exchange, sink)

    async def _pump(self, exchange: EngineResponse, sink: Callable[[Any], bool]) -> Usage:
        assert self._reader is not None
        self._response.when_full(exchange.pause, exchange.resume)
        try:
            await exchange.pump(sink)
        except (Disconnected, TimedOut):
            if not self._reader.is_finished:  # else it is complete, whatever happens to its connection
                raise
        return self._end(exchange)

    def _begin(
        self,
        exchange: EngineResponse,
        context: ResponseContext,
        *,
        hides_usage: bool,
        continuable: Continuable | None = None,
    ) -> Callable[[Any], bool]:
        """What takes the pieces of a response that is a stream (bytes, or deltas where the engine does not speak
        OpenAI), and says when it has enough; it raises BackendError."""
        reader: StreamReader | DeltaStream
        if isinstance(exchange, Exchange):
            reader = StreamReader(
                context,
                hides_usage=hides_usage and self._encoder is None,
                max_event_bytes=self._limits.max_event_bytes,
                choices=self._choices,
                encoder=self._encoder,
            )
        else:
            reader = DeltaStream(context, self._encoder or ChunkEncoder(context, hides_usage=hides_usage))
        self._reader = reader
        feed: Callable[[Any], bytes] = reader.feed
        if continuable is not None and isinstance(exchange, Exchange):
            self.endpoint = exchange.endpoint
            feed = self._without_tokens(reader, continuable)
        self._may_take_chunks = self._encoder is None and self.tokens is None

        def sink(data: Any) -> bool:
            self._pass(feed(data), reader)
            if reader.error is not None:
                raise reader.error
            if self._may_take_chunks:
                self._take_chunks(exchange, reader)
            return reader.is_done

        return sink

    def _end(self, exchange: EngineResponse) -> Usage:
        """The engine's stream is over: the rest of it, and the end mark. Raises BackendError where it is incomplete."""
        engine, reader = exchange.endpoint.engine, self._reader
        assert reader is not None
        if self.tokens is not None and (rest := self.tokens.rest()):
            assert isinstance(reader, StreamReader)
            self._pass(reader.feed(rest), reader)
        self._pass(reader.end(), reader)
        if not self.has_event:
            raise Broken(engine, "it sent a stream without an answer")
        if self._encoder is not None:
            reader.stats.note_times(exchange.timings)
            with _encoding(engine):
                tail = self._encoder.end(reader.settle(), reader.stats)
            self._is_ending(reader)
            self._open()
            self._response.write(tail)
        self._is_ending(reader)
        self.close()
        self._response.finish()
        exchange.linger()
        return reader.settle()

    def _is_ending(self, reader: StreamReader | DeltaStream) -> None:
        ending, self.ending = self.ending, None
        if ending is not None:
            ending(reader.settle())

    def _without_tokens(self, reader: Any, continuable: Continuable) -> Callable[[bytes], bytes]:
        """What the reader is fed through where the engine was asked for its tokens, which are kept here."""
        self.continuable = continuable
        feed: Callable[[bytes], bytes] = reader.feed
        if continuable.why_not:
            return feed
        limit = self._limits.max_event_bytes
        tokens = self.tokens = TokenRecord(continuable.telling, continuable.operation, limit)

        def stripped(data: bytes) -> bytes:
            try:
                return feed(tokens.strip(data))
            except ValueError as exc:
                raise Broken(reader.engine, f"it sent {exc}") from exc

        return stripped

    async def go_on(self, exchange: Exchange, chunks: ContinuedChunks) -> Usage:
        """Go on with a stream that broke off, with what another engine writes; as `relay`, and once at most."""
        reader, engine = self._reader, exchange.endpoint.engine
        assert isinstance(reader, StreamReader)
        if not exchange.is_stream:
            raise Broken(engine, "it did not answer with a stream of events")
        self.continuable = self.tokens = None
        reader.engine, reader.error = engine, None
        is_said = self._encoder is not None  # other dialects have no comments

        def sink(data: bytes) -> bool:
            nonlocal is_said
            events = chunks.feed(data)
            if events and not is_said:
                is_said = True
                self._response.write(f": continued on {engine}\n\n".encode())
            self._pass(reader.feed(events), reader)
            if reader.error is not None:
                raise reader.error
            return reader.is_done

        return await self._pump(exchange, sink)

    def fail(self, problem: Problem) -> None:
        """One error event, no end mark, and the connection is cut."""
        self.close()
        self._open()
        event = b"data: " + problem.body() + b"\n\n"
        self._response.write(event if self._encoder is None else self._encoder.failed(problem))
        if self.tells(problem):
            self._response.finish()
        else:
            self._response.cut()

    def tells(self, problem: Problem) -> bool:
        """Whether this failure is an event, whenever it comes, and ends the stream like a response: a cut one would be
        asked for again."""
        return self._encoder is not None and problem.code in self._encoder.event_codes

    def close(self) -> None:
        """No more comments."""
        self._hold.cancel()
        self.ending = None

    def _pass(self, events: bytes, reader: StreamReader | DeltaStream) -> None:
        if reader.error is not None and not events:
            return  # nothing good came yet: where nothing was sent either, the error has a status of its own
        if not self.has_event and reader.has_event:
            self.has_event = True
        if not self.has_event or not (events or self._encoder is not None):
            return
        if not self._response.is_started:
            self._open()
        if events:  # encoders keep some of it for the end
            if reader.is_done and self._encoder is None:
                self._is_ending(reader)
            self._response.write(events)
            self._written_at = self._loop.time()
        if self.first_token_at is None and reader.has_token:
            self.first_token_at = time.perf_counter()

    def _take_chunks(self, exchange: EngineResponse, reader: StreamReader | DeltaStream) -> None:
        """Once events are known by their bytes: from now on those that come as chunks pass as chunks, without being
        unpacked (docs/decisions.md)."""
        if self.first_token_at is None or not (isinstance(reader, StreamReader) and reader.is_learned):
            return
        self._may_take_chunks = False
        if not (isinstance(exchange, Exchange) and self._response.takes_chunks):
            return
        pass_chunks, write_chunks = reader.pass_chunks, self._response.write_chunks

        def taker(framed: bytes, now: float) -> bool:
            made = pass_chunks(framed)
            if made is None:
                return False
            write_chunks(made)
            self._written_at = now
            return True

        exchange.take_chunks(taker)

    def _open(self) -> None:
        if self._response.is_started:
            return
        headers = {**STREAM_HEADERS, **self._headers}
        if self._encoder is not None:
            headers["content-type"] = self._encoder.stream_type
        self._response.start(200, headers, None)

    def _keep_alive(self) -> None:
        """One timer for the whole stream: setting it anew for every event would cost more than the event."""
        now, hold_s = self._loop.time(), self._limits.hold_s
        left_s = self._written_at + hold_s - now
        if left_s < CLOCK_S:
            self._written_at, left_s = now, hold_s
            if not self._response.is_full:  # who has not read what there is needs no sign of life
                self._open()
                self._response.write(self._sign(self.waits_for()))
        self._hold = self._loop.call_later(left_s, self._keep_alive)

    def _sign(self, what: str) -> bytes:
        return f": waiting for {what}\n\n".encode() if self._encoder is None else self._encoder.waiting(what)

    async def _explain(self, exchange: EngineResponse, context: ResponseContext) -> None:
        """An error under status 200 says more than its type does."""
        body = await exchange.read(self._limits.max_event_bytes)
        if exchange.headers.get("content-type", "").startswith(JSON):
            openai_response.settle(context, body)


@contextlib.contextmanager
def _encoding(engine: str) -> Iterator[None]:
    """Broken for a response that cannot be put into the client's dialect."""
    try:
        yield
    except ValueError as exc:
        raise Broken(engine, f"it sent {exc}") from exc


def relay_whole(
    request: Request,
    context: ResponseContext,
    body: bytes,
    timings: ResponseTimings | None,
    ending: Callable[[Usage], None],
) -> Usage:
    """Check a whole response, and pass it on; what it cost, which `ending` is told before."""
    encoder = request.encoder
    if encoder is None:
        answer, usage = openai_response.settle(context, body)
        ending(usage)
        request.answer(200, answer)
        return usage
    if context.operation == "embeddings":
        answer, usage = openai_response.settle(context, body)
        with _encoding(context.engine):
            answer = encoder.embeddings(answer, usage)
    else:
        delta, usage, stats = openai_response.settle_delta(context, body)
        stats.note_times(timings)
        with _encoding(context.engine):
            answer = encoder.whole(delta, usage, stats)
    ending(usage)
    request.answer(200, answer, encoder.whole_type)
    return usage
