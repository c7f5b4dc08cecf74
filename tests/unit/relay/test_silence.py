"""An engine that is silent in the middle of its stream, and what each dialect's client gets: over a real relay."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app.table import Limits
from tests.fakes import wire
from tests.rigs.hop import Server, take
from tests.rigs.raw_client import Client, Reply, request
from tests.rigs.relay import Rig, backend, models, running

SAID = [{"role": "user", "content": "x"}]
CHAT = {"model": "fake", "messages": SAID, "stream": True}
COMMENT = b": waiting for fake (working)\n\n"
# A request, what keeps its stream alive, and what comes once the engine goes on.
ROUTES: dict[str, tuple[dict[str, object], bytes, bytes]] = {
    "/v1/chat/completions": (CHAT, COMMENT, b"data: [DONE]\n\n"),
    "/v1/completions": ({"model": "fake", "prompt": "x", "stream": True}, COMMENT, b"data: [DONE]\n\n"),
    "/v1/responses": ({"model": "fake", "input": "x", "stream": True}, COMMENT, b"event: response.completed\n"),
    "/v1/messages": ({**CHAT, "max_tokens": 5}, b'event: ping\ndata: {"type":"ping"}\n\n', b"event: message_stop\n"),
    "/api/chat": (CHAT, b'"message":{"role":"assistant","content":""},"done":false}\n', b'"done_reason":"stop"'),
    "/api/generate": ({"model": "fake", "prompt": "x"}, b'"response":"","done":false}\n', b'"done_reason":"stop"'),
}


class Silent:
    """An engine that says `begin`, then nothing until it `goes_on`."""

    def __init__(self) -> None:
        self.goes_on = asyncio.Event()
        self.begin = "a"
        self.breaks = False
        self.half = b""  # of an event that has begun when it falls silent
        self._server = Server(self._serve)

    async def __aenter__(self) -> Silent:
        await self._server.__aenter__()
        self.url = self._server.url
        return self

    async def __aexit__(self, *about: object) -> None:
        await self._server.__aexit__(*about)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await take(reader)
        is_chat = b"/chat/completions" in head
        ask = wire.Ask("chat" if is_chat else "completions", "fake", stream=True, max_tokens=4)
        begin, end = wire.sse(wire.piece(ask, self.begin, role=is_chat)), wire.sse(wire.piece(ask, "b", "stop"))
        writer.write(wire.SSE_HEAD + wire.chunk(begin))
        if self.half:
            writer.write(wire.chunk(end[:20]))
            end = end[20:]
        await self.goes_on.wait()
        if self.breaks:
            writer.close()
        else:
            writer.write(wire.chunk(end) + wire.chunk(wire.DONE) + wire.LAST_CHUNK)


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Silent]:
    async with Silent() as silent:
        yield silent


@contextlib.asynccontextmanager
async def gateway(engine: Silent, hold_s: float = 0.05) -> AsyncIterator[Rig]:
    async with running({"engine": backend(engine.url)}, models("fake"), Limits(hold_s=hold_s)) as rig:
        yield rig


async def rest(client: Client) -> bytes:
    """What comes until the answer's last chunk."""
    return await client.reader.readuntil(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("path", ROUTES)
async def test_a_stream_is_kept_alive_between_two_events(engine: Silent, path: str) -> None:
    """Proxies cut what is silent for a minute; a tool parser may hold long arguments back for longer."""
    body, sign, end = ROUTES[path]
    async with gateway(engine) as rig, asyncio.timeout(20), Client(rig.url) as client:
        client.send(request("POST", path, json.dumps(body).encode()))
        await client.reader.readuntil(b'"a"')

        for _ in range(3):
            await client.reader.readuntil(sign)
        engine.goes_on.set()

        assert end in await rest(client)


@pytest.mark.parametrize("path", ROUTES)
async def test_no_sign_of_life_stands_in_the_middle_of_an_event(engine: Silent, path: str) -> None:
    engine.half = b"yes"
    body, sign, _ = ROUTES[path]
    async with gateway(engine) as rig, asyncio.timeout(20), Client(rig.url) as client:
        client.send(request("POST", path, json.dumps(body).encode()))
        head = await client.reader.readuntil(sign)
        engine.goes_on.set()
        data = head + await rest(client)

    chunks = _chunks(data.partition(b"\r\n\r\n")[2])
    assert all(chunk.endswith(b"\n" if path.startswith("/api/") else b"\n\n") for chunk in chunks)
    for event in b"".join(chunks).split(b"\n"):
        told = event.removeprefix(b"data: ")
        if told.startswith(b"{"):
            json.loads(told)


def _chunks(data: bytes) -> list[bytes]:
    received = []
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        received += [data[:length]] if length else []
        data = data[length + 2 :]
    return received


async def test_nothing_is_added_to_a_stream_that_is_not_silent(engine: Silent) -> None:
    engine.goes_on.set()
    async with gateway(engine, hold_s=60) as rig:
        reply: Reply = await rig.ask(body=CHAT)

    assert b": waiting" not in reply.body


async def test_a_client_that_does_not_read_gets_no_signs_of_life(engine: Silent) -> None:
    engine.begin = "x" * 8_000_000
    async with gateway(engine, hold_s=0.02) as rig, asyncio.timeout(20), Client(rig.url) as client:
        client.send(request("POST", "/v1/chat/completions", json.dumps(CHAT).encode()))
        await client.reader.readuntil(b"\r\n\r\n")
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(0.3)  # signs would be written now

        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        engine.goes_on.set()
        data = await rest(client)

    assert data.count(COMMENT) < 5


async def test_the_next_answer_on_the_connection_gets_no_signs_of_the_last(engine: Silent) -> None:
    engine.goes_on.set()
    async with gateway(engine) as rig, asyncio.timeout(20), Client(rig.url) as client:
        client.send(request("POST", "/v1/chat/completions", json.dumps(CHAT).encode()))
        await client.reply()
        await asyncio.sleep(0.2)  # longer than `hold_s`, thrice

        client.send(request("GET", "/livez"))

        assert (await client.reply()).status == 200


@pytest.mark.parametrize("path", ROUTES)
async def test_a_stream_that_breaks_after_a_silence_ends_with_its_error(engine: Silent, path: str) -> None:
    engine.breaks = True
    body, sign, end = ROUTES[path]
    async with gateway(engine) as rig, asyncio.timeout(20), Client(rig.url) as client:
        client.send(request("POST", path, json.dumps(body).encode()))
        await client.reader.readuntil(sign)
        engine.goes_on.set()
        data = await client.reader.read()

    assert b"ended in the middle of the response" in data
    assert end not in data
    assert not data.endswith(b"\r\n0\r\n\r\n")
