"""What a request leaves in the log: who and how long, never what was said."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
import structlog

from app.keys import digest
from app.log import set_up
from app.table import Key
from tests.fakes.engine import FakeEngine
from tests.rigs.raw_client import Client, chat, request
from tests.rigs.relay import Rig, backend, models, running

SECRET = "mp-office-0123"
SAID = "the colour of my safe's key is green"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    out = io.StringIO()
    set_up("json", "info", out)
    yield out
    structlog.reset_defaults()


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as fake:
        yield fake


@pytest_asyncio.fixture
async def rig(engine: FakeEngine, lines: io.StringIO) -> AsyncIterator[Rig]:
    async with running({"engine": backend(engine.url)}, models("fake")) as gateway:
        await gateway.published(keys=(Key("office", digest(SECRET)),))
        yield gateway


def logged(lines: io.StringIO) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in lines.getvalue().splitlines()]
    return [line for line in entries if line["event"] in ("request", "request failed")]


async def ask(rig: Rig, *, stream: bool) -> int:
    reply = await rig.ask(body=chat(stream=stream, text=SAID), headers={"authorization": f"Bearer {SECRET}"})
    await rig.fleet.until(lambda: rig.leases.total() == 0)
    return reply.status


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_is_one_line_when_asked_for(rig: Rig, lines: io.StringIO, stream: bool) -> None:
    await rig.published(access_log=True)

    assert await ask(rig, stream=stream) == 200

    (line,) = logged(lines)
    assert (
        line.items()
        >= {
            "principal": "office",
            "operation": "chat",
            "model": "fake",
            "backend": "engine",
            "status": 200,
            "outcome": "ok",
            "streamed": stream,
        }.items()
    )
    assert line["output_tokens"] > 0
    assert line["seconds"] > 0


async def test_without_that_only_failures_are_logged(engine: FakeEngine, rig: Rig, lines: io.StringIO) -> None:
    await ask(rig, stream=False)
    engine.script("accept_then_fin")
    assert await ask(rig, stream=False) == 502

    (line,) = logged(lines)
    assert (line["event"], line["level"], line["outcome"]) == ("request failed", "warning", "engine_disconnected")


async def test_a_client_that_leaves_is_a_line_and_no_failure(engine: FakeEngine, rig: Rig, lines: io.StringIO) -> None:
    await rig.published(access_log=True)
    engine.script("never_answers")
    body = json.dumps(chat(text=SAID)).encode()
    async with Client(rig.url) as client:
        client.send(request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {SECRET}"}))
        await engine.arrived()
        await rig.fleet.until(lambda: rig.leases.total() == 1)
    await rig.fleet.until(lambda: rig.leases.total() == 0)

    (line,) = logged(lines)
    assert (line["level"], line["outcome"], line["status"]) == ("info", "client_left", 499)


async def test_nothing_that_was_said_and_no_key_is_in_the_log(engine: FakeEngine, rig: Rig, lines: io.StringIO) -> None:
    await rig.published(access_log=True)
    for scenario in ("ok", "error_event", "accept_then_fin", "invalid_json"):
        engine.script(scenario)
        await ask(rig, stream=True)

    assert logged(lines)
    assert SAID not in lines.getvalue()
    assert SECRET not in lines.getvalue()
    assert "Hello" not in lines.getvalue()
