"""Requests to engines: connections kept for a moment, one exchange on each, and errors in our own words.

`ConnectionPool.open` sends a request once and returns when the response's head has come. What it raises says whether
the engine can have taken the request (backends/errors.py).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import msgspec

from backends.endpoint import Endpoint
from backends.errors import Unreachable
from backends.http.carrying import in_task
from backends.http.connection import Connection
from backends.http.exchange import Exchange

# Below the shortest idle timeout in the field (uvicorn's and cpp-httplib's 5 s): a connection that the engine is about
# to close is never used. At that instant 66 of 600 POSTs failed (docs/decisions.md, "Retries").
IDLE_S = 1.5
_SWEEP_S = IDLE_S / 3
# How often the exchanges' deadlines are looked at: each is met so much late at most.
LOOK_S = 0.1
MAX_IDLE_PER_ADDRESS = 256
_JOIN_BYTES = 64 * 1024
# An engine has so many paths; what more there are (names in a path) is written anew.
MOST_BEGINS = 64


class UpstreamRequest(msgspec.Struct, frozen=True):
    """One request: `path` is appended to the endpoint's address; `headers` are pairs of name and value, which must not
    hold a line break or NUL.
    """

    method: str
    path: str
    body: bytes = b""
    headers: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class _Route:
    """Where and how to connect to an endpoint's address, and the header lines that every request to it has."""

    address: str
    host: str
    port: int
    unix: str | None
    is_tls: bool
    name: str | None  # in its certificate, where that is not `host`
    prefix: bytes
    lines: bytes
    begins: dict[tuple[str, str], bytes] = field(default_factory=dict)  # of requests, by method and path


def route_to(endpoint: Endpoint) -> _Route:
    """Take an endpoint's address apart. ValueError for a header that would break the head of the request."""
    lines = header_lines(endpoint.headers)
    # Compressed responses cannot be read here; one that comes all the same is refused.
    lines += b"accept-encoding: identity\r\n"
    if endpoint.once:
        lines += b"connection: close\r\n"
    if endpoint.address.startswith("unix:"):
        head = b"host: localhost\r\n" + lines
        return _Route(endpoint.address, "localhost", 0, endpoint.address.removeprefix("unix:"), False, None, b"", head)
    url = urlsplit(endpoint.address)
    is_tls = url.scheme == "https"
    host = url.hostname or ""
    port = url.port or (443 if is_tls else 80)
    return _Route(
        address=f"{url.scheme}://{url.netloc}" + (f" at {endpoint.dial}" if endpoint.dial else ""),
        host=endpoint.dial or host,
        port=port,
        unix=None,
        is_tls=is_tls,
        name=host if is_tls and endpoint.dial else None,
        prefix=url.path.rstrip("/").encode("ascii"),
        lines=b"host: " + url.netloc.encode("idna" if not url.netloc.isascii() else "ascii") + b"\r\n" + lines,
    )


