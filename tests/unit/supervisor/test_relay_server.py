"""The server of relay.sock, spoken to over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from app.ipc import (
    Applied,
    DrainRelay,
    EngineWanted,
    Failing,
    FromRelay,
    FromSupervisor,
    Hello,
    InFlight,
    Publish,
    Unwanted,
    WantedReply,
    frame,
    from_supervisor,
    read_frame,
)
from app.supervisor.admission.gate import AdmissionGate
from app.supervisor.fleet.waiters import WaitOutcome
from app.supervisor.relays.leases import Leases
from app.supervisor.relays.server import RelayServer
from app.table import Table
from tests.rigs.relay import FakeFleet
from tests.rigs.slow_client import until

PATIENCE_S = 20.0


class StubProcesses:
    def __init__(self) -> None:
        self.losses: asyncio.Queue[tuple[int, bool]] = asyncio.Queue()

    def lost(self, pid: int, is_at_fault: bool) -> None:
        self.losses.put_nowait((pid, is_at_fault))


class Relay:
    """A relay's end of the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def say(self, *messages: FromRelay) -> None:
        self.writer.write(b"".join(frame(message) for message in messages))

    async def hear(self) -> FromSupervisor:
        async with asyncio.timeout(PATIENCE_S):
            return from_supervisor.decode(await read_frame(self.reader))

    async def is_cut(self) -> bool:
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                while await self.reader.read(65_536):
                    pass
        return True


@dataclass
class Stage:
    path: Path
    server: RelayServer
    leases: Leases
    fleet: FakeFleet
    processes: StubProcesses
    relays: list[Relay] = field(default_factory=list)

    async def relay(self, pid: int | None = 7) -> Relay:
        relay = Relay(*await asyncio.open_unix_connection(self.path))
        self.relays.append(relay)
        if pid is not None:
            relay.say(Hello(pid))
            await self.fleet.until(lambda: pid in self.server.pids)
        return relay

    async def loss(self) -> tuple[int, bool]:
        async with asyncio.timeout(PATIENCE_S):
            return await self.processes.losses.get()


@contextlib.asynccontextmanager
async def staged(path: Path, patience_s: float = PATIENCE_S) -> AsyncIterator[Stage]:
    leases, processes, fleet = Leases(), StubProcesses(), FakeFleet()
    stage = Stage(path, RelayServer(leases, processes, patience_s), leases, fleet, processes)
    await stage.server.open(path, fleet)
    try:
        yield stage
    finally:
        await stage.server.close()
        for relay in stage.relays:
            relay.writer.close()
            with contextlib.suppress(ConnectionError):
                await relay.writer.wait_closed()
        await asyncio.gather(*fleet.notes)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path / "relay.sock") as stage:
        yield stage


def table(version: int, root_path: str = "") -> Table:
    return Table(version=version, models={}, aliases={}, wildcards=(), backends={}, root_path=root_path)


async def test_a_relay_hears_the_table_of_now_and_every_later_one(stage: Stage) -> None:
    stage.server.publish(table(1))
    relay = await stage.relay()

    assert await relay.hear() == Publish(table(1))
    stage.server.publish(table(2))
    assert await relay.hear() == Publish(table(2))


async def test_every_relay_hears_it(stage: Stage) -> None:
    relays = [await stage.relay(pid) for pid in (7, 8)]

    stage.server.publish(table(1))

    assert [await relay.hear() for relay in relays] == [Publish(table(1))] * 2


async def test_counts_arrive_before_the_table_they_go_with(stage: Stage) -> None:
    relay = await stage.relay()
    stage.server.publish(table(1))

    relay.say(InFlight((("gpu", 1, 2),)), Applied(1))

    await stage.fleet.until(lambda: stage.leases.is_applied(1))
    assert stage.leases.held("gpu", 1) == 2


async def test_a_relay_that_leaves_holds_nothing_any_more(stage: Stage) -> None:
    relay = await stage.relay()
    relay.say(InFlight((("gpu", 1, 2),)), EngineWanted(1, "gpu"))
    await stage.fleet.until(lambda: stage.leases.held("gpu", 1) == 2 and "gpu" in stage.fleet.asked)

    relay.writer.close()

    assert await stage.loss() == (7, False)
    await stage.fleet.until(lambda: stage.leases.total() == 0)
    await stage.fleet.until(lambda: stage.fleet.asked["gpu"].cancelled())
    assert stage.server.pids == ()


async def test_a_request_for_an_engine_is_answered_when_it_is_known_and_after_its_table(stage: Stage) -> None:
    relay = await stage.relay()
    relay.say(EngineWanted(5, "gpu"))
    await stage.fleet.until(lambda: "gpu" in stage.fleet.asked)

    stage.server.publish(table(3))
    stage.fleet.asked["gpu"].set_result(WaitOutcome(is_ready=True))

    assert await relay.hear() == Publish(table(3))
    assert await relay.hear() == WantedReply(5, is_ready=True)


async def test_a_refusal_says_why_and_until_when(stage: Stage) -> None:
    relay = await stage.relay()
    relay.say(EngineWanted(5, "gpu"))
    await stage.fleet.until(lambda: "gpu" in stage.fleet.asked)

    stage.fleet.asked["gpu"].set_result(WaitOutcome(is_ready=False, reason="exit code 1", retry_after_s=9.0))

    assert await relay.hear() == WantedReply(5, is_ready=False, reason="exit code 1", retry_after_s=9.0)


