"""Streams and TLS on the connection to an engine: slow readers, the last bytes, certificates."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator
from functools import partial

import pytest
import pytest_asyncio

from backends.errors import Unreachable
from backends.http.exchange import Exchange
from backends.http.pool import ConnectionPool
from tests import RECORDED
from tests.fakes import wire
from tests.fakes.engine import FakeEngine
from tests.rigs.hop import OK, Server, chat_request, endpoint, take, until


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[ConnectionPool]:
    owner = ConnectionPool()
    yield owner
    await owner.aclose()
    assert owner.connections == 0


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as fake:
        yield fake


async def stream(pool: ConnectionPool, engine: FakeEngine, scenario: str) -> tuple[Exchange, list[bytes]]:
    return await pool.open(endpoint(engine.url), chat_request(f"fault:{scenario}", stream=True)), []


async def test_a_paused_stream_is_not_read_on_and_loses_nothing(pool: ConnectionPool, engine: FakeEngine) -> None:
    exchange, seen = await stream(pool, engine, "endless_stream")
    record = await engine.arrived()

    def sink(data: bytes) -> bool:
        seen.append(data)
        exchange.pause()
        return len(seen) == 3

    def has(count: int) -> bool:
        return len(seen) >= count

    pumping = asyncio.create_task(exchange.pump(sink))
    await asyncio.wait_for(record.blocked.wait(), 20)
    held = len(seen)
    for count in (2, 3):
        exchange.resume()
        await until(partial(has, count))
    await asyncio.wait_for(pumping, 20)
    exchange.close()

    assert held == 1
    assert b"".join(seen).startswith(b"data: ")


async def test_a_pause_from_before_pumping_still_holds(pool: ConnectionPool, engine: FakeEngine) -> None:
    """The client's own connection may be full before the first event comes (a pipelined request)."""
    exchange, seen = await stream(pool, engine, "endless_stream")
    record = await engine.arrived()
    exchange.pause()

    def sink(data: bytes) -> bool:
        seen.append(data)
        return False

    pumping = asyncio.create_task(exchange.pump(sink))
    await asyncio.wait_for(record.blocked.wait(), 20)
    size = sum(map(len, seen))
    pumping.cancel()
    await asyncio.gather(pumping, return_exceptions=True)
    exchange.close()

    assert size < 1 << 20


async def test_what_nobody_pumps_is_bounded(pool: ConnectionPool, engine: FakeEngine) -> None:
    exchange, seen = await stream(pool, engine, "endless_stream")
    record = await engine.arrived()
    await asyncio.wait_for(record.blocked.wait(), 20)

    def sink(data: bytes) -> bool:
        seen.append(data)
        return sum(map(len, seen)) > 4 << 20

    await asyncio.wait_for(exchange.pump(sink), 20)
    exchange.close()

    assert sum(map(len, seen)) > 4 << 20


async def test_a_pause_at_the_last_byte_does_not_stop_the_next_request(pool: ConnectionPool) -> None:
    """The piece that fills the client's connection may be the answer's last one; the connection is used again."""
    is_pumped = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await take(reader)
            writer.write(wire.SSE_HEAD)
            await is_pumped.wait()
            writer.write(wire.chunk(wire.DONE) + wire.LAST_CHUNK)

    async with Server(serve) as server:
        for _ in range(2):
            exchange = await pool.open(endpoint(server.url), chat_request(stream=True))

            def sink(_: bytes, exchange: Exchange = exchange) -> bool:
                exchange.pause()
                return False

            pumping = asyncio.create_task(exchange.pump(sink))
            asyncio.get_running_loop().call_soon(is_pumped.set)
            await asyncio.wait_for(pumping, 20)
            exchange.close()

        assert server.connections == 1


async def test_after_the_end_mark_the_last_bytes_are_waited_for_and_the_connection_is_used_again(
    pool: ConnectionPool,
) -> None:
    ended = asyncio.Event()

    async def slow_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await take(reader)
            writer.write(wire.SSE_HEAD + wire.chunk(wire.DONE))
            await ended.wait()
            writer.write(wire.LAST_CHUNK)

    async with Server(slow_end) as server:
        exchange = await pool.open(endpoint(server.url), chat_request(stream=True))
        await exchange.pump(lambda data: data.endswith(wire.DONE))
        exchange.linger()
        exchange.close()
        ended.set()
        await until(lambda: pool.idle == 1)

        await (again := await pool.open(endpoint(server.url), chat_request(stream=True))).pump(lambda _: True)
        again.linger()

        assert server.connections == 1


async def test_an_engine_that_does_not_end_its_stream_is_left(pool: ConnectionPool, engine: FakeEngine) -> None:
    exchange, _ = await stream(pool, engine, "endless_stream")
    record = await engine.arrived()
    await exchange.pump(lambda _: True)

    exchange.linger()

    await asyncio.wait_for(record.closed_by_peer.wait(), 20)


# -- TLS


async def test_a_certificate_nobody_vouches_for_is_unreachable(pool: ConnectionPool) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(RECORDED / "self_signed.pem")
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]

    with pytest.raises(Unreachable, match="no secure connection to it"):
        await pool.open(endpoint(f"https://127.0.0.1:{port}/v1"), chat_request())
    server.close()
    await server.wait_closed()


async def test_certificates_are_read_once_and_not_on_the_loop(
    pool: ConnectionPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took 0.2 s of everybody's time for each engine."""
    threads: list[int] = []
    make = ssl.create_default_context

    def counted() -> ssl.SSLContext:
        threads.append(threading.get_ident())
        if len(threads) == 1:
            raise ssl.SSLError(1, "a broken bundle")
        return make()

    monkeypatch.setattr(ssl, "create_default_context", counted)

    for port in (1, 1, 2, 3):
        with pytest.raises(Unreachable):
            await pool.open(endpoint(f"https://127.0.0.1:{port}/v1"), chat_request())

    assert len(threads) == 2  # what failed is tried again
    assert threading.get_ident() not in threads


async def test_a_server_that_speaks_no_tls_is_unreachable(pool: ConnectionPool) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await reader.read()

    async with Server(plain) as server:
        with pytest.raises(Unreachable, match="no secure connection to it"):
            await pool.open(endpoint(server.url.replace("http:", "https:")), chat_request())
