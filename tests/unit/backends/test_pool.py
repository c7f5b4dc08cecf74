"""The connection to an engine over real sockets: how it begins and ends, and what a failure means for the request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from backends.endpoint import Endpoint
from backends.errors import BackendError, Broken, Disconnected, NotTaken, TimedOut, Unreachable
from backends.http.connection import Connection
from backends.http.exchange import Exchange
from backends.http.pool import ConnectionPool, UpstreamRequest, header_lines, route_to
from tests.fakes import wire
from tests.fakes.engine import FakeEngine
from tests.rigs.hop import HASTY, OK, Server, chat_request, endpoint, read, take, until


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


# -- connections


async def test_one_connection_serves_many_requests_in_turn(pool: ConnectionPool, engine: FakeEngine) -> None:
    for _ in range(5):
        assert json.loads(await read(pool, endpoint(engine.url)))["choices"]

    assert {record.connection for record in engine.posts} == {1}
    assert pool.connections == 1


async def test_requests_at_the_same_time_have_connections_of_their_own(
    pool: ConnectionPool, engine: FakeEngine
) -> None:
    await asyncio.gather(*(read(pool, endpoint(engine.url)) for _ in range(5)))

    assert pool.connections == engine.connections <= 5


async def test_an_idle_connection_expires(pool: ConnectionPool, engine: FakeEngine) -> None:
    await read(pool, endpoint(engine.url))

    await until(lambda: pool.connections == 0)

    await until(lambda: engine.open_connections == 0)


async def test_a_connection_that_the_engine_closed_while_idle_is_not_used(pool: ConnectionPool) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(reader)
        writer.write(OK)
        await writer.drain()
        writer.close()

    async with Server(once) as server:
        for _ in range(3):
            assert await read(pool, endpoint(server.url, is_ours=False)) == b'{"ok":1}'
            await until(lambda: pool.connections == 0)

        assert server.connections == 3


async def test_bytes_that_nobody_asked_for_make_an_idle_connection_unfit(pool: ConnectionPool) -> None:
    async def chatty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(reader)
        writer.write(OK)
        await was_read.wait()
        writer.write(OK)
        await reader.read()

    was_read = asyncio.Event()
    async with Server(chatty) as server:
        await read(pool, endpoint(server.url))
        was_read.set()

        await until(lambda: pool.connections == 0)


@pytest.mark.parametrize("more", [b"HTT", OK])
async def test_bytes_behind_a_response_do_not_begin_the_next_one(pool: ConnectionPool, more: bytes) -> None:
    async def generous(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(reader)
        writer.write(OK + more)
        await reader.read()

    async with Server(generous) as server:
        for _ in range(2):
            assert await read(pool, endpoint(server.url)) == b'{"ok":1}'
        assert server.connections == 2


async def test_a_response_that_came_before_its_request_was_written_leaves_no_connection(pool: ConnectionPool) -> None:
    connection = Connection(lambda _: None)
    connection.connection_made(asyncio.Transport())
    exchange = Exchange(endpoint("http://engine"), connection, lambda *_: None, "engine")
    connection.send(exchange, b"request")
    connection.data_received(OK)

    assert await exchange.read(100) == b'{"ok":1}'
    assert not connection.is_reusable


@pytest.mark.parametrize("head", [b"connection: close\r\n", b""])
async def test_an_answer_that_ends_with_its_connection_is_whole_but_leaves_nothing(
    pool: ConnectionPool, head: bytes
) -> None:
    async def until_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\nall of it")
        writer.close()

    async with Server(until_close) as server:
        assert await read(pool, endpoint(server.url)) == b"all of it"
        await until(lambda: pool.connections == 0)


async def test_an_answer_before_the_whole_request_was_read_leaves_no_connection(pool: ConnectionPool) -> None:
    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(wire.whole(413, b"{}"))
        await writer.drain()
        await asyncio.Event().wait()

    async with Server(hasty) as server:
        assert await read(pool, endpoint(server.url), chat_request(pad=32 << 20)) == b"{}"
        assert pool.connections <= 1
        await until(lambda: pool.connections == 0)


async def test_closing_leaves_no_connection_open_not_even_under_way(engine: FakeEngine) -> None:
    owner = ConnectionPool()
    await read(owner, endpoint(engine.url))
    opening = asyncio.create_task(owner.open(endpoint(engine.url), chat_request("fault:never_answers")))
    await engine.arrived(2)

    await owner.aclose()

    assert owner.connections == 0
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)


async def test_cancelling_closes_the_connection_so_that_the_engine_stops(
    pool: ConnectionPool, engine: FakeEngine
) -> None:
    opening = asyncio.create_task(pool.open(endpoint(engine.url), chat_request("fault:never_answers")))
    record = await engine.arrived()

    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)

    await asyncio.wait_for(record.closed_by_peer.wait(), 20)


# -- what a failure says


NOT_TAKEN = {"fin_unread": True, "rst_before_answer": True, "accept_then_fin": False, "half_head": False}


@pytest.mark.parametrize("is_ours", [True, False])
@pytest.mark.parametrize("scenario", NOT_TAKEN)
async def test_only_a_reset_of_our_own_engine_before_any_answer_says_it_was_not_taken(
    pool: ConnectionPool, engine: FakeEngine, scenario: str, is_ours: bool
) -> None:
    engine.script(scenario)

    with pytest.raises(BackendError) as caught:
        await pool.open(endpoint(engine.url, is_ours=is_ours), chat_request())

    assert isinstance(caught.value, NotTaken) is (NOT_TAKEN[scenario] and is_ours)
    assert isinstance(caught.value, Unreachable | Disconnected)


async def test_a_refused_connection_is_unreachable(pool: ConnectionPool, engine: FakeEngine) -> None:
    engine.refuse()

    with pytest.raises(Unreachable, match="it refuses connections"):
        await pool.open(endpoint(engine.url), chat_request())


async def test_a_name_that_does_not_resolve_is_unreachable(pool: ConnectionPool) -> None:
    with pytest.raises(Unreachable, match="cannot be resolved"):
        await pool.open(endpoint("http://no-such-host.invalid/v1"), chat_request())


async def test_a_missing_unix_socket_is_unreachable_and_its_path_is_not_shown(pool: ConnectionPool) -> None:
    with pytest.raises(Unreachable) as caught:
        await pool.open(endpoint("unix:/nowhere/engine.sock"), chat_request())

    assert "/nowhere" not in caught.value.message


@pytest.mark.parametrize("scenario", ["never_answers", "headers_then_nothing", "stall_mid_body"])
async def test_silence_ends_in_time_and_closes_the_connection(
    pool: ConnectionPool, engine: FakeEngine, scenario: str
) -> None:
    with pytest.raises(TimedOut, match=r"nothing came from it for 0\.2 s"):
        await read(pool, endpoint(engine.url, timeouts=HASTY), chat_request(f"fault:{scenario}"))

    record = await engine.arrived()
    await asyncio.wait_for(record.closed_by_peer.wait(), 20)


@pytest.mark.parametrize("scenario", ["garbage", "bad_header_line", "bad_length", "redirect_307", "gzip_bomb"])
async def test_what_is_no_answer_in_our_protocol_is_broken(
    pool: ConnectionPool, engine: FakeEngine, scenario: str
) -> None:
    with pytest.raises(Broken):
        await read(pool, endpoint(engine.url), chat_request(f"fault:{scenario}"))

    record = await engine.arrived()
    await asyncio.wait_for(record.ended.wait(), 20)


async def test_an_answer_larger_than_the_limit_is_broken_and_not_read_on(
    pool: ConnectionPool, engine: FakeEngine
) -> None:
    exchange = await pool.open(endpoint(engine.url), chat_request("fault:endless_body"))

    with pytest.raises(Broken, match="larger than 1000000 bytes"):
        await exchange.read(1_000_000)
    exchange.close()

    record = await engine.arrived()
    await asyncio.wait_for(record.closed_by_peer.wait(), 20)


# -- what is sent


@pytest.mark.parametrize("scenario", ["continue_first", "early_hints_first"])
async def test_informational_answers_are_skipped(pool: ConnectionPool, engine: FakeEngine, scenario: str) -> None:
    exchange = await pool.open(endpoint(engine.url), chat_request(f"fault:{scenario}"))

    assert exchange.status == 200
    assert "link" not in exchange.headers
    assert json.loads(await exchange.read(1 << 20))["choices"]
    exchange.close()
    assert pool.connections == 1


@pytest.mark.parametrize("size", [0, 60_000, 70_000, 8 << 20])
async def test_a_body_of_any_size_arrives_as_it_is(pool: ConnectionPool, engine: FakeEngine, size: int) -> None:
    sent = chat_request(pad=size)

    await read(pool, endpoint(engine.url, authorization="Bearer k"), sent)

    record = engine.posts[0]
    assert record.body == sent.body
    assert record.path == "/v1/chat/completions"
    assert record.header("authorization") == "Bearer k"
    assert record.header("accept-encoding") == "identity"
    assert record.header("host") == engine.url.removeprefix("http://").removesuffix("/v1")


@pytest.mark.parametrize("bad", ["a\r\nx: y", "a\nb", "a\rb", "a\0b"])
async def test_a_header_that_would_break_the_head_is_refused_before_anything_is_sent(
    pool: ConnectionPool, engine: FakeEngine, bad: str
) -> None:
    for headers in ([("x", bad)], [(bad, "x")]):
        with pytest.raises(ValueError, match="line break"):
            await pool.open(endpoint(engine.url), UpstreamRequest("POST", "/chat/completions", b"{}", headers))
        with pytest.raises(ValueError, match="line break"):
            header_lines(headers)
        with pytest.raises(ValueError, match="line break"):
            route_to(Endpoint("engine", 1, engine.url, dict(headers)))

    assert (engine.connections, pool.connections) == (0, 0)


async def test_a_changed_key_of_the_same_start_is_used_at_once(pool: ConnectionPool, engine: FakeEngine) -> None:
    """A server that somebody else runs does not start again when its key in the configuration changes."""
    for key in ("old", "new"):
        await read(pool, endpoint(engine.url, authorization=key))

    assert [post.header("authorization") for post in engine.posts] == ["old", "new"]


async def test_a_unix_socket_is_spoken_to_from_the_root(pool: ConnectionPool, tmp_path: Path) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await take(reader))
        writer.write(OK)
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "s")
    assert await read(pool, endpoint(f"unix:{tmp_path}/s"), UpstreamRequest("GET", "/health")) == b'{"ok":1}'
    await pool.aclose()
    server.close()

    assert heads[0].startswith(b"GET /health HTTP/1.1\r\nhost: localhost\r\n")
    assert b"content-length" not in heads[0]
