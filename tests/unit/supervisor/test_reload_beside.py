"""A changed engine starts beside the old one where there is room for both, and takes over when it serves."""

from __future__ import annotations

import asyncio
import gc
import os
import signal

from app.ipc import Claim
from app.supervisor.capacity.placement import Machine
from app.supervisor.capacity.schedule import Capacity
from app.supervisor.fleet.unit import Unit
from app.supervisor.fleet.waiters import WaitOutcome
from backends.endpoint import State
from backends.llama_cpp.config import LlamaCppConfig
from backends.process import ownership
from tests.rigs.fleet import Relays, managed, only, pid_of, running
from tests.rigs.slow_client import until

TWO = Capacity(Machine(2.0))


def old() -> LlamaCppConfig:
    return managed(memory_gb=1)


def new(options: str = "--model fake --model more") -> LlamaCppConfig:
    return managed(options, memory_gb=1)


async def test_the_old_engine_serves_until_the_new_one_does_and_then_until_its_last_lease() -> None:
    relays = Relays()
    async with running(relays, TWO, a=old()) as fleet:
        await relays.until_state("a", State.READY)
        pid = pid_of(fleet)
        relays.leases["a", 1] = 1
        fleet.leases_changed()

        await fleet.reload({"a": new()})
        row = await relays.until_state("a", State.READY, generation=2)

        assert relays.states("a") == [State.STOPPED, State.STARTING, State.READY], "it served all the time"
        assert row.endpoint is not None
        assert only(fleet).pid != pid
        assert ownership.tagged(f"fleet-{os.getpid()}:a:1\0") != []
        relays.leases.clear()
        fleet.leases_changed()
        await fleet.reload({"a": new()})
        assert only(fleet).generation == 2


async def test_what_the_old_engine_still_answers_takes_no_place_at_the_new_one() -> None:
    relays = Relays()
    async with running(relays, TWO, a=managed(memory_gb=1, max_in_flight=1)) as fleet:
        await relays.until_state("a", State.READY)
        relays.leases["a", 1] = 1
        old_one = await fleet.wanted("a")
        assert old_one.permit is not None
        waits = asyncio.create_task(fleet.wanted("a"))
        await until(lambda: only(fleet).waiting == 1)

        await fleet.reload({"a": managed("--model fake --model more", memory_gb=1, max_in_flight=1)})
        await relays.until_state("a", State.READY, generation=2)

        async with asyncio.timeout(60):
            new_one = await waits
        assert new_one.permit is not None, "it does not wait for the old engine's answer"
        next_one = asyncio.create_task(fleet.wanted("a"))
        await until(lambda: only(fleet).waiting == 1)
        old_one.permit.release()
        assert only(fleet).waiting == 1, "a permit of the old engine is none of the new one's"
        new_one.permit.release()
        assert (await next_one).is_ready
        relays.leases.clear()
        fleet.leases_changed()


async def test_without_room_for_both_the_old_one_ends_first() -> None:
    relays = Relays()
    async with running(relays, Capacity(Machine(1.5)), a=old()) as fleet:
        await relays.until_state("a", State.READY)

        await fleet.reload({"a": new()})
        await relays.until_state("a", State.STOPPING)
        assert await fleet.wanted("a") == WaitOutcome(True)

        assert relays.row("a").state is State.READY


async def test_an_engine_is_not_given_up_for_one_that_does_not_start() -> None:
    relays = Relays()
    async with running(relays, TWO, a=old()) as fleet:
        await relays.until_state("a", State.READY)
        pid = pid_of(fleet)

        await fleet.reload({"a": managed("missing", memory_gb=1)})
        await fleet.reload({"a": new()})

        await relays.until_state("a", State.READY, generation=2)
        assert State.FAILED not in relays.states("a")
        assert only(fleet).pid != pid


