"""One connection's life: deadlines, bounds, early answers, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app.keys import digest
from app.table import Key, Limits
from tests.fakes.engine import FakeEngine
from tests.rigs.raw_client import Client, Reply, ask, chat, request
from tests.rigs.relay import Rig, backend, models, running
from tests.rigs.slow_client import SlowClient, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
MIB = 2**20
PATIENT = Limits(max_body_bytes=MIB)
HASTY = Limits(headers_s=0.3, body_s=0.3, idle_s=0.3, stalled_reader_s=0.3)
KEY = Key("office", digest("secret"))
SERVED = models("fake", "fault:endless_stream", "fault:endless_drip", "fault:fin_mid_stream")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as fake:
        yield fake


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rig(engine: FakeEngine) -> AsyncIterator[Rig]:
    async with running({"engine": backend(engine.url)}, SERVED, PATIENT) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def hasty(engine: FakeEngine) -> AsyncIterator[Rig]:
    async with running({"engine": backend(engine.url)}, SERVED, HASTY) as gateway:
        yield gateway


def post(body: bytes, **headers: str) -> bytes:
    return request("POST", CHAT, body, {name.replace("_", "-"): value for name, value in headers.items()})


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# -- deadlines


async def test_a_client_that_says_nothing_is_dropped_without_a_word(hasty: Rig) -> None:
    async with asyncio.timeout(20), Client(hasty.url) as client:
        assert await client.reader.read() == b""


@pytest.mark.parametrize("start", [b"P", b"POST /v1/chat", post(b"{}").partition(b"\r\n\r\n")[0]])
async def test_headers_that_do_not_end_are_refused_at_their_deadline(hasty: Rig, start: bytes) -> None:
    async with asyncio.timeout(20), Client(hasty.url) as client:
        client.send(start)
        reply = await client.reply()

        assert (reply.status, reply.error["code"]) == (408, "request_timeout")
        assert reply.headers["connection"] == "close"
        assert await client.is_closed()


@pytest.mark.parametrize("start", [b"GET /livez HTTP/1.1\r\nhost: a\r\nx: ", post(b"", content_length="100000")])
async def test_a_byte_now_and_then_moves_no_deadline(hasty: Rig, start: bytes) -> None:
    async with asyncio.timeout(20), Client(hasty.url) as client:
        client.send(start)
        answer = asyncio.create_task(client.reply())
        while not answer.done():
            client.send(b"x")
            await asyncio.wait({answer}, timeout=0.02)
        reply = await answer

        assert (reply.status, reply.error["code"]) == (408, "request_timeout")


async def test_a_second_request_has_the_same_deadlines(hasty: Rig) -> None:
    async with asyncio.timeout(20), Client(hasty.url) as client:
        client.send(request("GET", "/livez"))
        first = await client.reply()
        client.send(b"GET /livez HT")
        second = await client.reply()

        assert (first.status, second.status) == (200, 408)


@pytest.mark.parametrize("body", [b"", b'{"model": "fa', b"5\r\n{"])
async def test_a_body_that_does_not_end_is_refused_at_its_deadline(hasty: Rig, body: bytes) -> None:
    length = {"transfer-encoding": "chunked"} if body.startswith(b"5") else {"content-length": "100"}
    head = request("GET", CHAT, headers=length).replace(b"GET", b"POST", 1)
    async with asyncio.timeout(20), Client(hasty.url) as client:
        client.send(head + body)
        reply = await client.reply()

        assert (reply.status, reply.error["code"]) == (408, "request_timeout")
        assert await client.is_closed()


async def test_an_idle_connection_is_closed_without_a_word(hasty: Rig) -> None:
    async with asyncio.timeout(20), Client(hasty.url) as client:
        client.send(request("GET", "/livez"))

        assert (await client.reply()).status == 200
        assert await client.reader.read() == b""


async def test_a_stream_is_no_idle_connection(hasty: Rig, engine: FakeEngine) -> None:
    """Its events come every 30 ms and it outlives each deadline."""
    engine.requests.clear()
    async with asyncio.timeout(20), Client(hasty.url) as client:
        client.send(post(json.dumps(chat("fault:endless_drip", stream=True)).encode()))
        for _ in range(40):
            await client.reader.readuntil(b"data: ")

    await (await engine.arrived()).closed_by_peer.wait()


async def test_a_reader_that_takes_nothing_is_dropped_and_its_engine_freed(hasty: Rig, engine: FakeEngine) -> None:
    engine.requests.clear()
    async with asyncio.timeout(20), SlowClient(hasty.url) as client:
        await client.send(post(json.dumps(chat("fault:endless_stream", stream=True)).encode()))
        record = await engine.arrived()

        await record.closed_by_peer.wait()
        await hasty.fleet.until(lambda: hasty.leases.held("engine", 1) == 0)
        while await client.read():
            pass  # what was sent before, then the end


# -- bounds


async def test_connections_beyond_the_limit_are_told_so(engine: FakeEngine) -> None:
    limits = Limits(max_connections=2)
    async with running({"engine": backend(engine.url)}, SERVED, limits) as rig, asyncio.timeout(20):
        async with Client(rig.url) as one, Client(rig.url) as two:
            for client in (one, two):
                client.send(request("GET", "/livez"))
                assert (await client.reply()).status == 200
            async with Client(rig.url) as third:
                reply = await third.reply()
                assert (reply.status, reply.error["code"]) == (503, "too_many_connections")
                assert reply.error["type"] == "server_error"
                assert await third.is_closed()
        assert await _is_served(rig)


async def _is_served(rig: Rig) -> bool:
    """The connections that are closing make room."""
    reply = Reply()
    while reply.status != 200:
        reply = await ask(rig.url, "GET", "/livez")
        assert reply.status in (0, 200, 503)
    return True


async def test_a_refused_client_that_stays_does_not_keep_its_place(engine: FakeEngine) -> None:
    limits = Limits(max_connections=1)
    async with running({"engine": backend(engine.url)}, SERVED, limits) as rig, SlowClient(rig.url) as client:
        await client.send(b"no request at all\r\n\r\n")

        assert b" 400 " in await client.read()
        async with asyncio.timeout(20):
            assert await _is_served(rig)


async def test_a_client_that_does_not_read_its_last_answer_does_not_keep_its_place(engine: FakeEngine) -> None:
    limits = Limits(max_connections=1, stalled_reader_s=0.3)
    large = json.dumps({"model": "fake", "input": ["text"] * 90_000}).encode()
    remote = {"engine": backend(engine.url, kind="remote")}
    async with running(remote, SERVED, limits) as rig, SlowClient(rig.url) as client:
        await client.send(request("POST", "/v1/embeddings", large, {"connection": "close"}))

        assert b" 200 OK\r\n" in await client.read()
        async with asyncio.timeout(20):
            assert await _is_served(rig)


# -- early answers


EARLY = {
    "beyond the limit, announced": ({"content-length": str(24 * MIB)}, 413, "request_too_large"),
    "beyond the limit, counted": ({"transfer-encoding": "chunked"}, 413, "request_too_large"),
    "of another type": ({"content-length": str(24 * MIB), "content-type": "text/plain"}, 415, "unsupported_media_type"),
    "compressed": ({"content-length": str(24 * MIB), "content-encoding": "gzip"}, 415, "unsupported_encoding"),
}


@pytest.mark.parametrize(("headers", "status", "code"), EARLY.values(), ids=EARLY)
async def test_a_client_that_sends_all_before_it_reads_finds_its_refusal(
    rig: Rig, headers: dict[str, str], status: int, code: str
) -> None:
    """Closing under it would reset the connection, and the answer would be lost."""
    await assert_readable(rig, CHAT, headers, status, code)


async def test_so_does_one_on_a_route_that_takes_no_body(rig: Rig) -> None:
    await assert_readable(rig, "/nowhere", {"content-length": str(24 * MIB)}, 404, "route_not_found")


async def test_so_does_one_without_a_key(engine: FakeEngine) -> None:
    async with running({"engine": backend(engine.url)}, SERVED) as rig:
        await rig.published(keys=(KEY,))

        await assert_readable(rig, CHAT, {"content-length": str(24 * MIB)}, 401, "invalid_api_key")


async def assert_readable(rig: Rig, path: str, headers: dict[str, str], status: int, code: str) -> None:
    piece = b"x" * MIB
    async with asyncio.timeout(30), Client(rig.url) as client:
        client.send(request("GET", path, headers=headers).replace(b"GET", b"POST", 1))
        for _ in range(24):
            client.send(chunk(piece) if "transfer-encoding" in headers else piece)
            await client.writer.drain()
        reply = await client.reply()

        assert (reply.status, reply.error["code"]) == (status, code)
        assert reply.headers["connection"] == "close"
        assert await client.is_closed()


async def test_a_client_that_never_stops_sending_is_dropped_in_the_end(hasty: Rig) -> None:
    async with asyncio.timeout(30), SlowClient(hasty.url) as client:
        await client.send(request("GET", CHAT, headers={"transfer-encoding": "chunked"}).replace(b"GET", b"POST", 1))
        with contextlib.suppress(ConnectionError):
            while True:
                await client.send(chunk(b"x" * MIB))


async def test_a_body_at_the_limit_is_read(rig: Rig) -> None:
    fields = chat()
    fields["user"] = "x" * (MIB - len(json.dumps(fields | {"user": ""})))
    body = json.dumps(fields).encode()
    assert len(body) == MIB
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(post(body))
        assert (await client.reply()).status == 200
        client.send(post(body + b" "))
        assert (await client.reply()).status == 413


# -- keep-alive, and the end


async def test_a_connection_is_used_again_after_answers_and_refusals(rig: Rig) -> None:
    steps = [
        (post(json.dumps(chat()).encode()), 200),
        (post(b"{"), 400),
        (post(json.dumps(chat("nobody")).encode()), 404),
        (post(b"{}", content_type="text/plain"), 415),
        (post(json.dumps(chat(stream=True)).encode()), 200),
        (request("GET", "/nowhere"), 404),
        (request("DELETE", CHAT), 405),
        (request("GET", "/v1/models"), 200),
    ]
    async with asyncio.timeout(20), Client(rig.url) as client:
        for data, status in steps * 2:
            client.send(data)
            reply = await client.reply()

            assert (reply.status, reply.is_whole) == (status, True)
            assert "connection" not in reply.headers


async def test_a_client_that_asks_for_the_end_gets_it(rig: Rig) -> None:
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(request("GET", "/livez", headers={"connection": "close"}))
        reply = await client.reply()

        assert reply.headers["connection"] == "close"
        assert await client.reader.read() == b""


async def test_a_broken_stream_ends_with_its_error_and_no_end_mark(rig: Rig) -> None:
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(post(json.dumps(chat("fault:fin_mid_stream", stream=True)).encode()))
        reply = await client.reply()

        assert reply.is_cut
        assert reply.events[-1]["error"]["code"] == "engine_disconnected"
        assert "[DONE]" not in reply.events
        assert await client.reader.read() == b""


async def test_curl_calls_a_broken_stream_incomplete(rig: Rig) -> None:
    if shutil.which("curl") is None:  # not in every slim image; the raw client above has seen the same
        return
    body = json.dumps(chat("fault:fin_mid_stream", stream=True))
    argv = ["curl", "-sN", "-H", "content-type: application/json", "-d", body, f"{rig.url}{CHAT}"]
    curl = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    out, _ = await curl.communicate()

    assert curl.returncode == 18
    assert b'"engine_disconnected"' in out


async def test_afterwards_nothing_is_left_behind(rig: Rig, hasty: Rig, engine: FakeEngine) -> None:
    await until(lambda: engine.open_connections == 0 or all(r.ended.is_set() for r in engine.requests))
    for each in (rig, hasty):
        await each.fleet.until(lambda each=each: each.leases.held("engine", 1) == 0)  # type: ignore[misc]
        assert each.sample("modelport_in_flight") == 0
