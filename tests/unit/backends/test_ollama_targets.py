"""A name whose targets are the fake Ollama daemon and another engine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from app.table import PublicModel as PublicModel
from app.table import Target
from tests.fakes.engine import FakeEngine
from tests.fakes.ollama import BUSY, FakeOllama, Fault
from tests.fakes.ollama_models import Model
from tests.rigs.ollama import gateway
from tests.rigs.raw_client import chat
from tests.rigs.relay import backend


@pytest.fixture
async def daemon() -> AsyncIterator[FakeOllama]:
    async with FakeOllama() as running:
        running.store.add(Model("mymodel"))
        yield running


async def test_what_only_the_daemon_cannot_do_goes_to_the_next_target(daemon: FakeOllama) -> None:
    both = PublicModel("both", (Target("ollama", "mymodel"), Target("engine", "fake")))
    async with FakeEngine() as engine, gateway(daemon) as rig:
        await rig.published(backends={**rig.table.backends, "engine": backend(engine.url)}, models={"both": both})
        replies = [await rig.ask(body=chat("both", n=2)) for _ in range(8)]  # the order is by chance

    assert {reply.status for reply in replies} == {200}
    assert len(engine.posts) == 8
    assert daemon.asked == []


async def test_what_the_target_before_ignored_is_not_reported_of_the_one_that_took_it(daemon: FakeOllama) -> None:
    both = PublicModel("both", (Target("ollama", "mymodel", 10**9), Target("engine", "fake")))
    daemon.script(Fault("line", status=503, text=BUSY))
    async with FakeEngine() as engine, gateway(daemon) as rig:
        await rig.published(backends={**rig.table.backends, "engine": backend(engine.url)}, models={"both": both})
        reply = await rig.ask(body=chat("both", logit_bias={"1": 2}))

    assert (reply.status, len(daemon.asked), len(engine.posts)) == (200, 1, 1)
    assert "x-modelport-dropped-params" not in reply.headers
