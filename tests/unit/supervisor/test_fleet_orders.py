"""Stop, start, restart, reload and close, while leases are held."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from app.supervisor.fleet.fleet import Fleet
from app.supervisor.fleet.waiters import WaitOutcome
from backends.endpoint import State
from backends.process import ownership
from tests.rigs.fleet import Relays, engine, managed, only, parent, pid_of, running


async def test_a_stop_waits_for_the_leases_and_for_every_relay_to_know() -> None:
    relays = Relays()
    async with running(relays, gpu=managed()) as fleet:
        await relays.until_state("gpu", State.READY)
        relays.leases["gpu", 1] = 1
        relays.is_behind = True

        await fleet.stop("gpu")
        await relays.until_state("gpu", State.STOPPING)
        assert relays.row("gpu").endpoint is None
        relays.is_behind = False
        fleet.leases_changed()
        assert only(fleet).leases == 1
        assert only(fleet).pid is not None
        relays.leases.clear()
        fleet.leases_changed()

        await relays.until_state("gpu", State.STOPPED)
        assert only(fleet).pid is None


async def test_what_the_administrator_stopped_only_the_administrator_starts() -> None:
    relays = Relays()
    async with running(relays, gpu=managed()) as fleet:
        await relays.until_state("gpu", State.READY)
        await fleet.stop("gpu")
        await relays.until_state("gpu", State.STOPPED)

        assert not relays.row("gpu").can_start
        assert (await fleet.wanted("gpu")).is_ready is False
        await fleet.start("gpu")

        assert await fleet.wanted("gpu") == WaitOutcome(True)


async def test_a_restart_is_another_generation() -> None:
    relays = Relays()
    async with running(relays, gpu=managed()) as fleet:
        await relays.until_state("gpu", State.READY)

        await fleet.restart("gpu")
        waiting = await fleet.wanted("gpu")

        assert waiting == WaitOutcome(True)
        assert only(fleet).generation == 2


async def test_a_request_that_waits_is_answered_when_the_engine_is_stopped() -> None:
    relays = Relays()
    async with running(relays, gpu=managed("--load-s 600", start="demand")) as fleet:
        waiting = asyncio.create_task(fleet.wanted("gpu"))
        await relays.until_state("gpu", State.STARTING)

        await fleet.stop("gpu")

        assert (await waiting).is_ready is False


async def test_a_reload_touches_only_what_changed() -> None:
    relays = Relays()
    async with running(relays, kept=managed(), changed=managed(), removed=managed()) as fleet:
        for name in ("kept", "changed", "removed"):
            await relays.until_state(name, State.READY)
        pids = {status.name: status.pid for status in fleet.status()}

        await fleet.reload({"kept": managed(), "changed": managed("--model fake --model more"), "added": managed()})
        await relays.until(lambda: "removed" not in relays.published[-1])
        await relays.until_state("changed", State.READY, generation=2)
        await relays.until_state("added", State.READY)

        after = {status.name: status.pid for status in fleet.status()}
        assert after.keys() == {"kept", "changed", "added"}
        assert after["kept"] == pids["kept"]
        assert after["changed"] != pids["changed"]


async def test_a_name_that_left_and_came_back_goes_on_counting() -> None:
    relays = Relays()
    async with running(relays, gpu=managed()) as fleet:
        await relays.until_state("gpu", State.READY)

        await fleet.reload({})
        await relays.until(lambda: relays.published[-1] == {})
        assert (await fleet.wanted("gpu")).is_ready is False
        await fleet.reload({"gpu": managed()})

        await relays.until_state("gpu", State.READY)
        assert only(fleet).generation == 2


async def test_a_removal_taken_back_while_it_drains_is_a_restart() -> None:
    relays = Relays()
    async with running(relays, gpu=managed()) as fleet:
        await relays.until_state("gpu", State.READY)
        relays.leases["gpu", 1] = 1

        await fleet.reload({})
        await fleet.reload({"gpu": managed()})
        relays.leases.clear()
        fleet.leases_changed()

        await relays.until_state("gpu", State.READY, generation=2)


async def test_a_term_to_everything_at_once_does_not_break_the_drain() -> None:
    relays = Relays()
    async with running(relays, gpu=managed("--ignore-term", stop_grace_s=0.1)) as fleet:
        await relays.until_state("gpu", State.READY)
        pid = pid_of(fleet)

        os.kill(parent(pid), signal.SIGTERM)
        os.kill(pid, signal.SIGTERM)
        relays.leases["gpu", 1] = 1
        closing = asyncio.create_task(fleet.close(600))
        await relays.until_state("gpu", State.STOPPING)
        assert only(fleet).pid == pid
        relays.leases.clear()
        fleet.leases_changed()

        await closing
        assert only(fleet).state is State.STOPPED


async def test_while_it_closes_no_order_starts_anything() -> None:
    relays = Relays()
    async with running(relays, gpu=managed()) as fleet:
        await relays.until_state("gpu", State.READY)
        relays.leases["gpu", 1] = 1

        closing = asyncio.create_task(fleet.close(600))
        await relays.until_state("gpu", State.STOPPING)
        await fleet.start("gpu")
        await fleet.restart("gpu")
        await fleet.reload({"other": managed()})
        relays.leases.clear()
        fleet.leases_changed()

        await closing
        assert [status.state for status in fleet.status()] == [State.STOPPED]


async def test_a_cancelled_fleet_leaves_nothing() -> None:
    relays = Relays()
    fleet = Fleet(
        {"gpu": managed("--children 2 --ignore-term")},
        state_id="cancelled",
        publish=relays.publish,
        leases=relays,
        engine=engine,
    )
    task = asyncio.create_task(fleet.run())
    await relays.until_state("gpu", State.READY)

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert ownership.tagged("cancelled:") == []


@pytest.mark.parametrize("is_late", [False, True])
async def test_while_the_gateway_ends_nobody_waits_for_an_engine_that_starts(is_late: bool) -> None:
    """Requests used to wait for the whole of `drain_s`, for an engine that would be stopped as soon as it served."""
    relays = Relays()
    async with running(relays, a=managed("--load-s 600"), b=managed()) as fleet:
        await relays.until_state("b", State.READY)
        waiting = asyncio.create_task(fleet.wanted("a"))
        await asyncio.sleep(0)
        if is_late:
            waiting.cancel()

        fleet.stop_waiting()
        outcome = await (fleet.wanted("a") if is_late else waiting)

        assert outcome == WaitOutcome(False, "the gateway is shutting down")
        assert (await fleet.wanted("b")).is_ready, "what serves does so to the end"
