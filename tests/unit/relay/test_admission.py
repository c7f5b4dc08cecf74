"""Requests that wait for a place at an engine that serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app.supervisor.admission.gate import AdmissionGate
from app.supervisor.fleet.waiters import WaitOutcome
from tests.fakes.engine import FakeEngine
from tests.rigs.raw_client import chat
from tests.rigs.relay import Rig, backend, models, running


async def waiting(rig: Rig) -> asyncio.Future[WaitOutcome]:
    """A request that waits for the engine: its outcome, to be set."""
    await rig.fleet.until(lambda: "engine" in rig.fleet.asked)
    return rig.fleet.asked["engine"]


@pytest_asyncio.fixture
async def limited() -> AsyncIterator[tuple[Rig, FakeEngine]]:
    async with FakeEngine() as engine, running({"engine": backend(engine.url, is_limited=True)}, models("fake")) as rig:
        yield rig, engine


async def test_a_request_is_sent_when_it_is_admitted_and_gives_its_permit_back(
    limited: tuple[Rig, FakeEngine],
) -> None:
    rig, engine = limited
    gate = AdmissionGate(1)
    asking = asyncio.create_task(rig.ask(body=chat()))
    wait = await waiting(rig)
    assert engine.posts == []

    wait.set_result(WaitOutcome(is_ready=True, permit=await gate.enter(0, 1.0)))
    reply = await asking

    assert reply.status == 200
    async with asyncio.timeout(20):
        await gate.enter(1, 20.0)
    await rig.fleet.until(lambda: rig.leases.total() == 0)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/messages/count_tokens", {"model": "fake", "messages": [{"role": "user", "content": "hi"}]}, 200),
        ("/api/generate", {"model": "fake"}, 200),
    ],
)
async def test_what_generates_nothing_needs_no_place(
    limited: tuple[Rig, FakeEngine], path: str, body: dict[str, object], status: int
) -> None:
    rig, _ = limited

    async with asyncio.timeout(20):
        reply = await rig.ask(path, body)

    assert reply.status == status
    assert rig.fleet.asked == {}


async def test_an_engine_without_a_place_is_429_with_advice(limited: tuple[Rig, FakeEngine]) -> None:
    rig, engine = limited
    asking = asyncio.create_task(rig.ask(body=chat(stream=True)))

    full = WaitOutcome(is_ready=False, is_full=True, reason="256 requests wait for it already", retry_after_s=7)
    (await waiting(rig)).set_result(full)
    reply = await asking

    assert (reply.status, reply.error["code"]) == (429, "engine_saturated")
    assert "256 requests wait" in reply.error["message"]
    assert reply.headers["retry-after"] == "7"
    assert reply.headers["x-should-retry"] == "true"
    assert engine.posts == []


async def test_a_client_that_leaves_the_queue_is_forgotten_at_once(limited: tuple[Rig, FakeEngine]) -> None:
    rig, engine = limited
    asking = asyncio.create_task(rig.ask(body=chat()))
    wait = await waiting(rig)

    asking.cancel()

    await rig.fleet.until(lambda: wait.cancelled() and rig.leases.total() == 0)
    assert engine.posts == []
