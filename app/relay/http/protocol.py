"""Our HTTP/1.1 protocol class: uvicorn's httptools one with deadlines, bounds and JSON errors.

Bounds come from app.table.Limits: headers within `headers_s` (silent connections too), bodies within `body_s`, idle
connections for `idle_s`, a reader that takes nothing for `stalled_reader_s` is dropped.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from app.errors import JSON, Problem
from app.relay.http.response import ClientResponse
from app.table import Limits

MAX_HEADER_LINES = 256
MAX_HEAD_BYTES = 64 * 1024
EXTENSION = "modelport"
# How often we look whether a client is still there whose connection is not read: it counts as gone within a second.
PEER_S = 0.5
_ESTABLISHED = 1  # TCP_ESTABLISHED, the first byte of Linux's struct tcp_info
_RESET = struct.pack("ii", 1, 0)  # linger, for no time
# How much is parsed at once; a request that comes behind another one waits unparsed.
STEP_BYTES = 8 * 1024
# After we hung up on a client that was sending: one that then neither sends nor reads for so long is dropped.
LINGER_S = 2.0


class ServerProtocol(HttpToolsProtocol):
    """One client connection. tests/unit/house/test_declared_edges.py lists what it uses of uvicorn's class."""

    def __init__(
        self,
        limits: Callable[[], Limits],
        is_ending: Callable[[], bool],
        refused: Callable[[str], None],
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits()
        self._is_ending = is_ending
        self._refused = refused  # is told the code of each refusal
        # Of requests whose answer is not complete; the first one is being answered.
        self._responses: deque[ClientResponse] = deque()
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._peer_check: asyncio.TimerHandle | None = None
        self._head_bytes = 0  # since the last request, its headers' end, or the last piece of its body
        self._header_lines = self._header_bytes = 0
        self._in_head = True
        self._awaits_body = False
        self._early = bytearray()  # what came behind a request that is still being answered
        self._is_refused = self._is_hanging_up = False
        self._waits_for_reader = False  # the next request is not begun before this client has read its answers
        self._dropped_bytes = 0
        self.timeout_keep_alive = self._limits.idle_s  # type: ignore[assignment]  # call_later takes fractions

    # -- deadlines

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
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
                self._dropped_bytes += len(data) - start
                return
            if self._in_head and (self._responses or self._waits_for_reader):
                # Kept, and reading goes on, because a connection that is not read does not say that its client left.
                self._early += data[start:]
                if len(self._early) > MAX_HEAD_BYTES:
                    self.flow.pause_reading()
                    self._watch_peer()
                return
            self._feed(data[start : start + STEP_BYTES] if len(data) > STEP_BYTES else data)

    def _watch_peer(self) -> None:
        """While we do not read, only the system knows that the client has left."""
        if self._peer_check is not None:
            self._peer_check.cancel()
            self._peer_check = None
        if not self.flow.read_paused or self.transport.is_closing():
            return
        if _has_left(self.transport.get_extra_info("socket")):
            self.transport.abort()
        else:
            self._peer_check = self.loop.call_later(PEER_S, self._watch_peer)

    def _feed(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        is_first = self._in_head and self._head_bytes == 0
        self._head_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError as exc:
            self.refuse(_refusal(exc))
            return
        if self._head_bytes > MAX_HEAD_BYTES:  # also a trailer or a chunk's extension without end
            self.refuse(_too_large())
        elif self._in_head and self._head_bytes and is_first:
            self._set_deadline(self._limits.headers_s, self._late_head)
        elif not self._in_head and not self._awaits_body and not self._is_refused:
            self._awaits_body = True
            self._set_deadline(self._limits.body_s, self._late_body)

    def _parse(self, data: bytes) -> None:
        """Answer a request for another protocol (Java's client sends `upgrade` with its first one) as if it were none.

        The parser skips such a request's body, so a new parser reads the request again without that header.
        """
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as exc:
                method, version = self.parser.get_method(), self.parser.get_http_version().encode()
                lines = [b"%b: %b\r\n" % pair for pair in self.headers if pair[0] != b"upgrade"]
                head = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, b"".join(lines))
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
                data = head + data[exc.args[0] :]

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_lines = self._header_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_lines += 1
        self._header_bytes += len(name) + len(value) + 4
        if self._header_lines > MAX_HEADER_LINES or self._header_bytes > MAX_HEAD_BYTES:
            raise _too_large()
        if self._in_head:  # trailers are counted and dropped
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            return
        self._check_head()
        self._in_head, self._head_bytes = False, 0
        response = ClientResponse(self, time.perf_counter())
        self.scope["extensions"] = {EXTENSION: response}  # type: ignore[dict-item]
        super().on_headers_complete()
        response.cycle = self.cycle
        self._responses.append(response)
        self._awaits_body = False  # most bodies come with their headers: the deadline is set where one does not (_feed)

    def _check_head(self) -> None:
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise _invalid_http()
        hosts = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding" and (value.lower() != b"chunked" or version == "1.0"):
                raise _invalid_http()
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            raise Problem(400, "invalid_host", "A request has exactly one Host header.")
        if len(self.url) > MAX_HEAD_BYTES:
            raise _too_large()
        if not (self.url.startswith(b"/") or self.url == b"*") or not self.url.isascii():
            raise Problem(400, "invalid_path", "The request's target must be a path that starts with '/'.")

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._cancel_deadline()
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_deadline()
        self._cancel_stall()
        self._unset_keepalive_if_required()
        if self._peer_check is not None:
            self._peer_check.cancel()
        super().connection_lost(exc)
        self.pipeline.clear()
        responses, self._responses = self._responses, deque()
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
            for response in self._responses
            if response.cycle and (response.is_started or not response.cycle.more_body)
        ]
        if under_way:
            under_way[-1].keep_alive = False
        elif not self._is_hanging_up and not self.transport.is_closing():
            body = problem.body()
            lines = [b"%b: %b\r\n" % pair for pair in self.server_state.default_headers]
            lines += [f"{name}: {value}\r\n".encode("latin-1") for name, value in problem.headers.items()]
            head = b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (JSON.encode(), len(body))
            self.transport.write(b"".join((STATUS_LINE[problem.status], *lines, head, body)))
            self.hang_up()
            for response in self._responses:
                response.cut()

    def hang_up(self) -> None:
        """Close after what is written. A client that is still sending gets its answer first: closing under it would
        reset the connection and destroy the answer before it is read, so the rest is read and dropped for a moment."""
        if self._is_hanging_up:
            return
        self._is_hanging_up = True
        self._cancel_deadline()
        is_sending = not self._in_head or self._is_refused or bool(self._early)
        if is_sending and self.transport.can_write_eof() and not self.transport.is_closing():
            self._is_refused = True
            self.transport.write_eof()
            self.flow.resume_reading()
            self._linger(LINGER_S, self.loop.time() + self._limits.body_s)
        else:
            self.transport.close()
            self._linger(self._limits.stalled_reader_s, None)

    def _linger(self, wait_s: float, until: float | None) -> None:
        self._cancel_stall()
        self._stall = self.loop.call_later(wait_s, self._check_linger, wait_s, until, self._movement())

    def _check_linger(self, wait_s: float, until: float | None, before: int) -> None:
        is_late = until is not None and self.loop.time() > until
        if is_late or self._movement() <= before:
            self._drop()
        else:
            self._linger(wait_s, until)

    def _movement(self) -> int:
        """Grows while the client sends or reads."""
        return self._dropped_bytes - self.transport.get_write_buffer_size()

    def on_response_complete(self) -> None:
        if self._is_hanging_up:
            return
        if self.flow.write_paused:  # else answers to a client that only sends would pile up
            self._waits_for_reader = True
            return
        self._waits_for_reader = False
        super().on_response_complete()
        if self._early and not self._responses:
            early, self._early = bytes(self._early), bytearray()
            self.data_received(early)

    def is_last(self, response: ClientResponse) -> bool:
        """Whether the connection closes behind this answer, because the gateway ends. Requests that came behind this
        one already are answered first."""
        return self._is_ending() and not self._early and (not self._responses or self._responses[-1] is response)

    @property
    def is_quiet(self) -> bool:
        """Whether there is no request, nor the beginning of one."""
        return self._in_head and not (self._head_bytes or self._responses or self._early or self._is_hanging_up)

    def complete(self, response: ClientResponse) -> None:
        """That request is answered."""
        if self._responses and self._responses[0] is response:
            self._responses.popleft()

    def timeout_keep_alive_handler(self) -> None:
        if not self.transport.is_closing():
            self.hang_up()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._responses:
            self._responses[0].full()
        if not self._is_hanging_up:
            self._watch_reader(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self._is_hanging_up:
            self._cancel_stall()
        if self._responses:
            self._responses[0].drained()
        if self._waits_for_reader:
            self.on_response_complete()

    def _drop(self) -> None:
        """End a connection whose client does not read. Without the reset the system would keep what it has not read,
        megabytes of it, and go on offering it for minutes after we closed."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def _cancel_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _watch_reader(self, waiting: int) -> None:
        self._stall = self.loop.call_later(self._limits.stalled_reader_s, self._check_reader, waiting)

    def _check_reader(self, waiting: int) -> None:
        now = self.transport.get_write_buffer_size()
        if now >= waiting:
            self._drop()
        else:
            self._watch_reader(now)


def _has_left(sock: socket.socket) -> bool:
    """Whether the client has closed its side (on Linux; elsewhere that shows only once all it sent was read)."""
    if sys.platform != "linux":
        return False
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED


def _too_large() -> Problem:
    message = f"The request's headers are larger than {MAX_HEAD_BYTES} bytes or more than {MAX_HEADER_LINES} lines."
    return Problem(431, "headers_too_large", message)


def _refusal(error: httptools.HttpParserError) -> Problem:
    for cause in (error.__cause__, error.__context__):
        if isinstance(cause, Problem):
            return cause
    return _invalid_http()


def _invalid_http() -> Problem:
    return Problem(400, "invalid_http", "This is not a valid HTTP/1.1 request.")
