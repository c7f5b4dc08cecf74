"""Permits to send an engine a request: how many there are, who is next, and that none is lost."""

from __future__ import annotations

import asyncio

import pytest

from app.supervisor.admission.gate import AdmissionGate, Permit, QueueFull
from tests.rigs.slow_client import until

LONG_S = 600.0


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds


async def waiting(gate: AdmissionGate, count: int) -> None:
    """Until so many wait."""
    await until(lambda: gate.waiting == count)


def entering(gate: AdmissionGate, wait_s: float = LONG_S) -> asyncio.Task[Permit]:
    return asyncio.create_task(gate.enter(100, wait_s))


async def test_as_many_as_there_are_permits_enter_at_once_and_the_next_one_when_one_leaves() -> None:
    gate = AdmissionGate(2)
    first, second = await gate.enter(0, LONG_S), await gate.enter(0, LONG_S)
    third = entering(gate)
    await waiting(gate, 1)

    second.release()

    await third
    assert gate.waiting == 0
    first.release()


async def test_they_enter_in_the_order_in_which_they_came() -> None:
    gate = AdmissionGate(1)
    permit = await gate.enter(0, LONG_S)
    order: list[int] = []

    async def one(number: int) -> None:
        mine = await gate.enter(100, LONG_S)
        order.append(number)
        mine.release()

    tasks = []
    for number in range(5):
        tasks.append(asyncio.create_task(one(number)))
        await waiting(gate, number + 1)
    permit.release()
    await asyncio.gather(*tasks)

    assert order == [0, 1, 2, 3, 4]


async def test_releasing_twice_frees_one_place() -> None:
    gate = AdmissionGate(1)
    permit = await gate.enter(0, LONG_S)
    permit.release()
    permit.release()

    await gate.enter(0, LONG_S)

    with pytest.raises(QueueFull, match="0 requests wait"):
        await gate.enter(0, LONG_S)


async def test_who_leaves_the_queue_leaves_no_gap_in_it() -> None:
    gate = AdmissionGate(1)
    permit = await gate.enter(0, LONG_S)
    leaver, stayer = entering(gate), entering(gate)
    await waiting(gate, 2)

    leaver.cancel()
    await waiting(gate, 1)
    permit.release()

    await stayer
    assert leaver.cancelled()


async def test_who_leaves_in_the_moment_of_its_turn_gives_its_permit_to_the_next() -> None:
    gate = AdmissionGate(1)
    permit = await gate.enter(0, LONG_S)
    leaver, stayer = entering(gate), entering(gate)
    await waiting(gate, 2)

    permit.release()  # it is the leaver's now, whose task has not run yet
    leaver.cancel()

    await stayer
    with pytest.raises(asyncio.CancelledError):
        await leaver


async def test_a_full_queue_and_a_wait_that_is_too_long_are_said_with_what_is_known_of_the_wait() -> None:
    clock = Clock()
    gate = AdmissionGate(2, clock.now)
    first = await gate.enter(0, LONG_S)
    clock.seconds = 8.0
    first.release()
    permits = [await gate.enter(0, LONG_S) for _ in range(2)]

    with pytest.raises(QueueFull, match="0 requests wait for it already") as full:
        await gate.enter(0, LONG_S)
    assert full.value.retry_after_s == 4.0  # one before it, two at a time, 8 s each
    with pytest.raises(QueueFull, match=r"no place for the request within 0.01 s"):
        await gate.enter(1, 0.01)

    assert gate.waiting == 0
    for permit in permits:
        permit.release()


async def test_more_permits_let_the_next_ones_in_and_fewer_take_nobodys_away() -> None:
    gate = AdmissionGate(1)
    permit = await gate.enter(0, LONG_S)
    second, third = entering(gate), entering(gate)
    await waiting(gate, 2)

    gate.resize(3)
    held = [permit, await second, await third]
    gate.resize(1)
    last = entering(gate)
    await waiting(gate, 1)
    for one in held:
        assert not last.done()
        one.release()

    (await last).release()
