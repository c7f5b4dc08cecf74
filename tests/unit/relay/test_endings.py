"""How a stream ends behind its last event: what the client gets, and what becomes of the connection to the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from backends.endpoint import Timeouts
from tests.fakes import wire
from tests.fakes.engine import FakeEngine
from tests.rigs.hop import Server, take
from tests.rigs.raw_client import Client, chat, request
from tests.rigs.relay import Rig, backend, models, running

HASTY = Timeouts(connect_s=5, first_byte_s=20, between_events_s=0.3)
ANSWER = [wire.sse(piece) for piece in wire.pieces(wire.Ask("chat", "fake", stream=True))]
BODY = b'{"model":"fake","stream":true,"messages":[{"role":"user","content":"hi"}]}'


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as fake:
        yield fake


@pytest_asyncio.fixture
async def rig(engine: FakeEngine) -> AsyncIterator[Rig]:
    async with running({"engine": backend(engine.url)}, models("fake")) as gateway:
        yield gateway


async def test_streams_one_after_the_other_use_one_connection(rig: Rig, engine: FakeEngine) -> None:
    """The engine's last chunk comes a moment after the end mark; the connection waits for it."""
    async with asyncio.timeout(20), Client(rig.url) as client:
        for _ in range(5):
            client.send(request("POST", "/v1/chat/completions", BODY))
            reply = await client.reply()
            assert (reply.is_whole, reply.text) == (True, wire.TEXT)
            await rig.fleet.until(lambda: rig.leases.total() == 0)

    assert {record.connection for record in engine.posts} == {1}


@pytest.mark.parametrize("end", [b"", b": ping\n\n", b"data: [DONE]", wire.DONE])
async def test_a_finished_answer_whose_engine_falls_silent_is_a_whole_answer(end: bytes) -> None:
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(reader)
        writer.write(wire.SSE_HEAD + wire.chunk(b"".join([*ANSWER, end])))
        await reader.read()
        gone.set()

    async with Server(silent) as server:
        slow = backend(server.url, timeouts=HASTY)
        async with running({"engine": slow}, models("fake")) as rig:
            reply = await rig.ask(body=chat(stream=True))

            assert (reply.is_whole, reply.text) == (True, wire.TEXT)
            assert reply.events.count("[DONE]") == 1
            await asyncio.wait_for(gone.wait(), 20)


async def test_a_stream_that_falls_silent_before_its_end_is_no_answer() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(reader)
        writer.write(wire.SSE_HEAD + wire.chunk(b"".join(ANSWER[:4])))
        await reader.read()

    async with Server(silent) as server:
        slow = backend(server.url, timeouts=HASTY)
        async with running({"engine": slow}, models("fake")) as rig:
            reply = await rig.ask(body=chat(stream=True))

    assert reply.is_cut
    assert reply.events[-1]["error"]["code"] == "engine_timeout"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_the_drain_cuts_short_is_told_so_and_not_sent_again(stream: bool) -> None:
    async with FakeEngine() as fake, running({"engine": backend(fake.url)}, models("fake")) as gateway:
        fake.script("never_answers")
        asking = asyncio.create_task(gateway.ask(body=chat(stream=stream)))
        await fake.arrived()

        gateway.drain(0)
        reply = await asking

        assert (reply.status, reply.error["code"]) == (503, "shutting_down")
        assert reply.headers["x-should-retry"] == "false"
        assert gateway.sample("modelport_client_disconnects_total") == 0


async def test_a_stream_that_the_drain_cuts_short_ends_with_an_error_event(rig: Rig, engine: FakeEngine) -> None:
    engine.script("endless_drip")
    async with Client(rig.url) as client:
        client.send(request("POST", "/v1/chat/completions", BODY))
        await client.reader.readuntil(b"data: ")

        rig.drain(0)
        rest = await client.reader.read(-1)

    assert rest.count(b'"code":"shutting_down"') == 1
    assert b"[DONE]" not in rest
    assert not rest.endswith(b"0\r\n\r\n")


async def test_half_of_two_choices_is_no_answer() -> None:
    """One choice says that it is finished, the other does not, and the engine is gone."""

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(reader)
        choices = [(0, "all", "stop"), (1, "half of", None)]
        events = [
            wire.sse({"choices": [{"index": n, "delta": {"content": text}, "finish_reason": end}]})
            for n, text, end in choices
        ]
        writer.write(wire.SSE_HEAD + wire.chunk(b"".join(events)) + wire.LAST_CHUNK)

    async with Server(half) as server, running({"engine": backend(server.url)}, models("fake")) as rig:
        reply = await rig.ask(body=chat(stream=True, n=2))

    assert reply.is_cut
    assert "[DONE]" not in reply.events
    assert reply.events[-1]["error"]["code"] == "engine_disconnected"
