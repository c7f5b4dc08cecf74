"""Every way an engine is known to answer or to fail, seen from the client's side of a real relay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app.table import Limits
from backends.endpoint import Timeouts
from tests.fakes.engine import SCENARIOS, FakeEngine
from tests.fakes.scenario import End, Stage
from tests.rigs.raw_client import Reply, chat
from tests.rigs.relay import Rig, backend, models, running

WAITS = Timeouts(connect_s=2, first_byte_s=1, between_events_s=1)
PATIENT = Timeouts(connect_s=2, first_byte_s=20, between_events_s=20)
LIMITS = Limits(max_answer_bytes=8 * 2**20, max_event_bytes=8 * 2**20)
CASES = [
    pytest.param(name, stream, id=f"{name}-{'stream' if stream else 'whole'}")
    for name, scenario in SCENARIOS.items()
    for stream in (False, True)
    if scenario.fits(stream=stream) and scenario.end is not End.OPEN
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as fake:
        yield fake


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rig(engine: FakeEngine) -> AsyncIterator[Rig]:
    backends = {
        "engine": backend(engine.url, timeouts=PATIENT),
        "hasty": backend(engine.url, "hasty", timeouts=WAITS),
    }
    served = models("fake") | models("hasty", backend="hasty", engine_name="fake")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.relay.proxy.dispatch.NOTICED_S", 0.05)  # nobody is there to notice it
        async with running(backends, served, LIMITS) as gateway:
            yield gateway


def assert_no_secret_or_trace(reply: Reply) -> None:
    assert b"Traceback" not in reply.body
    assert b"127.0.0.1" not in reply.body


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("name", "stream"), CASES)
async def test_each_answer_and_failure_ends_as_it_should(engine: FakeEngine, rig: Rig, name: str, stream: bool) -> None:
    scenario = SCENARIOS[name]
    engine.script(name)
    model = "hasty" if scenario.waits else "fake"

    reply = await rig.ask(body=chat(model, stream=stream))

    engine.script()
    assert reply.status in scenario.owes, reply.body[:300]
    assert_no_secret_or_trace(reply)
    if reply.status != 200:
        assert reply.is_whole
        assert reply.error["message"]
    elif scenario.end is End.WHOLE:
        assert reply.is_whole
        assert reply.text == scenario.text
        assert not stream or reply.events[-1] == "[DONE]"
    elif scenario.end is End.ERROR:
        assert reply.is_cut
        assert reply.text == scenario.text
        assert "[DONE]" not in reply.events
        assert [e for e in reply.events if "error" in e] == [reply.events[-1]]
        assert set(reply.events[-1]["error"]) == {"message", "type", "param", "code"}


@pytest.mark.asyncio(loop_scope="module")
async def test_afterwards_nothing_is_left_behind(engine: FakeEngine, rig: Rig) -> None:
    reply = await rig.ask(body=chat())

    assert reply.status == 200
    await rig.fleet.until(lambda: rig.leases.held("engine", 1) == 0 and rig.leases.held("hasty", 1) == 0)
    assert rig.sample("modelport_in_flight") == 0
    for record in engine.requests:
        async with asyncio.timeout(20):
            await record.ended.wait()


def test_the_table_of_cases_covers_both_kinds_of_answer_and_all_stages() -> None:
    assert {stage for s in SCENARIOS.values() for stage in [s.stage]} == set(Stage)
    assert len(CASES) > 100
