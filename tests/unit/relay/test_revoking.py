"""What becomes of requests that run while their key is revoked (app/relay/revoking.py)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app.keys import digest
from app.table import Key, Limits
from tests.fakes.engine import FakeEngine
from tests.rigs.raw_client import Client, chat, request
from tests.rigs.relay import Rig, backend, models, running

OLD, NEW = Key("office", digest("mp-old"), id="k1"), Key("office", digest("mp-new"), id="k1")
OTHER = Key("night", digest("mp-night"), id="k2")
WITH_OLD = {"authorization": "Bearer mp-old"}
BODY = b'{"model":"fake","stream":true,"messages":[{"role":"user","content":"hi"}]}'


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as fake:
        yield fake


@pytest_asyncio.fixture
async def rig(engine: FakeEngine) -> AsyncIterator[Rig]:
    limits = Limits(revoked_streams="end")
    async with running({"engine": backend(engine.url)}, models("fake"), limits) as gateway:
        await gateway.published(keys=(OLD, OTHER))
        yield gateway


async def begun(client: Client, path: str = "/v1/chat/completions", body: bytes = BODY) -> None:
    client.send(request("POST", path, body, headers=WITH_OLD))
    await client.reader.readuntil(b"data: ")


async def test_a_stream_of_a_revoked_key_ends_with_an_error_event(rig: Rig, engine: FakeEngine) -> None:
    engine.script("endless_drip")
    async with asyncio.timeout(20), Client(rig.url) as client:
        await begun(client)

        await rig.published(keys=(OTHER,))
        rest = await client.reader.read(-1)
        again = await rig.ask(body=chat(), headers=WITH_OLD)

    assert rest.count(b'"code":"key_revoked"') == 1
    assert b"[DONE]" not in rest
    assert not rest.endswith(b"0\r\n\r\n")
    assert (again.status, again.error["code"]) == (401, "invalid_api_key")
    assert rig.sample("modelport_client_disconnects_total") == 0
    await rig.fleet.until(lambda: rig.leases.total() == 0)


async def test_a_stream_in_another_dialect_is_told_in_its_words(rig: Rig, engine: FakeEngine) -> None:
    engine.script("endless_drip")
    body = b'{"model":"fake","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'
    async with asyncio.timeout(20), Client(rig.url) as client:
        await begun(client, "/v1/messages", body)

        await rig.published(keys=(OTHER,))
        rest = await client.reader.read(-1)

    assert b"event: error" in rest
    assert b"authentication_error" in rest


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_whose_answer_has_not_begun_gets_a_status(rig: Rig, engine: FakeEngine, stream: bool) -> None:
    engine.script("never_answers")
    asking = asyncio.create_task(rig.ask(body=chat(stream=stream), headers=WITH_OLD))
    await engine.arrived()

    await rig.published(keys=(OTHER,))
    reply = await asking

    assert (reply.status, reply.error["code"]) == (401, "key_revoked")
    assert reply.headers["x-should-retry"] == "false"


async def test_a_request_that_is_still_being_sent_ends_too(rig: Rig, engine: FakeEngine) -> None:
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(request("POST", "/v1/chat/completions", BODY, headers=WITH_OLD)[:-5])
        await asyncio.sleep(0.05)

        await rig.published(keys=(OTHER,))
        reply = await client.reply()

    assert (reply.status, reply.error["code"]) == (401, "key_revoked")
    assert engine.posts == []


UNTOUCHED = {
    "the file says that they finish": {"keys": (OTHER,), "limits": Limits(revoked_streams="finish")},
    "another key is revoked": {"keys": (OLD,)},
    "the key was replaced and still opens": {"keys": (OLD, NEW)},
    "the key has expired": {"keys": (Key("office", OLD.sha256, id="k1", expires=1.0), OTHER)},
    "nobody can ask for keys": {"keys": (), "is_closed": True, "keys_missing": "the store is away"},
}


@pytest.mark.parametrize("change", UNTOUCHED.values(), ids=UNTOUCHED)
async def test_all_other_streams_go_on(rig: Rig, engine: FakeEngine, change: dict[str, object]) -> None:
    engine.script("endless_drip")
    async with asyncio.timeout(20), Client(rig.url) as client:
        await begun(client)

        await rig.published(**change)
        for _ in range(5):
            await client.reader.readuntil(b"data: ")


async def test_what_was_revoked_while_nobody_could_ask_ends_when_somebody_can(rig: Rig, engine: FakeEngine) -> None:
    engine.script("endless_drip")
    async with asyncio.timeout(20), Client(rig.url) as client:
        await begun(client)

        await rig.published(keys=(), is_closed=True, keys_missing="the store is away")
        await rig.published(keys=(OTHER,), keys_missing=None)
        rest = await client.reader.read(-1)

    assert b'"code":"key_revoked"' in rest
