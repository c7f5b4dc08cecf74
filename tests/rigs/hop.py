"""What tests of the connection to engines share: endpoints, requests, and a server that does what the test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from backends.endpoint import Endpoint, Timeouts
from backends.http.pool import ConnectionPool, UpstreamRequest
from tests.fakes import wire

WAITS = Timeouts(connect_s=5, first_byte_s=20, between_events_s=20)
HASTY = Timeouts(connect_s=5, first_byte_s=0.2, between_events_s=0.2)
OK = wire.whole(200, b'{"ok":1}')
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def endpoint(address: str, *, is_ours: bool = True, timeouts: Timeouts = WAITS, **headers: str) -> Endpoint:
    return Endpoint("engine", 1, address, headers, timeouts, is_ours=is_ours)


def chat_request(model: str = "fake", *, stream: bool = False, pad: int = 0) -> UpstreamRequest:
    fields = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "hi"}], "pad": "x" * pad}
    return UpstreamRequest(
        "POST", "/chat/completions", json.dumps(fields).encode(), [("content-type", "application/json")]
    )


async def read(pool: ConnectionPool, where: Endpoint, what: UpstreamRequest | None = None) -> bytes:
    """The whole body of the response."""
    exchange = await pool.open(where, what or chat_request())
    try:
        return await exchange.read(1 << 24)
    finally:
        exchange.close()


async def until(is_so: Callable[[], bool]) -> None:
    """Let the loop run until it is so: the pool reports to nobody that a connection has gone."""
    async with asyncio.timeout(20):
        while True:
            if is_so():
                return
            await asyncio.sleep(0.005)


class Server:
    """A server that does with each connection what the test says."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.connections = 0

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()


async def take(reader: asyncio.StreamReader) -> bytes:
    """Read one request; returns its head."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b": 0")
    await reader.readexactly(int(length.partition(b":")[2]))
    return head