def header_lines(headers: Mapping[str, str] | Sequence[tuple[str, str]]) -> bytes:
    """Header lines as they are sent; ValueError when a line break or NUL is in one."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    text = "".join([f"{name}: {value}\r\n" for name, value in pairs])
    if text.count("\r") != len(pairs) or text.count("\n") != len(pairs) or "\0" in text:
        raise ValueError("a header holds a line break or NUL")
    return text.encode("latin-1")


class ConnectionPool:
    """Owns every connection of one relay to engines."""

    def __init__(self) -> None:
        self._routes: dict[str, tuple[Endpoint, _Route]] = {}
        self._idle: dict[str, list[Connection]] = {}
        self._open: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event | None = None
        self._doubts: Mapping[str, str] = {}
        self._tls: asyncio.Task[ssl.SSLContext] | None = None

    @property
    def connections(self) -> int:
        """How many connections are open now, idle ones included."""
        return len(self._open)

    @property
    def idle(self) -> int:
        """How many of the open connections are idle."""
        return sum(map(len, self._idle.values()))

    async def open(self, endpoint: Endpoint, request: UpstreamRequest) -> Exchange:
        """Send the request once and wait for the head of its response, for `timeouts.first_byte_s` at most.

        Raises NotTaken (Unreachable) or Taken (Disconnected, TimedOut, Broken). Cancelling it closes the connection.
        """
        route = self._route(endpoint)
        head = _head(route, request)
        connection = self._pick(route) or await self._connect(endpoint, route)
        exchange = self._send(endpoint, route, connection, head, request.body)
        try:
            await exchange.head()
        except BaseException:
            exchange.close()
            raise
        return exchange

    def _send(self, endpoint: Endpoint, route: _Route, connection: Connection, head: bytes, body: bytes) -> Exchange:
        exchange = Exchange(endpoint, connection, self._done, route.address)
        if len(body) <= _JOIN_BYTES:
            connection.send(exchange, head + body)
        else:
            connection.send(exchange, head, body)
        if self._doubts:
            exchange.doubt(self._doubts.get(endpoint.engine))
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(LOOK_S, self._look)
        return exchange

    def _look(self) -> None:
        """At the deadlines of the exchanges that are under way, until there is none."""
        loop = asyncio.get_running_loop()
        now, under_way = loop.time(), False
        for connection in list(self._open):
            exchange = connection.listener
            if isinstance(exchange, Exchange):
                under_way = True
                exchange.look(now)
        self._looking = loop.call_later(LOOK_S, self._look) if under_way else None

    def doubt(self, reasons: Mapping[str, str]) -> None:
        """The engines that are known not to work now, with the reasons; their responses under way are given less time
        (Exchange.doubt).
        """
        if reasons == self._doubts:
            return
        self._doubts = reasons
        for connection in list(self._open):
            exchange = connection.listener
            if isinstance(exchange, Exchange):
                exchange.doubt(reasons.get(exchange.endpoint.engine))

    async def aclose(self) -> None:
        """Close every connection and wait until the loop has seen them go."""
        for connection in list(self._open):
            connection.abort()
        if self._tls is not None:
            await asyncio.wait({self._tls})
        for timer in (self._sweeper, self._looking):
            if timer is not None:
                timer.cancel()
        if self._open:
            self._emptied = asyncio.Event()
            await self._emptied.wait()

    def _closed(self, connection: Connection) -> None:
        self._open.discard(connection)
        if self._emptied is not None and not self._open:
            self._emptied.set()

    def _route(self, endpoint: Endpoint) -> _Route:
        known, route = self._routes.get(endpoint.engine, (None, None))
        # A new configuration may change an endpoint's key or address without a new start of the engine.
        if route is None or (known is not endpoint and known != endpoint):
            route = route_to(endpoint)
            self._routes[endpoint.engine] = endpoint, route
        return route

    def _pick(self, route: _Route) -> Connection | None:
        """An idle connection there that can be used; None where there is none."""
        idle = self._idle.get(route.address)
        while idle:
            connection = idle.pop()
            is_fresh = connection.idle_since >= connection.loop.time() - IDLE_S
            if connection.is_reusable and is_fresh and not connection.transport.is_closing():
                return connection
            connection.abort()
        return None

    async def _connect(self, endpoint: Endpoint, route: _Route) -> Connection:
        await in_task()
        loop = asyncio.get_running_loop()

        def make() -> Connection:
            return Connection(self._closed)

        try:
            async with asyncio.timeout(endpoint.timeouts.connect_s):
                if route.unix is not None:
                    _, connection = await loop.create_unix_connection(make, route.unix)
                else:
                    tls = await self._context() if route.is_tls else None
                    _, connection = await loop.create_connection(
                        make, route.host, route.port, ssl=tls, server_hostname=route.name
                    )
        except TimeoutError as exc:
            message = f"no connection to it within {endpoint.timeouts.connect_s:g} s"
            raise Unreachable(endpoint.engine, message) from exc
        except (OSError, UnicodeError) as exc:
            raise Unreachable(endpoint.engine, _why(exc)) from exc
        if connection.is_closed:
            raise Unreachable(endpoint.engine, "it closed the connection at once")
        self._open.add(connection)
        return connection

    async def _context(self) -> ssl.SSLContext:
        """The same for all engines, made once and in a thread: reading the system's certificates takes 0.2 s."""
        if self._tls is None or (self._tls.done() and (self._tls.cancelled() or self._tls.exception() is not None)):
            self._tls = asyncio.create_task(asyncio.to_thread(ssl.create_default_context), name="certificates")
        return await asyncio.shield(self._tls)

    def _done(self, connection: Connection, address: str) -> None:
        """An exchange is over: keep its connection for a moment, or close it."""
        idle = self._idle.setdefault(address, [])
        # An engine that responded before it read the whole request would take the rest of it for the next one.
        is_unsent = not connection.is_closed and connection.transport.get_write_buffer_size() > 0
        if not connection.is_reusable or connection.is_closed or is_unsent or len(idle) >= MAX_IDLE_PER_ADDRESS:
            if not connection.is_closed:
                connection.abort()
            return
        connection.idle_since = connection.loop.time()
        connection.release()
        idle.append(connection)
        if self._sweeper is None:
            self._sweeper = connection.loop.call_later(_SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        oldest = loop.time() - IDLE_S
        for address, idle in list(self._idle.items()):
            for connection in [c for c in idle if c.idle_since < oldest or c.is_closed]:
                idle.remove(connection)
                connection.abort()
            if not idle:
                del self._idle[address]
        self._sweeper = loop.call_later(_SWEEP_S, self._sweep) if self._idle else None


def _head(route: _Route, request: UpstreamRequest) -> bytes:
    """The head of the request; ValueError for a header that would break it."""
    body = request.body
    begin = route.begins.get((request.method, request.path))
    if begin is None:
        path = route.prefix + request.path.encode("ascii")
        begin = b"%b %b HTTP/1.1\r\n%b" % (request.method.encode("ascii"), path, route.lines)
        if len(route.begins) < MOST_BEGINS:
            route.begins[request.method, request.path] = begin
    own = header_lines(request.headers) if request.headers else b""
    if body or request.method == "POST":
        return b"%b%bcontent-length: %d\r\n\r\n" % (begin, own, len(body))
    return b"%b%b\r\n" % (begin, own)


def _why(exc: Exception) -> str:
    match exc:
        case ConnectionRefusedError():
            return "it refuses connections"
        case ssl.SSLError():
            return f"no secure connection to it ({getattr(exc, 'reason', None) or type(exc).__name__})"
        case socket.gaierror():
            return "its host name cannot be resolved"
        case _:
            return f"no connection to it ({type(exc).__name__})"