async def test_a_request_for_an_engine_that_nobody_waits_for_is_dropped(stage: Stage) -> None:
    relay = await stage.relay()
    relay.say(EngineWanted(5, "gpu"))
    await stage.fleet.until(lambda: "gpu" in stage.fleet.asked)

    relay.say(Unwanted(5), Unwanted(99), Failing("gpu", 2))

    await stage.fleet.until(lambda: stage.fleet.failed == [("gpu", 2)])
    await stage.fleet.until(lambda: stage.fleet.asked["gpu"].cancelled())


@pytest.mark.parametrize("how", ["it says so", "it dies"])
async def test_an_admitted_request_holds_its_permit_until_its_relay_says_that_it_is_over_or_dies(
    stage: Stage, how: str
) -> None:
    relay, gate = await stage.relay(), AdmissionGate(1)
    permit = await gate.enter(0, 1.0)
    relay.say(EngineWanted(5, "gpu"))
    await stage.fleet.until(lambda: "gpu" in stage.fleet.asked)
    stage.fleet.asked["gpu"].set_result(WaitOutcome(is_ready=True, permit=permit))
    assert await relay.hear() == WantedReply(5, is_ready=True, is_admitted=True)
    next_one = asyncio.create_task(gate.enter(1, 600.0))
    await until(lambda: gate.waiting == 1)

    if how == "it says so":
        relay.say(Unwanted(5), Failing("gpu", 2))
        await stage.fleet.until(lambda: stage.fleet.failed == [("gpu", 2)])
    else:
        relay.writer.close()
        await stage.loss()

    async with asyncio.timeout(PATIENCE_S):
        await next_one


async def test_a_fleet_that_fails_at_one_request_fails_nothing_else(stage: Stage) -> None:
    relay = await stage.relay()
    relay.say(EngineWanted(5, "gpu"))
    await stage.fleet.until(lambda: "gpu" in stage.fleet.asked)

    stage.fleet.asked["gpu"].set_exception(RuntimeError("a bug"))

    answer = await relay.hear()
    assert isinstance(answer, WantedReply)
    assert (answer.seq, answer.is_ready) == (5, False)
    stage.server.publish(table(1))
    assert await relay.hear() == Publish(table(1))


async def test_a_relay_is_told_to_drain_also_when_it_comes_late(stage: Stage) -> None:
    early = await stage.relay(7)

    stage.server.drain(12.0)
    late = await stage.relay(8)

    assert await early.hear() == DrainRelay(12.0)
    assert await late.hear() == DrainRelay(12.0)


MALFORMED = {
    "not msgpack": b"\x00\x00\x00\x03\xc1\xc1\xc1",
    "an unknown message": b"\x00\x00\x00\x0e" + msgspec.msgpack.encode({"type": "nonsense"})[:14],
    "too long": b"\xff\xff\xff\xff",
    "Hello twice": frame(Hello(7)),
    "a number twice": frame(EngineWanted(1, "gpu")) * 2,
    "a negative count": frame(InFlight((("gpu", 1, -1),))),
    "our own words": frame(DrainRelay(1.0)),
}


@pytest.mark.parametrize("words", MALFORMED.values(), ids=MALFORMED)
async def test_a_relay_that_says_nonsense_is_dropped_and_the_others_live_on(stage: Stage, words: bytes) -> None:
    other = await stage.relay(8)
    relay = await stage.relay(7)

    relay.writer.write(words)

    assert await stage.loss() == (7, True)
    assert await relay.is_cut()
    stage.server.publish(table(1))
    assert await other.hear() == Publish(table(1))


async def test_whoever_does_not_greet_is_nobody(stage: Stage) -> None:
    stranger = await stage.relay(None)

    stranger.say(Applied(1))

    assert await stranger.is_cut()
    assert stage.server.pids == ()
    assert stage.processes.losses.empty()


async def test_a_relay_that_does_not_apply_its_table_is_dropped(tmp_path: Path) -> None:
    async with staged(tmp_path / "relay.sock", patience_s=0.2) as stage:
        good, silent = await stage.relay(7), await stage.relay(8)
        stage.server.publish(table(1))
        await good.hear()
        good.say(Applied(1))

        assert await stage.loss() == (8, True)
        assert await silent.is_cut()
        assert stage.server.pids == (7,)


async def test_a_relay_that_is_slow_but_follows_stays(tmp_path: Path) -> None:
    """Many tables within one patience: being behind the newest is no fault while the one it was told is applied."""
    async with staged(tmp_path / "relay.sock", patience_s=0.2) as stage:
        relay = await stage.relay(7)
        for version in range(1, 6):
            stage.server.publish(table(version))
            assert await relay.hear() == Publish(table(version))
            relay.say(Applied(version))
        await stage.fleet.until(lambda: stage.leases.is_applied(5))

        stage.server.publish(table(6))
        assert await relay.hear() == Publish(table(6))

        assert await stage.loss() == (7, True)


async def test_a_relay_that_does_not_read_is_dropped_in_bounded_memory(stage: Stage) -> None:
    await stage.relay(7)
    large = "/" + "x" * 8_000_000

    for version in range(1, 11):
        stage.server.publish(table(version, large))

    assert await stage.loss() == (7, True)


async def test_closing_ends_every_conversation(stage: Stage) -> None:
    relay = await stage.relay(7)
    relay.say(EngineWanted(1, "gpu"))
    await stage.fleet.until(lambda: "gpu" in stage.fleet.asked)

    await stage.server.close()

    assert await relay.is_cut()
    assert stage.fleet.asked["gpu"].cancelled()
