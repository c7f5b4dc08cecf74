"""One of several engines that fails, hangs or is slow is passed over until it is well: over a real relay, with engines
on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from app.supervisor.ejection.ejections import Ejections
from app.table import Backend, PublicModel, Target
from backends.endpoint import Timeouts
from tests.fakes.engine import FakeEngine
from tests.rigs.raw_client import chat
from tests.rigs.relay import Rig, backend, models, running

NAMES = ("a", "b", "c")
PAUSE_S = 0.3


class Trio:
    """Three engines of one model behind a relay, and the supervisor's ejections."""

    def __init__(self, rig: Rig, engines: dict[str, FakeEngine], rows: dict[str, Backend]) -> None:
        self.rig = rig
        self.engines = engines
        self._rows = rows
        self.ejections = Ejections(lambda: rows, self.publish, first_pause_s=PAUSE_S)
        rig.fleet.ejections = self.ejections

    def publish(self) -> None:
        """The table as the supervisor makes it."""
        self.rig.publish(backends=self.ejections.applied(self._rows))
        self.rig.fleet.leases_changed()

    def served(self) -> dict[str, int]:
        """How many requests of clients each engine has read; trials are not among them."""
        return {
            name: sum(b'"content":"Hi"' not in post.body for post in engine.posts)
            for name, engine in self.engines.items()
        }

    def out(self) -> set[str]:
        """Who is ejected by the table that the relay has."""
        table = self.rig.table
        return {row.name for row in table.backends.values() if row.ejected}

    async def until_out(self, *names: str) -> None:
        """Until these are ejected, and nobody else, by the relay's own table."""
        fleet = self.rig.fleet
        await fleet.until(lambda: self.out() == set(names) and self.rig.leases.is_applied(self.rig.table.version))

    async def ask(self, count: int, *, stream: bool = False) -> list[int]:
        """So many requests, one after the other; their statuses."""
        return [(await self.rig.ask(body=chat(stream=stream))).status for _ in range(count)]


@contextlib.asynccontextmanager
async def trio(timeouts: Timeouts | None = None) -> AsyncIterator[Trio]:
    async with contextlib.AsyncExitStack() as stack:
        engines = {name: await stack.enter_async_context(FakeEngine()) for name in NAMES}
        rows = {name: backend(engine.url, name, timeouts=timeouts, is_ours=False) for name, engine in engines.items()}
        model = PublicModel("fake", tuple(Target(name, "fake") for name in NAMES))
        rig = await stack.enter_async_context(running(rows, {"fake": model}))
        one = Trio(rig, engines, rows)
        stack.push_async_callback(one.ejections.aclose)
        yield one


FAILURES = ("status_500_vllm", "html_502", "reset_after_headers", "invalid_json", "status_503_vllm", "refuse")


@pytest.mark.parametrize("fault", FAILURES)
async def test_an_engine_that_fails_is_out_after_five_requests_and_back_when_it_is_well(fault: str) -> None:
    async with trio() as one:
        one.engines["b"].script(default=fault)

        before: list[int] = []
        while not one.rig.fleet.suspicions:
            before += await one.ask(1)
        await one.until_out("b")
        seen = one.served()["b"]
        during = await one.ask(30)

        suspicion = one.rig.fleet.suspicions[0]
        assert (suspicion.backend, suspicion.model, suspicion.reason) == ("b", "fake", "failures")
        assert seen == (0 if fault == "refuse" else 5)
        assert len([status for status in before if status != 200]) <= 5
        assert during == [200] * 30
        assert one.served()["b"] == seen

        one.engines["b"].script(default="ok")
        await one.until_out()
        assert await one.ask(30) == [200] * 30
        assert one.served()["b"] > seen