async def test_an_old_engine_that_crashes_meanwhile_is_not_started_again() -> None:
    relays = Relays()
    async with running(relays, TWO, a=old()) as fleet:
        await relays.until_state("a", State.READY)
        pid = pid_of(fleet)

        await fleet.reload({"a": new("--load-s 0.5")})
        os.kill(pid, signal.SIGKILL)

        row = await relays.until_state("a", State.READY, generation=2)
        assert row.endpoint is not None
        assert row.endpoint.generation == 2


async def test_a_change_that_is_taken_back_leaves_the_old_engine() -> None:
    relays = Relays()
    async with running(relays, TWO, a=old()) as fleet:
        await relays.until_state("a", State.READY)
        pid = pid_of(fleet)

        await fleet.reload({"a": new("--load-s 600")})
        await fleet.reload({"a": old()})

        assert only(fleet).pid == pid
        assert only(fleet).state is State.READY
        assert await fleet.wanted("a") == WaitOutcome(True)


async def test_an_order_meanwhile_goes_to_the_old_one_and_the_new_configuration_comes_with_the_next_start() -> None:
    relays = Relays()
    async with running(relays, TWO, a=old()) as fleet:
        await relays.until_state("a", State.READY)
        await fleet.reload({"a": new("--load-s 600")})

        await fleet.stop("a")
        await relays.until_state("a", State.STOPPED)
        await fleet.reload({"a": new()})
        await fleet.start("a")

        assert await fleet.wanted("a") == WaitOutcome(True)


async def test_a_removal_takes_the_new_one_along() -> None:
    relays = Relays()
    async with running(relays, TWO, a=old()) as fleet:
        await relays.until_state("a", State.READY)

        await fleet.reload({"a": new("--load-s 600")})
        await fleet.reload({})

        await relays.until(lambda: relays.published[-1] == {})
        await fleet.close(0)
        assert ownership.tagged(f"fleet-{os.getpid()}:") == []


def _units() -> int:
    gc.collect()
    return sum(isinstance(each, Unit) for each in gc.get_objects())


async def test_reloads_leave_no_engine_of_the_past_in_memory() -> None:
    """Each replacement left its dead engine with its last output for ever, and every turn went through them all."""
    relays, before = Relays(), _units()
    async with running(relays, TWO, a=old()) as fleet:
        await relays.until_state("a", State.READY)
        for generation in range(2, 13):
            await fleet.reload({"a": new(f"--model fake --model m{generation}")})
            await relays.until_state("a", State.READY, generation=generation)
            tag = f"fleet-{os.getpid()}:a:{generation - 1}\0"
            await until(lambda tag=tag: not ownership.tagged(tag))  # type: ignore[misc]

        assert _units() - before <= 6  # those that end are among them
        assert only(fleet).generation == 12


async def test_what_its_queue_has_seen_is_counted_over_all_starts_and_who_came_too_late_is_told_at_once() -> None:
    relays = Relays()
    async with running(relays, TWO, a=managed(memory_gb=1, max_in_flight=1, max_waiting=1)) as fleet:
        await relays.until_state("a", State.READY)
        assert only(fleet).refused == {"full": 0, "late": 0}, "the first refusal is a change of a series that is there"
        for _ in range(10):
            served = (await fleet.wanted("a", Claim("office"))).permit
            assert served is not None
            await asyncio.sleep(0.02)
            served.release()

        held = await fleet.wanted("a", Claim("office"))
        late = await fleet.wanted("a", Claim("night", is_batch=True, within_s=0.001))
        waits = asyncio.create_task(fleet.wanted("a", Claim("night", is_batch=True)))
        await until(lambda: only(fleet).waiting == 1)
        full = await fleet.wanted("a", Claim("night", is_batch=True))
        assert held.permit is not None
        held.permit.release()
        after = await waits

        assert (late.is_full, late.reason) == (True, "no place would be free within 0 s")
        assert (full.is_full, full.reason) == (True, "1 requests wait for it already")
        assert only(fleet).refused == {"full": 1, "late": 1}
        assert {name: len(counts) for name, counts in only(fleet).waits.items()} == {"interactive": 11, "batch": 1}
        assert after.permit is not None
        after.permit.release()
