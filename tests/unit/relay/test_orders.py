"""Orders that the relay passes on to the supervisor, which may take it minutes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.relay.routes import gateway_api
from tests.fakes import wire
from tests.rigs.hop import take
from tests.rigs.raw_client import Reply
from tests.rigs.relay import running

PROBE = "/admin/models/m/probe"


@contextlib.asynccontextmanager
async def supervisor(folder: Path, heard: list[bytes], answers: asyncio.Event) -> AsyncIterator[None]:
    """Answers once it may."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            heard.append((await take(reader)).partition(b"\r\n")[0])
            await answers.wait()
            writer.write(wire.whole(200, b"{}"))
            await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(serve, folder / "control.sock"):
        yield
        answers.set()


async def test_an_order_waits_longer_than_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that first had to start its model was a 502 after a minute, while the supervisor went on with it."""
    monkeypatch.setattr(gateway_api, "ANSWER_S", 0.2)
    heard: list[bytes] = []
    answers = asyncio.Event()
    async with running({}, {}) as rig, supervisor(rig.state, heard, answers):
        ordering = asyncio.create_task(rig.ask(PROBE, b"{}"))
        question = await rig.ask("/admin/models")
        answers.set()
        order: Reply = await ordering

    assert (question.status, question.error["code"]) == (504, "engine_timeout")
    assert order.status == 200
    assert sorted(line.split()[0] for line in heard) == [b"GET", b"POST"]


async def test_an_order_that_is_not_done_in_time_says_that_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_api, "ORDER_S", 0.2)
    async with running({}, {}) as rig, supervisor(rig.state, [], asyncio.Event()):
        late = await rig.ask(PROBE, b"{}")

    assert late.status == 504
    assert "the order goes on" in late.error["message"]
