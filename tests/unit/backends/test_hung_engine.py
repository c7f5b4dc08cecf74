"""An embedded engine that hangs in one request is found, ended and started again: a real one, and its pages."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace

import msgspec
import pytest

from app.supervisor.fleet.fleet import Fleet
from app.supervisor.fleet.waiters import WaitOutcome
from app.table import Backend
from backends.config.base import BackendConfig
from backends.endpoint import Endpoint, State
from backends.engine import Engine, Probe
from backends.errors import BackendError
from backends.llama_cpp.config import LlamaCppConfig
from backends.llama_cpp.engine import LlamaCpp, counted
from backends.process.heartbeat import work
from tests.fakes import wire
from tests.rigs.fleet import FakeManaged, Relays, managed, only, running
from tests.rigs.hop import Server, endpoint, take
from tests.unit.backends import test_llama_cpp

HANGS = {"model": "demo", "prompt": "a", "max_tokens": 4, "grammar": "root ::= " + '"a"? ' * 500}
PAGE = b"""# HELP llamacpp:n_decode_total Total number of llama_decode() calls
# TYPE llamacpp:n_decode_total counter
llamacpp:n_decode_total 12
llamacpp:prompt_tokens_total 7
llamacpp:prompt_tokens_seconds 30.8
llamacpp:tokens_predicted_total 1e+06
llamacpp:requests_processing 1
llamacpp:requests_deferred 2
"""


class Told(test_llama_cpp.Relays):
    """Remembers why it was not served."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: set[str | None] = set()

    def publish(self, rows: Mapping[str, Backend]) -> int:
        self.reasons.add(rows["demo"].reason)
        return super().publish(rows)


async def test_an_engine_that_works_for_ever_at_one_grammar_is_started_again() -> None:
    """It said that it was healthy, and every later request waited until its client gave up."""
    relays = Told()
    fleet = Fleet(
        {"demo": test_llama_cpp.config(context_length=512, slots=2, stall_timeout_s=2)},
        state_id=f"hung-{os.getpid()}",
        publish=relays.publish,
        leases=relays,
        random=lambda: 0.0,
    )
    task = asyncio.create_task(fleet.run())
    try:
        assert await fleet.wanted("demo") == WaitOutcome(True)
        demo = test_llama_cpp.Running(fleet, relays)
        hanging = asyncio.create_task(demo.ask("completions", HANGS))
        await relays.ready(2)
        with pytest.raises(BackendError):
            await hanging
        answer = await demo.ask("chat/completions", test_llama_cpp.CHAT, generation=2)
    finally:
        await fleet.close(0)
        await task

    assert answer.status == 200
    assert "what computes in it has not answered for 2 s" in relays.reasons
    assert fleet.status()[0].restarts == 1


async def test_one_that_does_not_give_its_counters_is_mute_and_stands_where_it_stood() -> None:
    holds = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await take(reader)).split()[1]
        if path == b"/metrics" and holds.is_set():
            await reader.read()  # until it is given up
        writer.write(wire.whole(200, PAGE if path == b"/metrics" else b'{"data":[{"id":"demo"}]}'))
        await writer.drain()

    engine = LlamaCpp("demo", test_llama_cpp.config())
    async with Server(serve) as server:
        first = await engine.probe(endpoint(server.url))
        holds.set()
        mute = await engine.probe(endpoint(server.url))
        other = await engine.probe(msgspec.structs.replace(endpoint(server.url), generation=2))

    assert (first.is_up, first.is_mute, first.progress, first.in_flight) == (True, False, (12, 7, 1e6), 3)
    assert (mute.is_up, mute.is_mute, mute.progress, mute.in_flight) == (True, True, first.progress, None)
    assert (other.is_mute, other.progress) == (True, None)
    assert len({work(first), work(mute), work(other)}) == 3


class Mute(FakeManaged):
    """Its first start is up and mute."""

    async def probe(self, endpoint: Endpoint) -> Probe:
        probe = await super().probe(endpoint)
        return replace(probe, is_mute=endpoint.generation == 1, progress=(5.0,))


def mute(name: str, config: BackendConfig) -> Engine:
    assert isinstance(config, LlamaCppConfig)
    return Mute(name, config)


async def test_one_that_stays_mute_is_ended_without_a_test_also_in_its_first_request() -> None:
    relays = Relays()
    async with running(relays, None, mute, a=managed(stall_timeout_s=0.5)) as fleet:
        await relays.until_state("a", State.READY, generation=2)

        reasons = {rows["a"].reason for rows in relays.published}
        assert reasons == {None, "what computes in it has not answered for 0.5 s"}
        assert only(fleet).restarts == 1


def test_what_its_page_says_of_its_work() -> None:
    work = counted(3, PAGE)

    assert (work.generation, work.progress, work.in_flight, work.is_mute) == (3, (12, 7, 1e6), 3, False)
    assert counted(3, b"no page").progress is None
    assert counted(3, b"no page").in_flight is None
