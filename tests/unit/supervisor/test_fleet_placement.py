"""Engines that start on demand, take turns in too little memory, are unloaded and put to sleep: real processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import replace

import pytest

from app.supervisor.capacity.measurements import MeasurementStore
from app.supervisor.capacity.placement import Gpu, Machine
from app.supervisor.capacity.schedule import Capacity
from app.supervisor.capacity.sizes import Size, Sizes, sized
from app.supervisor.fleet.waiters import WaitOutcome
from app.supervisor.metrics.snapshot import backend_counts
from backends.config.base import BackendConfig, ManagedConfig
from backends.endpoint import Endpoint, State
from backends.engine import Engine, Launch, Need, Sleeper
from backends.errors import EngineFailed
from backends.llama_cpp.config import LlamaCppConfig
from tests.rigs.fleet import FakeManaged, Relays, managed, one, only, pid_of, running

ONE = Capacity(Machine(1.0), swap_after_s=0.05)


def gigabyte(**values: object) -> LlamaCppConfig:
    return managed("plain", **{"memory_gb": 1, "start": "demand", **values})


async def test_what_boots_and_finds_no_room_starts_when_it_is_wanted() -> None:
    relays = Relays()
    async with running(relays, ONE, a=gigabyte(start="boot"), b=gigabyte(start="boot")) as fleet:
        await relays.until_state("a", State.READY)
        await relays.until(lambda: relays.row("b").reason is not None)
        assert relays.row("b").reason == "it needs 1 GB of memory, and 0 of 1 are free"
        assert relays.row("b").can_start

        assert await fleet.wanted("b") == WaitOutcome(True)

        assert relays.row("a").state is State.STOPPED
        assert one(fleet, "a").swaps == 1
        assert one(fleet, "a").restarts == one(fleet, "b").restarts == 0


async def test_what_would_not_fit_alone_says_so_at_once() -> None:
    relays = Relays()
    async with running(relays, ONE, a=gigabyte(memory_gb=2)) as fleet:
        outcome = await fleet.wanted("a")

        assert str(outcome.reason).startswith("it needs 2 GB of memory, and 1 of 1 are free; it has given up until ")
        assert str(outcome.reason).endswith("until its configuration changes: `modelport plan` shows what fits")
        assert relays.row("a").state is State.FAILED


async def test_a_busy_engine_makes_way_only_when_its_last_lease_is_returned_and_comes_back_in_turn() -> None:
    relays = Relays()
    async with running(relays, ONE, a=gigabyte(start="boot"), b=gigabyte()) as fleet:
        await relays.until_state("a", State.READY)
        relays.leases["a", 1] = 1
        fleet.leases_changed()

        for_b = asyncio.create_task(fleet.wanted("b"))
        await relays.until_state("a", State.STOPPING)
        assert relays.row("a").endpoint is None
        assert relays.row("a").can_start
        again_for_a = asyncio.create_task(fleet.wanted("a"))
        assert one(fleet, "b").pid is None
        relays.leases.clear()
        fleet.leases_changed()

        assert await for_b == await again_for_a == WaitOutcome(True)
        assert relays.states("b") == [State.STOPPED, State.STARTING, State.READY, State.STOPPING, State.STOPPED]
        assert relays.states("a")[-1] is State.READY


async def test_a_pinned_engine_stays_and_who_wants_its_room_is_told() -> None:
    relays = Relays()
    async with running(relays, ONE, a=gigabyte(start="boot", pinned=True), b=gigabyte()) as fleet:
        await relays.until_state("a", State.READY)

        outcome = await fleet.wanted("b")

        assert outcome.reason == "it needs 1 GB of memory, and 0 of 1 are free"
        assert relays.row("a").state is State.READY


async def test_what_nobody_waits_for_any_more_does_not_take_the_room_of_another() -> None:
    relays = Relays()
    async with running(
        relays, Capacity(Machine(1.0), swap_after_s=600), a=gigabyte(start="boot"), b=gigabyte()
    ) as fleet:
        await relays.until_state("a", State.READY)
        relays.leases["a", 1] = 1
        fleet.leases_changed()
        impatient = asyncio.create_task(fleet.wanted("b"))
        await relays.until_state("b", State.STARTING)

        impatient.cancel()
        await asyncio.gather(impatient, return_exceptions=True)

        await relays.until_state("b", State.STOPPED)
        assert relays.row("a").state is State.READY


class Counting:
    """How many engines are starting at the same time, over all of them."""

    def __init__(self) -> None:
        self.most = 0
        self._starting: set[str] = set()

    def engine(self, name: str, config: BackendConfig) -> Engine:
        assert isinstance(config, LlamaCppConfig)
        return Counted(name, config, self._starting, self)


class Counted(FakeManaged):
    def __init__(self, name: str, config: LlamaCppConfig, starting: set[str], counting: Counting) -> None:
        super().__init__(name, config)
        self._starting = starting
        self._counting = counting

    def launch(self, port: int, devices: Sequence[str], key: str) -> Launch:
        self._starting.add(self.name)
        self._counting.most = max(self._counting.most, len(self._starting))
        return super().launch(port, devices, key)

    async def warm_up(self, endpoint: Endpoint) -> None:
        await super().warm_up(endpoint)
        self._starting.discard(self.name)


@pytest.mark.parametrize("most", [1, 2])
async def test_as_many_start_at_a_time_as_are_allowed_and_the_next_when_one_is_ready(most: int) -> None:
    relays, counting = Relays(), Counting()
    plain, capacity = managed(), Capacity(start_parallel=most)
    async with running(relays, capacity, counting.engine, a=plain, b=plain, c=plain, d=plain) as fleet:
        for name in "abcd":
            await relays.until_state(name, State.READY)

        assert counting.most == most
        assert [one(fleet, name).generation for name in "abcd"] == [1, 1, 1, 1]


async def test_one_starts_at_a_time_on_each_gpu_also_when_more_might() -> None:
    class OnGpu(LlamaCppConfig):
        def need(self) -> Need:
            return replace(super().need(), gpus=1, share=0.3)

    relays, counting = Relays(), Counting()
    third = OnGpu(kind="llama_cpp", model="plain")
    capacity = Capacity(Machine(gpus=(Gpu("GPU-a", 0),)), start_parallel=3)
    async with running(relays, capacity, counting.engine, a=third, b=third, c=third) as fleet:
        for name in "abc":
            await relays.until_state(name, State.READY)

        assert counting.most == 1
        assert [one(fleet, name).devices for name in "abc"] == [("GPU-a",)] * 3


class Known(Sizes):
    """As if these estimates had been made of files."""

    def __init__(self, measures: MeasurementStore, **sizes_gb: float) -> None:
        super().__init__(measures)
        self._sizes_gb = sizes_gb

    def of(self, name: str, config: ManagedConfig) -> Size:
        return sized(config.need(), self._sizes_gb[name], super().of(name, config).footprint)


async def test_estimates_alone_let_idle_engines_make_way_and_refuse_nobody() -> None:
    relays = Relays()
    sizes = Known(MeasurementStore(), a=0.8, b=5.0)
    async with running(relays, ONE, sizes=sizes, a=managed(), b=managed(start="demand")) as fleet:
        await relays.until_state("a", State.READY)

        assert await fleet.wanted("b") == WaitOutcome(True), "five times the memory that there is"

        assert relays.row("a").state is State.STOPPED
        assert await fleet.wanted("a") == WaitOutcome(True)
        assert relays.row("b").state is State.STOPPED


async def test_what_an_engine_was_measured_to_take_replaces_the_estimate_at_once() -> None:
    relays = Relays()
    sizes = Known(MeasurementStore(), a=0.8, b=0.8)
    first, second = managed(), managed(start="demand")
    sizes.refresh({"a": first, "b": second}, ONE.machine)
    async with running(relays, ONE, sizes=sizes, a=first, b=second) as fleet:
        await relays.until_state("a", State.READY)
        size = sizes.of("a", first)
        assert size.source == "measured"
        assert size.need.memory_gb < 0.2, "a small process"

        assert await fleet.wanted("b") == WaitOutcome(True)

        assert relays.row("a").state is State.READY, "there was room for both"


async def test_an_idle_engine_is_stopped_and_the_next_request_starts_it() -> None:
    relays = Relays()
    async with running(relays, a=managed(unload_after_s=0.05)) as fleet:
        await relays.until_state("a", State.READY)
        await relays.until_state("a", State.STOPPED)
        assert relays.row("a").can_start

        assert await fleet.wanted("a") == WaitOutcome(True)
        assert only(fleet).generation == 2


async def test_an_engine_with_work_is_not_idle() -> None:
    relays = Relays()
    relays.leases["a", 0] = 1
    async with running(relays, a=managed(unload_after_s=0.05)) as fleet:
        await relays.until_state("a", State.READY)
        relays.leases = {("a", 1): 1}
        fleet.leases_changed()
        assert await fleet.wanted("a") == WaitOutcome(True)

        relays.leases.clear()
        fleet.leases_changed()

        await relays.until_state("a", State.STOPPED)


async def test_more_requests_than_may_wait_are_sent_away_with_advice() -> None:
    relays = Relays()
    async with running(relays, a=managed("--load-s 600", start="demand", max_waiting=1)) as fleet:
        first = asyncio.create_task(fleet.wanted("a"))
        await relays.until_state("a", State.STARTING)
        (counts,) = backend_counts(fleet.status())
        assert (counts.waiting, counts.waiting_limit) == (1, 1)

        assert await fleet.wanted("a") == WaitOutcome(False, "1 requests wait for it already", 5.0)

        await fleet.stop("a")
        assert (await first).is_ready is False


async def test_a_request_that_would_wait_too_long_is_sent_away_and_the_start_goes_on() -> None:
    relays = Relays()
    async with running(relays, a=managed(max_wait_s=0.001)) as fleet:
        await relays.until_state("a", State.READY)
        await fleet.stop("a")
        await relays.until_state("a", State.STOPPED)
        await fleet.start("a")

        outcome = await fleet.wanted("a")

        assert outcome.reason is not None
        assert outcome.reason.startswith("it is starting, which takes about")
        assert 1 <= outcome.retry_after_s <= 120
        await relays.until_state("a", State.READY, generation=2)


class SleepyConfig(LlamaCppConfig):
    def sleep_level(self) -> int:
        return 2


class Dreams:
    """Writes down what an engine was told."""

    def __init__(self, is_insomniac: bool = False) -> None:
        self.told: list[str] = []
        self._is_insomniac = is_insomniac

    async def sleep(self, endpoint: Endpoint, level: int) -> None:
        if self._is_insomniac:
            raise EngineFailed(endpoint.engine, "status 500")
        self.told.append(f"sleep {level}")

    async def wake_up(self, endpoint: Endpoint) -> None:
        self.told.append("wake up")


class Sleepy(FakeManaged):
    def __init__(self, name: str, config: LlamaCppConfig, sleeper: Dreams) -> None:
        super().__init__(name, config)
        self.sleeper: Sleeper | None = sleeper
        self._dreams = sleeper

    async def warm_up(self, endpoint: Endpoint) -> None:
        self._dreams.told.append("warm up")
        await super().warm_up(endpoint)


def sleepy(dreams: Dreams, name: str, config: BackendConfig) -> Engine:
    assert isinstance(config, LlamaCppConfig)
    return Sleepy(name, config, dreams)


def dozing(**values: object) -> SleepyConfig:
    return SleepyConfig.model_validate({"kind": "llama_cpp", "model": "plain", "unload_after_s": 0.05, **values})


async def test_an_idle_engine_that_can_sleep_sleeps_and_works_again_after_a_test() -> None:
    relays, dreams = Relays(), Dreams()
    async with running(relays, None, lambda *made: sleepy(dreams, *made), a=dozing()) as fleet:
        await relays.until_state("a", State.READY)
        pid = pid_of(fleet)
        row = await relays.until_state("a", State.SLEEPING)
        assert row.endpoint is None
        assert row.can_start

        assert await fleet.wanted("a") == WaitOutcome(True)

        assert only(fleet).pid == pid
        assert only(fleet).generation == 1
        assert dreams.told[:4] == ["warm up", "sleep 2", "wake up", "warm up"]


async def test_no_request_is_in_an_engine_that_is_put_to_sleep() -> None:
    relays, dreams = Relays(), Dreams()
    async with running(relays, None, lambda *made: sleepy(dreams, *made), a=dozing(unload_after_s=0.3)) as fleet:
        await relays.until_state("a", State.READY)
        relays.is_behind = True
        await relays.until_state("a", State.STOPPING)
        relays.leases["a", 1] = 1  # taken by a relay that did not know yet
        fleet.leases_changed()
        waiting = asyncio.create_task(fleet.wanted("a"))

        relays.is_behind = False
        fleet.leases_changed()
        await asyncio.sleep(0)
        assert dreams.told == ["warm up"]
        relays.leases.clear()
        fleet.leases_changed()

        assert await waiting == WaitOutcome(True)
        assert dreams.told[1:4] == ["sleep 2", "wake up", "warm up"]
        (counts,) = backend_counts(fleet.status())
        assert {how: len(buckets) for how, buckets in counts.starts.items()} == {"start": 1, "wake": 1}


async def test_an_engine_that_does_not_fall_asleep_is_stopped() -> None:
    relays, dreams = Relays(), Dreams(is_insomniac=True)
    async with running(relays, None, lambda *made: sleepy(dreams, *made), a=dozing()) as fleet:
        await relays.until_state("a", State.READY)
        await relays.until_state("a", State.STOPPED)

        assert State.SLEEPING not in relays.states("a")
        assert await fleet.wanted("a") == WaitOutcome(True)


@pytest.mark.parametrize("order", ["kill", "stop"])
async def test_an_engine_that_ends_in_its_sleep_is_started_by_the_next_request(order: str) -> None:
    relays, dreams = Relays(), Dreams()
    async with running(relays, None, lambda *made: sleepy(dreams, *made), a=dozing()) as fleet:
        await relays.until_state("a", State.SLEEPING)

        if order == "kill":
            os.kill(pid_of(fleet), signal.SIGKILL)
        else:
            await fleet.restart("a")
        await relays.until(lambda: relays.row("a").state is not State.SLEEPING)

        assert await fleet.wanted("a") == WaitOutcome(True)
        assert only(fleet).generation == 2


async def test_what_waits_for_room_says_for_what_and_behind_whom() -> None:
    relays = Relays()
    async with running(
        relays, Capacity(Machine(1.0), swap_after_s=600), a=gigabyte(start="boot"), b=gigabyte()
    ) as fleet:
        await relays.until_state("a", State.READY)
        relays.leases["a", 1] = 1
        fleet.leases_changed()

        waiting = asyncio.create_task(fleet.wanted("b"))
        await relays.until(lambda: relays.row("b").waits_for is not None)

        told = "it waits for 1 GB of memory: a has it until the requests there are done"
        assert relays.row("b").waits_for == told
        assert one(fleet, "b").reason == told
        relays.leases.clear()
        fleet.leases_changed()
        assert (await waiting).is_ready
        assert relays.row("b").waits_for is None


async def test_what_waits_for_its_turn_to_start_says_behind_whom() -> None:
    relays = Relays()
    capacity = Capacity(Machine(9.0), start_parallel=1)
    async with running(relays, capacity, a=managed("--load-s 600"), b=managed()) as fleet:
        await relays.until(lambda: relays.published != [] and relays.row("b").waits_for is not None)

        assert one(fleet, "b").reason == "it waits for its turn to start, behind a (`server.start_parallel`)"
