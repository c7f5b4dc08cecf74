"""Engines that live and do nothing: signs of life as tables, and real processes that stand still."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from app.supervisor.fleet.fleet import Fleet
from backends.config.base import BackendConfig
from backends.endpoint import Endpoint, State
from backends.engine import Engine, Launch, Probe
from backends.errors import EngineFailed
from backends.llama_cpp.config import LlamaCppConfig
from backends.process.heartbeat import Heartbeat, advance, cpu_s, io, work
from tests.rigs.fleet import FakeManaged, Relays, managed, only, running

PULSES: dict[str, tuple[list[tuple[float, Hashable]], Heartbeat]] = {
    "the first sign": ([(1, (5,))], Heartbeat((5,), 1)),
    "the same sign": ([(1, (5,)), (9, (5,))], Heartbeat((5,), 1)),
    "another sign": ([(1, (5,)), (9, (6,))], Heartbeat((6,), 9)),
    "nothing that should move": ([(1, (5,)), (5, None), (9, None)], Heartbeat(None, 9)),
    "work that comes after a rest": ([(1, None), (5, (5,)), (9, (5,))], Heartbeat((5,), 5)),
}


@pytest.mark.parametrize("name", PULSES)
def test_a_standstill_is_timed_from_its_first_sign(name: str) -> None:
    signs, expected = PULSES[name]
    beat: Heartbeat | None = None

    for now, sign in signs:
        beat = advance(beat, sign, now)

    assert beat == expected


@pytest.mark.parametrize(
    ("probe", "signs"),
    [
        (Probe(True, in_flight=1, progress=(1.0, 2.0)), (1.0, 2.0)),
        (Probe(True, in_flight=0, progress=(1.0, 2.0)), None),
        (Probe(True, in_flight=None, progress=(1.0,)), None),
        (Probe(True, in_flight=3), None),
        (Probe(False, in_flight=3, progress=(1.0,)), None),
    ],
    ids=["works", "idle", "does not count requests", "does not count work", "down"],
)
def test_only_counters_of_an_engine_with_requests_must_move(probe: Probe, signs: Hashable) -> None:
    assert work(probe) == signs


def test_requests_of_ours_count_where_the_engine_counts_none_yet() -> None:
    assert work(Probe(True, in_flight=0, progress=(1.0, 2.0)), is_used=True) == (1.0, 2.0)
    assert work(Probe(True, in_flight=0), is_used=True) is None
    assert work(Probe(False, progress=(1.0,)), is_used=True) is None


def test_reading_and_writing_is_a_sign_of_life(tmp_path: Path) -> None:
    before = io([os.getpid()])
    (tmp_path / "file").write_bytes(b"x" * 100)

    assert io([os.getpid()]) != before
    assert io([]) is None
    assert io([os.getpid()], proc=tmp_path) is None


def test_processor_time_is_counted_over_all_processes() -> None:
    before = cpu_s([os.getpid()])
    while cpu_s([os.getpid()]) == before:
        pass

    assert cpu_s([os.getpid(), os.getpid()]) >= 2 * before
    assert cpu_s([]) == 0
    assert cpu_s([0]) == 0  # no process has that number


class Meter:
    """What an engine counts, and whether it is stuck."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.progress = 0.0
        self.looks = 0
        self.looked = asyncio.Event()
        self.tests = 0
        self.is_stuck = False
        self.moves_in_test = False
        self.is_silent = False  # to a test


class Counting(FakeManaged):
    def __init__(self, name: str, config: LlamaCppConfig, meter: Meter) -> None:
        super().__init__(name, config)
        self._meter = meter

    async def probe(self, endpoint: Endpoint) -> Probe:
        self._meter.looks += 1
        self._meter.looked.set()
        probe = await super().probe(endpoint)
        return replace(probe, in_flight=self._meter.in_flight, progress=(self._meter.progress,))

    async def warm_up(self, endpoint: Endpoint) -> None:
        self._meter.tests += 1
        if self._meter.is_silent and endpoint.generation == 1:
            await asyncio.get_running_loop().create_future()
        if self._meter.is_stuck:
            self._meter.progress += self._meter.moves_in_test
            self._meter.is_stuck = False  # the next start is sound
            raise EngineFailed(self.name, "status 500")
        await super().warm_up(endpoint)


class Computing(Counting):
    """Beside its server something computes without an end."""

    def launch(self, port: int, devices: Sequence[str], key: str) -> Launch:
        launch = super().launch(port, devices, key)
        return replace(
            launch, argv=("/bin/sh", "-c", 'while :; do :; done & while :; do :; done & exec "$0" "$@"', *launch.argv)
        )


def computing(meter: Meter, name: str, config: BackendConfig) -> Engine:
    assert isinstance(config, LlamaCppConfig)
    return Computing(name, config, meter)


def counting(meter: Meter, name: str, config: BackendConfig) -> Engine:
    assert isinstance(config, LlamaCppConfig)
    return Counting(name, config, meter)