async def test_who_is_back_and_fails_again_is_out_at_once() -> None:
    async with trio() as one:
        one.engines["b"].script(default="status_500_vllm")
        while not one.rig.fleet.suspicions:
            await one.ask(1)
        await one.until_out("b")
        one.engines["b"].script(default="ok")
        await one.until_out()
        one.engines["b"].script(default="status_500_vllm")
        before = one.served()["b"]

        while len(one.rig.fleet.suspicions) < 2:
            await one.ask(1)
        await one.until_out("b")

        assert one.served()["b"] == before + 1


async def test_an_engine_that_hangs_is_out_although_none_of_its_requests_has_failed_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, seconds in (("SILENT_S", 0.3), ("SILENT_FACTOR", 3.0)):
        monkeypatch.setattr(f"app.relay.balancing.target_health.{name}", seconds)
    monkeypatch.setattr("app.relay.balancing.outliers.LOOK_EVERY_S", 0.1)
    monkeypatch.setattr("app.supervisor.ejection.ejections.LEAST_S", 0.3)
    async with trio() as one:
        assert await one.ask(40, stream=True) == [200] * 40
        one.engines["b"].script(default="never_answers")

        asking = [asyncio.create_task(one.ask(1, stream=True)) for _ in range(6)]
        await one.until_out("b")

        assert [suspicion.reason for suspicion in one.rig.fleet.suspicions] == ["silent"]
        assert await one.ask(30, stream=True) == [200] * 30
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        one.engines["b"].script(default="ok")
        await one.until_out()


async def test_a_long_request_is_no_hang_where_a_short_one_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.relay.balancing.target_health.SILENT_S", 0.2)
    monkeypatch.setattr("app.relay.balancing.outliers.LOOK_EVERY_S", 0.1)
    async with trio() as one:
        assert await one.ask(40) == [200] * 40
        one.engines["b"].script("never_answers", default="ok")

        asking = [asyncio.create_task(one.ask(1)) for _ in range(6)]
        await one.rig.fleet.until(lambda: bool(one.rig.fleet.suspicions))
        await one.engines["b"].arrived(len(one.engines["b"].posts) + 1)  # the trial
        assert await one.ask(20) == [200] * 20

        assert one.out() == set()
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def test_the_last_engine_is_never_out() -> None:
    async with trio() as one:
        for engine in one.engines.values():
            engine.script(default="status_500_vllm")

        statuses = await one.ask(60)

        assert set(statuses) == {502}
        assert len(one.out()) < len(NAMES)
        for engine in one.engines.values():
            engine.script(default="ok")
        await one.until_out()
        assert await one.ask(10) == [200] * 10


@pytest.mark.parametrize("fault", ["status_400_vllm", "status_429_vllm"])
async def test_what_is_not_the_engines_failure_ejects_nobody(fault: str) -> None:
    async with trio() as one:
        one.engines["b"].script(default=fault)

        await one.ask(40)

        assert one.rig.fleet.suspicions == []


async def test_engines_that_all_refuse_are_not_asked_once_more_for_each_of_them() -> None:
    async with trio() as one:
        for engine in one.engines.values():
            engine.script(default="status_503_vllm")

        statuses = await one.ask(60)
        denied = one.rig.sample("modelport_retries_denied_total", gen_ai_request_model="fake")

        assert set(statuses) == {503}
        assert denied > 0
        assert sum(one.served().values()) < 60 + 30  # 180 without a budget


async def test_a_fallback_that_answers_may_have_every_request() -> None:
    async with FakeEngine() as full, FakeEngine() as spare:
        full.script(default="status_429_vllm")
        known = models("spare", backend="spare", engine_name="fake")
        known["main"] = PublicModel("main", (Target("full", "fake"),), fallbacks=("spare",))
        rows = {"full": backend(full.url, "full"), "spare": backend(spare.url, "spare")}
        async with running(rows, known) as rig:
            replies = [await rig.ask(body={**chat(), "model": "main"}) for _ in range(60)]

            assert {reply.status for reply in replies} == {200}
            assert len(full.posts) == len(spare.posts) == 60
            assert rig.sample("modelport_retries_denied_total") == 0
