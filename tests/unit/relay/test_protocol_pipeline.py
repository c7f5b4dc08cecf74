"""Several requests on one connection before the first is answered: all are answered, in order, in bounded memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app.table import Limits
from tests.fakes.engine import FakeEngine
from tests.rigs.raw_client import Client, chat, request
from tests.rigs.relay import Rig, backend, models, running
from tests.rigs.slow_client import SlowClient, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
SERVED = models("fake", "fault:never_answers", "fault:endless_drip", "fault:drip:0.01", "fault:fin_mid_stream")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as fake:
        yield fake


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rig(engine: FakeEngine) -> AsyncIterator[Rig]:
    limits = Limits(stalled_reader_s=20)
    async with running({"engine": backend(engine.url)}, SERVED, limits) as gateway:
        yield gateway


def post(fields: dict[str, object] | None = None, *, path: str = CHAT, id_: str = "") -> bytes:
    return request("POST", path, json.dumps(fields or chat()).encode(), {"x-request-id": id_})


def get(id_: str, path: str = "/livez") -> bytes:
    return request("GET", path, headers={"x-request-id": id_})


async def test_requests_in_one_write_are_answered_in_order(rig: Rig) -> None:
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(post(id_="a") + post(chat("nobody"), id_="b") + get("c"))
        replies = [await client.reply() for _ in range(3)]

        assert [(r.status, r.headers["x-request-id"]) for r in replies] == [(200, "a"), (404, "b"), (200, "c")]


@pytest.mark.parametrize("cut", range(0, 400, 7))
async def test_so_they_are_wherever_the_bytes_are_cut(rig: Rig, cut: int) -> None:
    data = post(id_="a") + post(id_="b") + get("c")
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(data[:cut])
        await client.writer.drain()
        await asyncio.sleep(0)
        client.send(data[cut:])
        replies = [await client.reply() for _ in range(3)]

        assert [(r.status, r.headers["x-request-id"]) for r in replies] == [(200, "a"), (200, "b"), (200, "c")]


@pytest.mark.parametrize("in_one_write", [True, False])
async def test_a_request_behind_a_stream_waits_for_its_end(rig: Rig, in_one_write: bool) -> None:
    stream, after = post(chat("fault:drip:0.01", stream=True)), post(id_="after")
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(stream + after if in_one_write else stream)
        head = b"" if in_one_write else await client.reader.readuntil(b"data: ")
        client.send(b"" if in_one_write else after)
        first = await client.reply() if in_one_write else None
        rest = b"" if first else await client.reader.readuntil(b"\r\n0\r\n\r\n")
        second = await client.reply()

        assert first.events[-1] == "[DONE]" if first else (head and b"[DONE]" in rest)
        assert (second.status, second.headers["x-request-id"]) == (200, "after")


async def test_a_large_request_behind_a_stream_is_read_whole(rig: Rig, engine: FakeEngine) -> None:
    engine.requests.clear()
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(post(chat("fault:drip:0.01", stream=True)))
        await client.reader.readuntil(b"data: ")
        client.send(post(chat(text="x" * 2**20), id_="big") + get("last"))
        await client.reader.readuntil(b"\r\n0\r\n\r\n")
        replies = [await client.reply(), await client.reply()]

        assert [(r.status, r.headers["x-request-id"]) for r in replies] == [(200, "big"), (200, "last")]
        assert len(engine.posts[-1].body) > 2**20


async def test_garbage_behind_a_request_spoils_only_itself(rig: Rig) -> None:
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(post(id_="a") + post(id_="b") + b"\0\1\2 no request\r\n\r\n")
        replies = [await client.reply(), await client.reply()]

        assert [(r.status, r.headers["x-request-id"]) for r in replies] == [(200, "a"), (200, "b")]
        assert await client.is_closed()


async def test_garbage_behind_a_stream_that_runs_is_refused_after_it(rig: Rig) -> None:
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(post(chat("fault:drip:0.01", stream=True)))
        await client.reader.readuntil(b"data: ")
        client.send(b"\0\1\2 no request\r\n\r\n")
        await client.reader.readuntil(b"[DONE]\n\n\r\n0\r\n\r\n")
        reply = await client.reply()

        assert (reply.status, reply.error["code"]) == (400, "invalid_http")
        assert await client.is_closed()


@pytest.mark.parametrize(
    "behind", [b"GET /livez HTTP/1.1\r\nx: ", post(chat(text="x" * 4_000_000))], ids=["head", "body"]
)
async def test_a_cut_stream_is_read_whole_by_a_client_that_has_sent_more(rig: Rig, behind: bytes) -> None:
    """A connection closed with bytes unread is reset, and the error event would be lost."""
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(post(chat("fault:fin_mid_stream", stream=True)) + behind + b"x" * 4_000_000)
        reply = await client.reply()

        assert reply.is_cut
        assert client.reader.exception() is None  # FIN, not RST
        assert reply.events[-1]["error"]["code"] == "engine_disconnected"


async def test_any_number_of_requests_in_one_write_is_answered(rig: Rig) -> None:
    count = 3000
    async with asyncio.timeout(30), Client(rig.url) as client:
        client.send(b"".join(get(f"n{at}") for at in range(count)))
        ids = [(await client.reply()).headers["x-request-id"] for _ in range(count)]

        assert ids == [f"n{at}" for at in range(count)]


@pytest.mark.parametrize("model", ["fault:never_answers", "fault:endless_drip"])
@pytest.mark.parametrize("behind", [b"", get("x"), post() + get("y"), post(chat(text="x" * 40_000)), b"GET /li"])
@pytest.mark.parametrize("in_one_write", [True, False])
async def test_a_client_that_leaves_frees_its_engine_whatever_it_sent_behind(
    rig: Rig, engine: FakeEngine, model: str, behind: bytes, in_one_write: bool, caplog: pytest.LogCaptureFixture
) -> None:
    engine.requests.clear()
    first = post(chat(model, stream=model.endswith("drip")))
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(first + behind if in_one_write else first)
        record = await engine.arrived()
        if not in_one_write:
            client.send(behind)

    async with asyncio.timeout(20):
        await record.closed_by_peer.wait()
        await rig.fleet.until(lambda: rig.leases.held("engine", 1) == 0)
    assert caplog.messages == []  # uvicorn has nothing to complain of
    assert [r.scenario for r in engine.posts] == [record.scenario]  # what waited behind was never begun
    assert rig.sample("modelport_in_flight") == 0


async def test_answers_do_not_pile_up_for_a_client_that_only_sends(rig: Rig, engine: FakeEngine) -> None:
    """What it does not read stops its next requests; once it reads, all are answered."""
    engine.requests.clear()
    large = post({"model": "fake", "input": ["text"] * 1000}, path="/v1/embeddings")
    count, mark = 200, b"HTTP/1.1 200 OK"
    async with asyncio.timeout(90), SlowClient(rig.url) as client:
        sending = asyncio.create_task(client.send(large * count))
        await engine.arrived(2)
        async with Client(rig.url) as other:
            for _ in range(count):  # as many turns as all of them would take
                other.send(get("x"))
                assert (await other.reply()).status == 200
        begun = len(engine.posts)
        answered, tail = 0, b""
        while answered < count and (piece := await client.read(2**20)):
            answered += (tail + piece).count(mark)
            tail = piece[1 - len(mark) :]
        await sending

        assert begun < count / 2
        assert answered == count == len(engine.posts)


@pytest.mark.parametrize("is_reset", [False, True])
async def test_a_client_that_leaves_with_much_behind_its_request_is_noticed(
    rig: Rig, engine: FakeEngine, is_reset: bool
) -> None:
    """What lies unread before its FIN must not hide it: the engine's slot would stay taken for ten minutes."""
    engine.requests.clear()
    engine.script("never_answers")
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(post(chat()) + get("x") * 3000)
        record = await engine.arrived()
        await client.writer.drain()
        if is_reset:
            client.writer.transport.abort()
        else:
            client.writer.close()
        await record.closed_by_peer.wait()
    engine.script()


async def test_afterwards_nothing_is_left_behind(rig: Rig, engine: FakeEngine) -> None:
    await until(lambda: all(record.ended.is_set() for record in engine.requests))
    await rig.fleet.until(lambda: rig.leases.held("engine", 1) == 0)

    assert rig.sample("modelport_in_flight") == 0
