"""The gateway ends: who is connected to a relay is answered, is told to come back by another connection, and is told in
its own dialect where the time was too short.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from app.relay.drain import RelayDrain
from backends.http.carrying import Carrier
from tests.fakes.engine import FakeEngine
from tests.rigs.raw_client import Client, chat, request
from tests.rigs.relay import Rig, backend, models, running

MESSAGES = [{"role": "user", "content": "hi"}]
BODY = json.dumps({"model": "fake", "messages": MESSAGES}).encode()
ASK = request("POST", "/v1/chat/completions", BODY)


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as fake:
        yield fake


@pytest_asyncio.fixture
async def rig(engine: FakeEngine) -> AsyncIterator[Rig]:
    async with running({"engine": backend(engine.url)}, models("fake")) as gateway:
        yield gateway


async def test_an_answer_says_that_its_connection_closes_only_once_the_gateway_ends(rig: Rig) -> None:
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(ASK)
        before = await client.reply()
        await rig.published(draining=True)
        client.send(ASK)
        after = await client.reply()

        assert (before.status, before.headers.get("connection")) == (200, None)
        assert (after.status, after.headers.get("connection")) == (200, "close")
        assert await client.is_closed()


async def test_new_connections_are_taken_while_the_table_only_says_that_it_ends(rig: Rig) -> None:
    await rig.published(draining=True)

    ready, answered = await rig.ask("/readyz"), await rig.ask(body=chat())

    assert (ready.status, answered.status) == (503, 200)


async def test_of_requests_that_came_together_only_the_last_answer_closes(rig: Rig) -> None:
    await rig.published(draining=True)

    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(ASK * 3)
        replies = [await client.reply() for _ in range(3)]

        assert [reply.status for reply in replies] == [200, 200, 200]
        assert [reply.headers.get("connection") for reply in replies] == [None, None, "close"]
        assert await client.is_closed()


async def test_who_has_connected_and_not_asked_yet_is_answered(rig: Rig) -> None:
    """Their connections used to be closed while the request was on its way."""
    async with asyncio.timeout(20), Client(rig.url) as new, Client(rig.url) as kept:
        kept.send(ASK)
        assert (await kept.reply()).status == 200
        rig.drain(20)
        while not await _is_refused(rig):
            pass

        new.send(ASK)
        kept.send(ASK)
        replies = [await new.reply(), await kept.reply()]

    assert [(reply.status, reply.headers.get("connection")) for reply in replies] == [(200, "close"), (200, "close")]


async def test_who_waits_to_be_accepted_is_answered(rig: Rig) -> None:
    """The system had taken their connections, which a closing socket resets."""
    address = urlsplit(rig.url)
    queued = [socket.create_connection((address.hostname, address.port)) for _ in range(20)]
    for each in queued:
        each.sendall(ASK)

    rig.drain(20)
    answers = [await asyncio.to_thread(_all_of, each) for each in queued]

    assert [answer.split(b" ")[1] for answer in answers] == [b"200"] * 20


async def test_a_connection_that_says_nothing_does_not_keep_it(rig: Rig) -> None:
    async with asyncio.timeout(20), Client(rig.url) as client:
        rig.drain(3600)

        assert await client.is_closed()


async def test_a_stream_that_began_before_keeps_its_connection_for_one_more_request(
    rig: Rig, engine: FakeEngine
) -> None:
    """Its head did not say that the connection closes, so its client may send another request just then."""
    engine.script("drip")
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(request("POST", "/v1/chat/completions", json.dumps(chat(stream=True)).encode()))
        head = await client.reader.readuntil(b"\r\n\r\n")
        rig.drain(20)
        await client.reader.readuntil(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        client.send(ASK)
        answer = await client.reply()

    assert b"connection: close" not in head
    assert (answer.status, answer.headers.get("connection")) == (200, "close")


# Of each: what is asked, how an error is told, and how an answer ends that is whole.
DIALECTS: dict[str, tuple[dict[str, object], bytes, bytes]] = {
    "/v1/chat/completions": ({"messages": MESSAGES}, b'"code":"shutting_down"', b"[DONE]"),
    "/v1/completions": ({"prompt": "hi"}, b'"code":"shutting_down"', b"[DONE]"),
    "/v1/responses": ({"input": "hi"}, b"event: error\n", b"response.completed"),
    "/v1/messages": ({"messages": MESSAGES, "max_tokens": 10}, b"event: error\n", b"message_stop"),
    "/api/chat": ({"messages": MESSAGES}, b'{"error":', b'"done":true'),
}


@pytest.mark.parametrize("path", DIALECTS)
async def test_a_stream_that_is_cut_short_is_told_so_in_its_dialect(rig: Rig, engine: FakeEngine, path: str) -> None:
    fields, error, end = DIALECTS[path]
    body = json.dumps({"model": "fake", "stream": True, **fields}).encode()
    engine.script("endless_drip")
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(request("POST", path, body))
        await client.reader.readuntil(b"\r\n\r\n")
        await client.reader.readuntil(b"w")

        rig.drain(0)
        rest = await client.reader.read(-1)

    assert rest.count(error) == 1
    assert b"shutting down" in rest
    assert end not in rest
    assert not rest.endswith(b"0\r\n\r\n")


def _all_of(client: socket.socket) -> bytes:
    with client:
        client.settimeout(20)
        return b"".join(iter(lambda: client.recv(65536), b""))


async def _is_refused(rig: Rig) -> bool:
    try:
        async with Client(rig.url):
            return False
    except ConnectionError:
        return True


async def test_what_is_carried_is_ended_where_the_supervisor_is_gone() -> None:
    cancelled: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append("cancelled")

    tasks: set[asyncio.Task[None]] = set()
    carrier = cast("asyncio.Task[None]", Carrier(work(), lambda it: tasks.discard(cast("Any", it))))
    tasks.add(carrier)
    cast("Carrier", carrier).start()
    await RelayDrain((), tasks, lambda: True).finish(10)
    await asyncio.sleep(0.01)

    assert cancelled == ["cancelled"]
    assert not tasks