async def serve_one(relays: Relays, fleet: Fleet) -> None:
    """A request has come and gone."""
    await relays.until_state("a", State.READY)
    relays.returned.add(("a", 1))
    fleet.leases_changed()


async def until(meter: Meter, looks: int) -> None:
    async with asyncio.timeout(60):
        while meter.looks < looks:
            meter.looked.clear()
            await meter.looked.wait()


async def test_an_engine_that_stands_still_with_requests_and_fails_a_test_is_started_anew() -> None:
    relays, meter = Relays(), Meter()
    async with running(relays, None, lambda *made: counting(meter, *made), a=managed(stall_timeout_s=0.5)) as fleet:
        await serve_one(relays, fleet)
        meter.is_stuck, meter.in_flight = True, 3

        await relays.until_state("a", State.READY, generation=2)

        reasons = {rows["a"].reason for rows in relays.published}
        assert "it stood still for 0.5 s with requests in it, and a test request failed: status 500" in reasons
        assert only(fleet).restarts == 1


async def test_an_engine_that_is_stuck_before_it_has_counted_its_only_request_is_started_anew() -> None:
    relays, meter = Relays(), Meter()
    async with running(relays, None, partial(counting, meter), a=managed(stall_timeout_s=0.5)) as fleet:
        await serve_one(relays, fleet)
        relays.leases["a", 1] = 1
        fleet.leases_changed()
        meter.is_silent = True

        await relays.until_state("a", State.READY, generation=2)

        reason = "it stood still for 0.5 s with requests in it, and a test request had no answer within 0.5 s"
        assert {rows["a"].reason for rows in relays.published} == {None, reason}
        assert meter.in_flight == 0


async def test_an_engine_that_computes_gets_more_time_and_not_all_the_time_there_is() -> None:
    """It may be over one long piece of a prompt; workers that wait for each other for ever compute, too."""
    relays, meter = Relays(), Meter()
    async with running(relays, None, partial(computing, meter), a=managed(stall_timeout_s=1)) as fleet:
        await serve_one(relays, fleet)
        meter.is_silent, meter.in_flight = True, 1

        await relays.until_state("a", State.READY, generation=2)

        [reason] = {rows["a"].reason for rows in relays.published} - {None}
        assert re.fullmatch(
            r"it computed for \d+ s without a token with requests in it, and a test request had no answer within 1 s",
            reason or "",
        )
        assert meter.tests >= 2 + 2, "two warm-ups, and one test is not enough"


async def test_an_engine_that_does_not_answer_a_test_and_computes_nothing_is_started_anew_at_once() -> None:
    relays, meter = Relays(), Meter()
    async with running(relays, None, partial(counting, meter), a=managed(stall_timeout_s=0.5)) as fleet:
        await serve_one(relays, fleet)
        meter.is_silent, meter.in_flight = True, 1

        await relays.until_state("a", State.READY, generation=2)

        reasons = {rows["a"].reason for rows in relays.published}
        reason = "it stood still for 0.5 s with requests in it, and a test request had no answer within 0.5 s"
        assert reasons == {None, reason}
        assert meter.tests == 2 + 1


async def test_an_engine_that_passes_the_test_is_left_alone() -> None:
    relays, meter = Relays(), Meter()
    async with running(relays, None, lambda *made: counting(meter, *made), a=managed(stall_timeout_s=0.5)) as fleet:
        await serve_one(relays, fleet)
        meter.in_flight = 1

        await until(meter, meter.looks + 4)

        assert meter.tests >= 2  # the warm-up is the first
        assert only(fleet).generation == 1


async def test_an_engine_that_moves_again_behind_a_long_prompt_is_left_alone() -> None:
    relays, meter = Relays(), Meter()
    async with running(relays, None, lambda *made: counting(meter, *made), a=managed(stall_timeout_s=0.5)) as fleet:
        await serve_one(relays, fleet)
        meter.is_stuck, meter.in_flight, meter.moves_in_test = True, 1, True

        await until(meter, meter.looks + 4)

        assert not meter.is_stuck  # it was tested
        assert only(fleet).generation == 1


async def test_the_first_request_may_take_as_long_as_it_likes() -> None:
    relays, meter = Relays(), Meter()
    async with running(relays, None, lambda *made: counting(meter, *made), a=managed(stall_timeout_s=0.5)) as fleet:
        await relays.until_state("a", State.READY)
        relays.leases["a", 1] = 1
        fleet.leases_changed()
        meter.is_stuck, meter.in_flight = True, 1

        await until(meter, meter.looks + 3)

        assert meter.is_stuck
        assert only(fleet).generation == 1


async def test_a_start_that_stands_still_is_ended_and_counts_as_failed() -> None:
    relays = Relays()
    async with running(relays, a=managed("--load-s 600", start_stall_s=0.5)) as fleet:
        await relays.until(lambda: bool(relays.published) and relays.row("a").reason is not None)

        assert relays.row("a").reason == "its start stood still: no output, no reading and no writing for 0.5 s"
        await fleet.stop("a")
