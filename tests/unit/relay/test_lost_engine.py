"""A request that came just before its engine is known to be dead fares as the next one does: over a real relay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app.supervisor.fleet.waiters import WaitOutcome
from app.table import Limits, PublicModel, Target
from backends.endpoint import State
from tests.fakes.engine import FakeEngine
from tests.rigs.raw_client import chat
from tests.rigs.relay import backend, models, running

WEDGED = "it has 1 requests and has done nothing for 120 s"


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as engine:
        yield engine


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds takes none."""
    monkeypatch.setattr("app.relay.proxy.dispatch.NOTICED_S", 0.05)
    monkeypatch.setattr("backends.http.exchange.DOUBTED_S", 0.05)


def gone() -> object:
    return backend(None, can_start=True, state=State.STARTING, reason="its core process died")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat", "/v1/responses"])
async def test_a_request_that_a_dead_engine_refuses_waits_for_its_next_start(
    engine: FakeEngine, path: str, stream: bool
) -> None:
    asked = chat(stream=stream, max_tokens=5)
    if path == "/v1/responses":
        asked = {"model": "fake", "input": "hello", "stream": stream}
    async with FakeEngine() as second, running({"engine": backend(engine.url)}, models("fake")) as rig:
        engine.refuse()

        asking = asyncio.create_task(rig.ask(path, asked))
        await rig.fleet.until(lambda: rig.fleet.failed == [("engine", 1)])
        rig.publish(backends={"engine": gone()})
        await rig.fleet.until(lambda: "engine" in rig.fleet.asked)
        rig.publish(backends={"engine": backend(second.url, generation=2)})
        rig.fleet.asked["engine"].set_result(WaitOutcome(is_ready=True))
        reply = await asking

        assert reply.status == 200
        assert len(second.posts) == 1
        await rig.fleet.until(lambda: rig.leases.total() == 0)


async def test_one_that_was_reset_unread_waits_too(engine: FakeEngine) -> None:
    engine.script("fin_unread")
    async with FakeEngine() as second, running({"engine": backend(engine.url)}, models("fake")) as rig:
        asking = asyncio.create_task(rig.ask(body=chat()))
        await rig.fleet.until(lambda: rig.fleet.failed == [("engine", 1)])
        rig.publish(backends={"engine": backend(second.url, generation=2)})

        assert (await asking).status == 200


async def test_one_that_only_refuses_once_is_answered_as_before(engine: FakeEngine, hasty: None) -> None:
    """Nobody has seen its end: what it refuses is refused."""
    async with running({"engine": backend(engine.url)}, models("fake")) as rig:
        engine.refuse()

        reply = await rig.ask(body=chat())

        assert (reply.status, reply.json["error"]["code"]) == (502, "engine_unreachable")
        assert reply.headers["x-should-retry"] == "true"


async def test_one_that_will_not_start_again_says_why(engine: FakeEngine) -> None:
    async with running({"engine": backend(engine.url)}, models("fake")) as rig:
        engine.refuse()

        asking = asyncio.create_task(rig.ask(body=chat()))
        await rig.fleet.until(lambda: rig.fleet.failed == [("engine", 1)])
        rig.publish(backends={"engine": backend(None, state=State.FAILED, reason="it gave up")})
        reply = await asking

        assert (reply.status, reply.json["error"]["code"]) == (503, "engine_not_ready")
        assert "it gave up" in reply.json["error"]["message"]


async def test_another_target_is_tried_before_anybody_waits(engine: FakeEngine) -> None:
    async with FakeEngine() as second:
        served = {"fake": PublicModel("fake", (Target("engine", "fake"), Target("other", "fake")))}
        rows = {"engine": backend(engine.url), "other": backend(second.url, "other")}
        async with running(rows, served) as rig:
            engine.refuse()

            replies = [await rig.ask(body=chat()) for _ in range(4)]

            assert [reply.status for reply in replies] == [200] * 4
            assert len(second.posts) == 4


@pytest.mark.parametrize("is_ours", [False, True])
async def test_one_whose_core_died_is_looked_at_and_what_it_had_is_not_sent_again(
    engine: FakeEngine, is_ours: bool
) -> None:
    engine.script("core_died")
    async with running({"engine": backend(engine.url, is_ours=is_ours)}, models("fake")) as rig:
        reply = await rig.ask(body=chat())

        assert (reply.status, reply.headers["x-should-retry"]) == (502, "false")
        assert len(engine.posts) == 1
        await rig.fleet.until(lambda: rig.fleet.failed == [("engine", 1)])


@pytest.mark.parametrize("stream", [False, True])
async def test_what_waits_for_a_remote_that_is_known_to_be_stuck_is_ended(
    engine: FakeEngine, hasty: None, stream: bool
) -> None:
    engine.script("never_answers")
    async with running({"engine": backend(engine.url, is_ours=False)}, models("fake"), Limits()) as rig:
        asking = asyncio.create_task(rig.ask(body=chat(stream=stream)))
        await rig.fleet.until(lambda: rig.leases.held("engine", 1) == 1)
        rig.publish(backends={"engine": backend(None, state=State.FAILED, reason=WEDGED, is_wedged=True)})
        reply = await asking

        assert WEDGED in reply.body.decode()
        assert "engine_timeout" in reply.body.decode()


async def test_a_remote_that_works_again_is_waited_for_as_before(engine: FakeEngine) -> None:
    engine.script("never_answers")
    async with running({"engine": backend(engine.url, is_ours=False)}, models("fake")) as rig:
        asking = asyncio.create_task(rig.ask(body=chat()))
        await rig.fleet.until(lambda: rig.leases.held("engine", 1) == 1)
        await rig.published(backends={"engine": backend(None, state=State.FAILED, reason=WEDGED, is_wedged=True)})
        await rig.published(backends={"engine": backend(engine.url, is_ours=False, generation=2)})

        assert not asking.done()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
