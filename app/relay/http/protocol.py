"""Our HTTP/1.1 protocol class: uvicorn's httptools one with deadlines, bounds and JSON errors.

Bounds come from app.table.Limits: headers within `headers_s` (silent connections too), bodies within `body_s`, idle
connections for `idle_s`, a reader that takes nothing for `stalled_reader_s` is dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from app.errors import JSON, Problem
from app.relay.http import request_head
from app.relay.http.client_watch import ClientWatch, has_left
from app.relay.http.request_head import MAX_HEAD_BYTES, MAX_HEADER_LINES, SMALL_HEAD_BYTES, BodySize, HeldRequest
from app.relay.http.response import ClientResponse, OwnCycle
from app.table import Limits
from backends.http.carrying import Carrier

EXTENSION = "modelport"
# How often we look whether a client is still there whose connection is not read: it counts as gone within a second.
PEER_S = 0.5
# How much is parsed at once; a request that comes behind another one waits unparsed.
STEP_BYTES = 8 * 1024
# After we hung up on a client that was sending: one that then neither sends nor reads for so long is dropped.
LINGER_S = 2.0
# What may be written later than at once: less than what makes the transport say that its client does not read.
LATER_BYTES = 16 * 1024
CLOCK_S = 0.002  # the loop counts whole milliseconds

Respond: TypeAlias = Callable[[HeldRequest], Coroutine[Any, Any, None]]


class ServerProtocol(HttpToolsProtocol):
    """One client connection. tests/unit/house/test_declared_edges.py lists what it uses of uvicorn's class.

    A small request that comes whole is carried by `respond` without a task (backends/http/carrying.py); uvicorn makes
    an ASGI task of every other one, and of all where `respond` is None.
    """

    def __init__(
        self,
        limits: Callable[[], Limits],
        is_ending: Callable[[], bool],
        refused: Callable[[str], None],
        respond: Respond | None,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits, self._is_ending = limits(), is_ending
        self._refused = refused  # is told the code of each refusal
        self._respond = respond
        self._incoming: HeldRequest | None = None  # which is not whole yet
        self._whole: HeldRequest | None = None  # which is to be carried as soon as the parser is done
        self._idle_since = 0.0
        self._later = b""  # to be written at the end of the event loop's turn
        # Of requests whose answer is not complete; the first one is being answered.
        self.responses: deque[ClientResponse] = deque()
        self._deadline: asyncio.TimerHandle | None = None
        self._watch = ClientWatch(self.loop)
        self._peer_check: asyncio.TimerHandle | None = None
        self._head_bytes = 0  # since the last request, its headers' end, or the last piece of its body
        self._trailer_lines = 0
        self._in_head, self._awaits_body = True, False
        self._early = bytearray()  # what came behind a request that is still being answered
        self._is_refused = self._is_hanging_up = False
        self._waits_for_reader = False  # the next request is not begun before this client has read its answers

    # -- deadlines

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch.transport = transport
        if len(self.connections) > self._limits.max_connections:
            self.refuse(Problem(503, "too_many_connections", "This gateway has as many connections as it accepts."))
            return
        self._set_deadline(self._limits.headers_s, self._late_head)

    def _set_deadline(self, seconds: float, call: Callable[[], None]) -> None:
        self._cancel_deadline()
        self._deadline = self.loop.call_later(seconds, call)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late_head(self) -> None:
        if self._head_bytes == 0:
            self.transport.abort()  # it never said anything: there is nobody to tell
        else:
            message = f"The request's headers were not complete within {self._limits.headers_s:g} s."
            self.refuse(Problem(408, "request_timeout", message))

    def _late_body(self) -> None:
        if self.flow.read_paused:
            self._set_deadline(self._limits.body_s, self._late_body)
            return
        message = f"The request's body was not complete within {self._limits.body_s:g} s."
        self.refuse(Problem(408, "request_timeout", message))

    # -- what comes in

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), STEP_BYTES):
            if self._is_refused:
                self._watch.dropped_bytes += len(data) - start
                return
            if self._in_head and (self.responses or self._waits_for_reader):
                # Kept, and reading goes on, because a connection that is not read does not say that its client left.
                self._early += data[start:]
                if len(self._early) > MAX_HEAD_BYTES:
                    self.flow.pause_reading()
                    self._watch_peer()
                return
            self._feed(data[start : start + STEP_BYTES] if len(data) > STEP_BYTES else data)
        if self._incoming is not None and not self._is_refused:
            self._let_go(self._incoming)

    def _watch_peer(self) -> None:
        """While we do not read, only the system knows that the client has left."""
        if self._peer_check is not None:
            self._peer_check.cancel()
            self._peer_check = None
        if not self.flow.read_paused or self.transport.is_closing():
            return
        if has_left(self.transport.get_extra_info("socket")):
            self.transport.abort()
        else:
            self._peer_check = self.loop.call_later(PEER_S, self._watch_peer)

    def _feed(self, data: bytes) -> None:
        self._read(data)
        whole, self._whole = self._whole, None
        if whole is not None:
            self._carry(whole)

    def _read(self, data: bytes) -> None:
        is_first = self._in_head and self._head_bytes == 0
        self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._read_as_none(data, exc)
            return
        except httptools.HttpParserError as exc:
            self.refuse(request_head.refusal(exc))
            return
        if self._head_bytes > MAX_HEAD_BYTES:  # also a trailer or a chunk's extension without end
            self.refuse(request_head.too_large())
        elif self._in_head and self._head_bytes and is_first:
            self._set_deadline(self._limits.headers_s, self._late_head)
        elif not self._in_head and not self._awaits_body and not self._is_refused:
            self._awaits_body = True
            self._set_deadline(self._limits.body_s, self._late_body)

    def _carry(self, held: HeldRequest) -> None:
        assert self._respond is not None
        if self.flow.read_paused:  # by uvicorn, for a request behind it; it would not say that its client left
            self.flow.resume_reading()
        carrier = Carrier(self._respond(held), self._carried)
        self.tasks.add(cast("asyncio.Task[None]", carrier))
        held.response.when_gone(carrier.cancel)
        carrier.start()

    def _carried(self, carrier: Carrier) -> None:
        self.tasks.discard(cast("asyncio.Task[None]", carrier))
        if carrier.has_failed and not self.transport.is_closing():  # else its client would wait for an answer
            self.hang_up()

    def _let_go(self, held: HeldRequest) -> None:
        """The rest of its body is still to come: it becomes uvicorn's."""
        self._incoming = self.cycle = None  # type: ignore[assignment]
        self._begin_task(held.response)
        if held.body:
            super().on_body(held.body)

    def _begin_task(self, response: ClientResponse) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expects
        self.scope["headers"] = headers
        self.scope["extensions"] = {EXTENSION: response}  # type: ignore[dict-item]
        super().on_headers_complete()
        response.cycle = self.cycle

    def _read_as_none(self, data: bytes, upgrade: httptools.HttpParserUpgrade) -> None:
        """Answer a request for another protocol (Java's client sends `upgrade` with its first one) as if it were none.

        The parser skips such a request's body, so a new parser reads the request again without that header.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%b: %b\r\n" % pair for pair in self.headers if pair[0] != b"upgrade"]
        head = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, b"".join(lines))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self._head_bytes -= len(data)
        self._read(head + data[upgrade.args[0] :])

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self._trailer_lines = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            self.headers.append((name.lower(), value))  # how many there are is looked at once, at their end
        else:  # trailers are counted and dropped
            self._trailer_lines += 1
            if len(self.headers) + self._trailer_lines > MAX_HEADER_LINES:
                raise request_head.too_large()

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            return
        version = self.parser.get_http_version()
        size = request_head.check(version, self.url, self.headers, may_be_large=self._head_bytes > SMALL_HEAD_BYTES)
        self._in_head, self._head_bytes = False, 0
        method = self.parser.get_method()
        response = ClientResponse(self, time.perf_counter(), is_head=method == b"HEAD", has_chunks=version == "1.1")
        self.expect_100_continue = size is BodySize.ASKS_FIRST
        if self._respond is None or size is not BodySize.SMALL or self.responses:
            self._begin_task(response)
        else:
            keeps_alive = version != "1.0" and self.parser.should_keep_alive()
            self.cycle = cast("Any", OwnCycle(self, keeps_alive))
            response.cycle = self.cycle
            self._incoming = HeldRequest(response, method, self.url, self.headers)
        self.responses.append(response)
        self._awaits_body = False  # most bodies come with their headers: the deadline is set where one does not (_feed)

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        if self._incoming is not None:
            self._incoming.body += body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        if self._deadline is not None:
            self._cancel_deadline()
        self._in_head, self._head_bytes = True, 0
        if self._incoming is not None:
            self._whole, self._incoming = self._incoming, None
            self.cycle.more_body = False
        else:
            super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_deadline()
        self._watch.stop()
        self._unset_keepalive_if_required()
        if self._peer_check is not None:
            self._peer_check.cancel()
        super().connection_lost(exc)
        self.pipeline.clear()
        responses, self.responses = self.responses, deque()
        for response in responses:
            response.lost()

    # -- what goes out

    def refuse(self, problem: Problem) -> None:
        """Refuse what cannot be read as a request, and hang up; answers that have begun are finished first."""
        self._cancel_deadline()
        self._is_refused = True
        self._refused(problem.code or "other")
        under_way = [
            response.cycle
            for response in self.responses
            if response.cycle and (response.is_started or not response.cycle.more_body)
        ]
        if under_way:
            under_way[-1].keep_alive = False
        elif not self._is_hanging_up and not self.transport.is_closing():
            body = problem.body()
            lines = [b"%b: %b\r\n" % pair for pair in self.server_state.default_headers]
            lines += [f"{name}: {value}\r\n".encode("latin-1") for name, value in problem.headers.items()]
            head = b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (JSON.encode(), len(body))
            self.write(b"".join((STATUS_LINE[problem.status], *lines, head, body)))
            self.hang_up()
            for response in self.responses:
                response.cut()

    def write(self, data: bytes) -> None:
        """Write it now, behind what is to be written later."""
        self._flush()
        self.transport.write(data)

    def write_later(self, data: bytes) -> None:
        """Write it at the end of the event loop's turn, as requests to engines are (Connection.send); at once where it
        is so much that only the transport knows whether the client reads it."""
        if len(data) + len(self._later) > LATER_BYTES:
            self.write(data)
            return
        if not self._later:
            self.loop.call_soon(self._flush)
        self._later += data

    def _flush(self) -> None:
        data, self._later = self._later, b""
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def hang_up(self) -> None:
        """Close after what is written. A client that is still sending gets its answer first: closing under it would
        reset the connection and destroy the answer before it is read, so the rest is read and dropped for a moment."""
        if self._is_hanging_up:
            return
        self._flush()
        self._is_hanging_up = True
        self._cancel_deadline()
        is_sending = not self._in_head or self._is_refused or bool(self._early)
        if is_sending and self.transport.can_write_eof() and not self.transport.is_closing():
            self._is_refused = True
            self.transport.write_eof()
            self.flow.resume_reading()
            self._watch.movement(LINGER_S, self.loop.time() + self._limits.body_s)
        else:
            self.transport.close()
            self._watch.movement(self._limits.stalled_reader_s)

    def on_response_complete(self) -> None:
        if self._is_hanging_up:
            return
        if self.flow.write_paused:  # else answers to a client that only sends would pile up
            self._waits_for_reader = True
            return
        self._waits_for_reader = False
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if self.pipeline:
                self._start_asgi_task(*self.pipeline.pop())
            else:
                self._keep_alive()
        if self._early and not self.responses:
            early, self._early = bytes(self._early), bytearray()
            self.data_received(early)

    def is_last(self, response: ClientResponse) -> bool:
        """Whether the connection closes behind this answer, because the gateway ends. Requests that came behind this
        one already are answered first."""
        return self._is_ending() and not self._early and (not self.responses or self.responses[-1] is response)

    @property
    def is_quiet(self) -> bool:
        """Whether there is no request, nor the beginning of one."""
        return self._in_head and not (self._head_bytes or self.responses or self._early or self._is_hanging_up)

    def complete(self, response: ClientResponse) -> None:
        """That request is answered."""
        if self.responses and self.responses[0] is response:
            self.responses.popleft()

    def _keep_alive(self) -> None:
        """One timer for many requests: setting it anew for each would cost more than parsing its headers."""
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(self._limits.idle_s, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """The timer: armed once and moved when it fires; not while there is a request, whose end arms it again."""
        self.timeout_keep_alive_task = None
        if not self.is_quiet or self.transport.is_closing():
            return
        left_s = self._idle_since + self._limits.idle_s - self.loop.time()
        if left_s > CLOCK_S:
            self.timeout_keep_alive_task = self.loop.call_later(left_s, self.timeout_keep_alive_handler)
        else:
            self.hang_up()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.responses:
            self.responses[0].full()
        if not self._is_hanging_up:
            self._watch.reader(self._limits.stalled_reader_s)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self._is_hanging_up:
            self._watch.stop()
        if self.responses:
            self.responses[0].drained()
        if self._waits_for_reader:
            self.on_response_complete()
