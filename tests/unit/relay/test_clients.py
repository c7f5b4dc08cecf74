"""Clients that leave, read slowly or do nothing: their engines are freed, nobody else waits, and nothing is left."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from app.supervisor.fleet.waiters import WaitOutcome
from app.table import Limits
from tests.fakes.engine import FakeEngine
from tests.fakes.wire import DONE, LAST_CHUNK, SSE_HEAD, Ask, chunk, pieces, sse
from tests.rigs.raw_client import Client, chat, request
from tests.rigs.relay import Rig, backend, models, running
from tests.rigs.slow_client import SlowClient, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
FAULTS = (
    "never_answers headers_then_nothing stall_mid_body stall_mid_stream endless_drip endless_stream drip slow_headers"
)
SERVED = models("fake", *(f"fault:{name}" for name in FAULTS.split()))
SLEEPER = models("sleeping", backend="sleeper", engine_name="fake")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as fake:
        yield fake


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rig(engine: FakeEngine) -> AsyncIterator[Rig]:
    backends = {"engine": backend(engine.url), "sleeper": backend(None, "sleeper", can_start=True)}
    async with running(backends, SERVED | SLEEPER, Limits(hold_s=0.2)) as gateway:
        yield gateway


def post(model: str, *, stream: bool = False, text: str = "hello") -> bytes:
    return request("POST", CHAT, json.dumps(chat(model, stream=stream, text=text)).encode())


def leave(client: Client, how: str) -> None:
    """End the connection at once, in order or with a reset."""
    if how == "reset":
        sock = client.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


async def assert_nothing_is_held(rig: Rig) -> None:
    await until(lambda: rig.sample("modelport_in_flight") == 0)
    await rig.fleet.until(lambda: rig.leases.total() == 0)


# -- who leaves

# Moment: the model, whether it streams, and what the client has read when it leaves.
MOMENTS = {
    "before the engine's headers": ("fault:never_answers", False, b""),
    "before the engine's headers, streaming": ("fault:never_answers", True, b""),
    "in the middle of a whole answer": ("fault:stall_mid_body", False, b""),
    "before the first event": ("fault:headers_then_nothing", True, b""),
    "at a comment, before the first event": ("fault:never_answers", True, b": waiting for"),
    "between events": ("fault:endless_drip", True, b"data: "),
    "while events stall": ("fault:stall_mid_stream", True, b"data: "),
    "while events rush": ("fault:endless_stream", True, b"data: "),
}


@pytest.mark.parametrize("how", ["fin", "reset"])
@pytest.mark.parametrize(("model", "stream", "mark"), MOMENTS.values(), ids=MOMENTS)
async def test_a_client_that_leaves_frees_its_engine(
    rig: Rig, engine: FakeEngine, model: str, stream: bool, mark: bytes, how: str
) -> None:
    engine.requests.clear()
    left = rig.sample("modelport_client_disconnects_total", gen_ai_request_model=model)
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(post(model, stream=stream))
        record = await engine.arrived()
        await rig.fleet.until(lambda: rig.leases.held("engine", 1) == 1)
        assert rig.sample("modelport_in_flight") == 1
        if mark:
            await client.reader.readuntil(mark)
        leave(client, how)

    async with asyncio.timeout(20):
        await record.closed_by_peer.wait()
    await assert_nothing_is_held(rig)
    assert rig.sample("modelport_client_disconnects_total", gen_ai_request_model=model) == left + 1
    assert len(engine.posts) == 1


@pytest.mark.parametrize("size", [100_000, 1_000_000, 8_000_000])
async def test_a_client_that_leaves_after_a_large_body_frees_its_engine_too(
    rig: Rig, engine: FakeEngine, size: int
) -> None:
    """A connection that had more to say than was read at once is read again before the answer is waited for."""
    async with asyncio.timeout(20):
        async with Client(rig.url) as client:
            client.send(post("fault:never_answers", text="x" * size))
            await rig.fleet.until(lambda: rig.leases.of("engine") == 1)
            leave(client, "fin")

        await rig.fleet.until(lambda: rig.leases.of("engine") == 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_while_its_model_starts_gives_its_place_back(
    rig: Rig, engine: FakeEngine, stream: bool
) -> None:
    engine.requests.clear()
    rig.fleet.asked.clear()
    left = rig.sample("modelport_client_disconnects_total")
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(post("sleeping", stream=stream))
        await rig.fleet.until(lambda: "sleeper" in rig.fleet.asked)
        await rig.fleet.until(lambda: rig.leases.held("sleeper", 0) == 1)
        leave(client, "fin")

    await assert_nothing_is_held(rig)
    assert rig.sample("modelport_client_disconnects_total") == left + 1
    assert engine.posts == []


async def test_its_model_may_become_ready_afterwards(rig: Rig, engine: FakeEngine) -> None:
    """The answer to a request that nobody waits for any more is dropped; the next client is served."""
    rig.fleet.asked.clear()
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(post("sleeping"))
        await rig.fleet.until(lambda: "sleeper" in rig.fleet.asked)
    await assert_nothing_is_held(rig)
    before = rig.table.backends
    await rig.published(backends=before | {"sleeper": backend(engine.url, "sleeper")})
    if not rig.fleet.asked["sleeper"].done():
        rig.fleet.asked["sleeper"].set_result(WaitOutcome(is_ready=True))

    reply = await rig.ask(body=chat("sleeping"))

    assert reply.status == 200
    await rig.published(backends=before)


async def test_a_client_that_leaves_in_the_middle_of_its_body_reaches_no_engine(rig: Rig, engine: FakeEngine) -> None:
    engine.requests.clear()
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(post("fake", text="x" * 300_000)[:-100])
        await client.writer.drain()
        leave(client, "fin")

    assert (await rig.ask(body=chat())).status == 200
    await assert_nothing_is_held(rig)
    assert len(engine.posts) == 1


async def drop(rig: Rig, dice: random.Random) -> None:
    """One client that leaves at some moment; none of them is told from the outside."""
    model, stream = dice.choice(["fake", *SERVED, "sleeping"]), dice.random() < 0.7
    data = post(model, stream=stream, text="x" * dice.choice([10, 100_000]))
    async with Client(rig.url) as client:
        client.send(data[: dice.choice([0, 1, 50, len(data) - 1, len(data), len(data), len(data)])])
        for _ in range(dice.randrange(60)):
            await asyncio.sleep(0)
        reading = asyncio.create_task(client.reader.read(dice.choice([1, 200, 5000])))
        await asyncio.wait({reading}, timeout=dice.random() * 0.3)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        leave(client, dice.choice(["fin", "reset"]))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0  # noqa: PTH208


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_hundred_clients_that_drop_at_any_moment_leave_nothing(rig: Rig, engine: FakeEngine, seed: int) -> None:
    assert (await rig.ask(body=chat())).status == 200
    await assert_nothing_is_held(rig)
    await until(lambda: engine.open_connections == 0)
    before, dice = descriptors(), random.Random(seed)
    engine.requests.clear()

    async with asyncio.timeout(30):
        await asyncio.gather(*(drop(rig, dice) for _ in range(100)))

    await assert_nothing_is_held(rig)
    await until(lambda: all(record.ended.is_set() for record in engine.requests))
    await until(lambda: engine.open_connections == 0)  # idle ones expire
    await until(lambda: descriptors() <= before)
    assert (await rig.ask(body=chat())).status == 200


# -- who reads slowly


async def test_a_slow_reader_stops_its_engine_and_starts_it_again(rig: Rig, engine: FakeEngine) -> None:
    """What waits for it stays in the sockets and in one small buffer, however long it waits."""
    engine.requests.clear()
    async with asyncio.timeout(30), SlowClient(rig.url) as client, Client(rig.url) as other:
        await client.send(post("fault:endless_stream", stream=True))
        record = await engine.arrived()
        await record.blocked.wait()
        seen = -1
        while seen != record.sent:  # the kernel's buffers may grow for a while
            seen = record.sent
            for _ in range(200):
                other.send(request("GET", "/livez"))
                assert (await other.reply()).status == 200
        assert record.sent < 16 * 2**20

        got = 0
        while record.sent < seen + 2**20:
            got += len(await client.read(2**20))
        assert got > 2**19  # they may grow once more when it reads

    async with asyncio.timeout(20):
        await record.closed_by_peer.wait()
    await assert_nothing_is_held(rig)


async def test_each_event_reaches_the_client_before_the_next_one_is_sent(rig: Rig) -> None:
    """The engine sends an event only when the client has the one before."""
    words = [f"w{at} " for at in range(50)]
    seen: asyncio.Queue[None] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SSE_HEAD)
        for piece in pieces(Ask("chat", "fake", stream=True), words):
            writer.write(chunk(sse(piece)))
            await seen.get()
        writer.write(chunk(DONE) + LAST_CHUNK)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    before = rig.table.backends
    await rig.published(backends=before | {"engine": backend(url, generation=2)})
    got: list[bytes] = []
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(post("fake", stream=True))
        while not got or b"[DONE]" not in got[-1]:
            got.append(await client.reader.readuntil(b"\n\n"))
            seen.put_nowait(None)

    assert len(got) == len(words) + 2
    assert [word.encode() in event for word, event in zip(words, got[1:], strict=False)] == [True] * len(words)
    server.close()
    await server.wait_closed()
    await rig.published(backends=before)


# -- who does nothing


async def test_idle_and_slow_connections_keep_nobody_from_an_answer(engine: FakeEngine) -> None:
    """200 of them, each ended at its deadline, and a good request while they are there."""
    engine.requests.clear()
    half = post("fake", text="x" * 1000)
    kinds = {
        b"": 60,
        b"POST /v1/chat/completions HT": 60,
        half[:-10]: 60,
        post("fault:endless_stream", stream=True): 20,
    }
    limits = Limits(headers_s=1.5, body_s=1.5, stalled_reader_s=1.5, idle_s=1.5)
    async with running({"engine": backend(engine.url)}, SERVED, limits) as rig, asyncio.timeout(60):
        clients = [SlowClient(rig.url) for _ in range(sum(kinds.values()))]
        starts = [start for start, count in kinds.items() for _ in range(count)]
        for client, start in zip(clients, starts, strict=True):
            await client.__aenter__()
            await client.send(start)

        reply = await rig.ask(body=chat())
        stream = await rig.ask(body=chat(stream=True))

        assert (reply.status, stream.events[-1]) == (200, "[DONE]")
        for record in engine.posts:
            await record.ended.wait()
        for client in clients:
            while await client.read(2**20):
                pass
            client.sock.close()
        await assert_nothing_is_held(rig)
