"""A reload changes replicas one after the other, whatever is known of their sizes, and says what is not in force."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.supervisor.capacity.placement import Machine
from app.supervisor.capacity.schedule import Capacity
from app.supervisor.fleet.fleet import Fleet
from backends.endpoint import State
from backends.llama_cpp.config import LlamaCppConfig
from tests.rigs.fleet import Relays, managed, one, running
from tests.rigs.slow_client import until

NEW = "--model fake --model more"
BROKEN = "--exit-after-s 0 --exit-code 3 --load-s 0"


def names(count: int) -> list[str]:
    return ["a", *(f"a#{number}" for number in range(2, count + 1))]


def serving(relays: Relays) -> list[int]:
    """How many of the entry served in each table, since all of the first ones did."""
    counts = [
        sum(row.endpoint is not None for name, row in rows.items() if name.startswith("a")) for rows in relays.published
    ]
    most = max(counts)
    return counts[counts.index(most) :]


@asynccontextmanager
async def replicas(
    relays: Relays, count: int, capacity: Capacity | None = None, **values: object
) -> AsyncIterator[Fleet]:
    config = LlamaCppConfig.model_validate({"kind": "llama_cpp", "model": "plain", "replicas": count, **values})
    async with running(relays, capacity, a=config) as fleet:
        for name in names(count):
            await relays.until_state(name, State.READY)
        yield fleet


@pytest.mark.parametrize(("count", "memory_gb"), [(2, None), (3, None), (2, 1.0)])
async def test_replicas_are_changed_one_after_the_other(count: int, memory_gb: float | None) -> None:
    """Without `memory_gb`, or without room for both, all used to stop at once."""
    relays = Relays()
    capacity = Capacity(Machine(float(count))) if memory_gb else None
    async with replicas(relays, count, capacity, memory_gb=memory_gb) as fleet:
        await fleet.reload({"a": managed(NEW, replicas=count, memory_gb=memory_gb)})
        assert fleet.pending() == tuple(names(count))
        for name in names(count):
            await relays.until_state(name, State.READY, generation=2)

        assert min(serving(relays)) == count - 1
        assert fleet.pending() == ()
        assert [status.replacement for status in fleet.status()] == [None] * count


async def test_whoever_waits_for_a_replica_that_changes_is_not_sent_away() -> None:
    relays = Relays()
    async with replicas(relays, 2) as fleet:
        before = len(relays.published)
        await fleet.reload({"a": managed(NEW, replicas=2)})
        for name in ("a", "a#2"):
            await relays.until_state(name, State.READY, generation=2)

        rows = [row for table in relays.published[before:] for row in table.values()]
        assert all(row.can_start for row in rows)
        assert {row.state for row in rows} >= {State.STOPPING, State.STARTING}
        assert not any(row.is_given_up for row in rows)


async def test_what_does_not_start_stops_no_other_replica_and_stands_in_the_status() -> None:
    relays = Relays()
    async with replicas(relays, 3) as fleet:
        await fleet.reload({"a": managed(BROKEN, replicas=3)})
        await relays.until_state("a", State.FAILED)

        assert [relays.row(name).state for name in names(3)] == [State.FAILED, State.READY, State.READY]
        told = [status.replacement for status in fleet.status()[1:]]
        assert [each.state for each in told if each is not None] == ["failed", "failed"]
        assert "does not start at a: it exited with code 3" in str(told[0])

        await fleet.reload({"a": managed(NEW, replicas=3)})
        for name in names(3):
            await relays.until_state(name, State.READY, generation=2 if name != "a" else 3)
        assert min(serving(relays)) == 2


async def test_a_change_that_is_taken_back_leaves_those_that_were_not_reached() -> None:
    relays = Relays()
    async with replicas(relays, 3) as fleet:
        await fleet.reload({"a": managed("--load-s 600", replicas=3)})
        await relays.until_state("a", State.STARTING)

        await fleet.reload({"a": managed(replicas=3)})
        await relays.until_state("a", State.READY, generation=2)

        assert [one(fleet, name).generation for name in names(3)[1:]] == [1, 1]
        assert fleet.pending() == ()


async def test_fewer_replicas_with_a_change_leave_only_when_another_has_changed() -> None:
    relays = Relays()
    async with replicas(relays, 2) as fleet:
        await fleet.reload({"a": managed(NEW)})
        await relays.until_state("a", State.READY, generation=2)
        await relays.until(lambda: "a#2" not in relays.published[-1])

        assert 0 not in serving(relays)


async def test_more_replicas_with_a_change_start_before_the_first_one_stops() -> None:
    relays = Relays()
    async with replicas(relays, 1) as fleet:
        await fleet.reload({"a": managed(NEW, replicas=2)})
        await relays.until_state("a", State.READY, generation=2)

        assert 0 not in serving(relays)
        assert one(fleet, "a#2").generation == 1


async def test_an_old_one_that_crashes_while_the_new_ones_do_not_start_comes_back_as_it_was() -> None:
    relays = Relays()
    async with replicas(relays, 2) as fleet:
        await fleet.reload({"a": managed(BROKEN, replicas=2)})
        await relays.until_state("a", State.FAILED)
        pid = one(fleet, "a#2").pid
        assert pid is not None

        os.kill(pid, signal.SIGKILL)

        await relays.until_state("a#2", State.READY, generation=2)


async def test_a_stop_by_hand_does_not_wait_for_its_turn() -> None:
    relays = Relays()
    async with replicas(relays, 2) as fleet:
        await fleet.reload({"a": managed("--load-s 600", replicas=2)})

        await fleet.stop("a")

        for name in ("a", "a#2"):
            await relays.until_state(name, State.STOPPED)


async def test_requests_wait_for_a_single_engine_that_changes() -> None:
    """Those that came while it stopped used to be refused."""
    relays = Relays()
    async with replicas(relays, 1) as fleet:
        relays.leases["a", 1] = 1
        fleet.leases_changed()
        await fleet.reload({"a": managed(NEW, start="demand")})
        row = await relays.until_state("a", State.STOPPING)
        assert row.can_start
        assert not row.is_given_up
        waiting = asyncio.create_task(fleet.wanted("a"))
        await asyncio.sleep(0)
        relays.leases.clear()
        fleet.leases_changed()

        assert (await waiting).is_ready
        assert one(fleet, "a").generation == 2


async def test_a_replacement_that_does_not_start_stands_in_the_status_until_it_is_taken_back() -> None:
    relays = Relays()
    config = {"memory_gb": 1}
    async with replicas(relays, 1, Capacity(Machine(2.0)), **config) as fleet:
        await fleet.reload({"a": managed(BROKEN, memory_gb=1)})
        told = one(fleet, "a").replacement
        assert told is not None
        assert told.state == "pending"
        await until(lambda: fleet._event_loop.replacements == {})

        status = one(fleet, "a")
        assert status.state is State.READY
        assert status.replacement is not None
        assert status.replacement.state == "failed"
        assert "it exited with code 3" in status.replacement.reason
        await fleet.reload({"a": managed(BROKEN, memory_gb=1)}, is_requested=False)
        assert fleet._event_loop.replacements == {}, "a change of somebody's address is no reason to try it again"

        await fleet.reload({"a": managed(memory_gb=1)})

        assert one(fleet, "a").replacement is None
        assert one(fleet, "a").generation == 1


async def test_a_replacement_that_did_not_start_is_tried_again_by_an_order() -> None:
    relays = Relays()
    async with replicas(relays, 1, Capacity(Machine(2.0)), memory_gb=1) as fleet:
        await fleet.reload({"a": managed("missing", memory_gb=1)})
        await until(lambda: fleet._event_loop.replacements == {})

        await fleet.start("a")

        assert [each.config for each in fleet._event_loop.replacements.values()] == [managed("missing", memory_gb=1)]
        assert one(fleet, "a").state is State.READY
