"""Permits to send an engine a request: how many there are, who is next, and that none is lost."""

from __future__ import annotations

import asyncio

import pytest

from app.supervisor.admission.gate import AdmissionGate, Permit, QueueFull
from app.supervisor.admission.shares import Claimant
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
    for permit in permits:
        permit.release()

    gate = AdmissionGate(1)
    permit = await gate.enter(0, LONG_S)
    with pytest.raises(QueueFull, match=r"no place for the request within 0.01 s"):
        await gate.enter(1, 0.01)

    assert gate.waiting == 0
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


# -- shares, priorities, and no wait in vain

BIG, SMALL, NIGHT = Claimant("big", is_batch=False), Claimant("small", is_batch=False), Claimant("night", is_batch=True)


async def practised(limit: int, clock: Clock, service_s: float = 1.0) -> AdmissionGate:
    """A gate whose requests have always taken so long."""
    gate = AdmissionGate(limit, clock.now)
    for _ in range(20):
        permit = await gate.enter(0, LONG_S)
        clock.seconds += service_s
        permit.release()
    clock.seconds += 1000.0  # what was used is long paid
    return gate


def asking(
    gate: AdmissionGate, claimant: Claimant, wait_s: float = LONG_S, max_waiting: int = 100
) -> asyncio.Task[Permit]:
    return asyncio.create_task(gate.enter(max_waiting, wait_s, claimant))


async def served(gate: AdmissionGate, clock: Clock, first: Permit, tasks: list[asyncio.Task[Permit]]) -> list[str]:
    """The keys of those who wait, in the order in which they get the only place, a second each."""
    order, permit = [], first
    while tasks:
        clock.seconds += 1.0
        permit.release()
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        [task] = done
        tasks.remove(task)
        permit = await task
        order.append(str(permit.claimant.key))
    permit.release()
    return order


async def test_keys_take_turns_however_many_requests_one_has_waiting() -> None:
    clock = Clock()
    gate = await practised(1, clock)
    first = await gate.enter(0, LONG_S, BIG)
    tasks = []
    for number, claimant in enumerate([BIG, BIG, BIG, BIG, SMALL, SMALL]):
        tasks.append(asking(gate, claimant))
        await waiting(gate, number + 1)

    order = await served(gate, clock, first, tasks)

    assert order == ["small", "big", "small", "big", "big", "big"]


async def test_batches_come_last_and_are_not_starved() -> None:
    clock = Clock()
    gate = await practised(1, clock)
    first = await gate.enter(0, LONG_S, NIGHT)
    tasks = []
    for number, claimant in enumerate([NIGHT] * 3 + [BIG] * 30):
        tasks.append(asking(gate, claimant))
        await waiting(gate, number + 1)

    order = await served(gate, clock, first, tasks)

    assert order[:8] == ["big"] * 8
    assert 1 <= order[:25].count("night") <= 3


async def test_what_counts_is_how_long_requests_had_a_place() -> None:
    clock = Clock()
    gate = await practised(2, clock)
    longs = [await gate.enter(0, LONG_S, BIG) for _ in range(2)]
    clock.seconds += 0.5
    tasks = []
    for number, claimant in enumerate([BIG, SMALL]):
        tasks.append(asking(gate, claimant))
        await waiting(gate, number + 1)

    clock.seconds += 4.5
    longs[0].release()

    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert (await tasks[1]).claimant == SMALL
    assert not tasks[0].done()
    longs[1].release()
    await tasks[0]


async def test_a_long_request_that_has_kept_within_its_share_owes_nothing_at_its_end() -> None:
    clock = Clock()
    gate = await practised(4, clock)
    long = await gate.enter(0, LONG_S, SMALL)
    for _ in range(100):
        shorts = [await gate.enter(0, LONG_S, BIG) for _ in range(3)]
        clock.seconds += 1.0
        for permit in shorts:
            permit.release()
    shorts = [await gate.enter(0, LONG_S, BIG) for _ in range(3)]
    task = asking(gate, BIG)
    await waiting(gate, 1)
    long.release()
    await task

    again = asking(gate, SMALL, wait_s=20.0)
    await waiting(gate, 1)

    shorts[0].release()
    assert (await again).claimant == SMALL


async def filled(gate: AdmissionGate, clock: Clock, claimant: Claimant, wait_s: float) -> list[asyncio.Task[Permit]]:
    """All who are let wait of one who is alone."""
    tasks = []
    for number in range(4):
        tasks.append(asking(gate, claimant, wait_s))
        await until(tasks[number].done)
        clock.seconds += 0.2
    for number in range(100):
        tasks.append(asking(gate, claimant, wait_s))
        await until(lambda number=number: gate.waiting == number + 1 or tasks[-1].done())  # type: ignore[misc]
        if tasks[-1].done():
            assert isinstance(tasks.pop().exception(), QueueFull)
            return tasks
    raise AssertionError("nobody is refused")


@pytest.mark.parametrize("who", [Claimant("night", is_batch=True), Claimant("big", is_batch=False)])
async def test_who_has_filled_the_queue_while_alone_makes_room_for_those_who_come(who: Claimant) -> None:
    clock = Clock()
    gate = await practised(4, clock)
    tasks = await filled(gate, clock, who, wait_s=10.0)
    length = gate.waiting

    small = asking(gate, SMALL, wait_s=10.0)

    with pytest.raises(QueueFull, match="requests with other keys came") as pushed:
        await tasks[-1]
    assert pushed.value.is_late
    assert gate.waiting == length
    (await tasks[0]).release()
    assert (await small).claimant == SMALL
    for task in tasks:
        task.cancel()


async def test_who_is_next_needs_time_for_its_own_turn_only() -> None:
    clock = Clock()
    gate = await practised(4, clock)
    tasks = [asking(gate, NIGHT) for _ in range(40)]
    await waiting(gate, 36)

    small = asking(gate, SMALL, wait_s=3.0)
    await waiting(gate, 37)

    (await tasks[0]).release()
    assert (await small).claimant == SMALL
    for task in tasks:
        task.cancel()


async def test_permits_that_were_not_used_say_nothing_of_how_long_requests_take() -> None:
    clock = Clock()
    gate = await practised(1, clock)
    for _ in range(200):
        (await gate.enter(0, LONG_S, BIG)).release(is_used=False)
    permit = await gate.enter(0, LONG_S, BIG)

    with pytest.raises(QueueFull, match=r"no place would be free within 0\.5 s"):
        await gate.enter(100, 0.5, SMALL)
    permit.release()


async def test_who_is_impatient_says_nothing_of_those_who_have_time() -> None:
    gate = AdmissionGate(1)
    permit = await gate.enter(0, LONG_S, BIG)
    patient = asking(gate, BIG)
    await waiting(gate, 1)
    with pytest.raises(QueueFull, match="it had no place"):
        await gate.enter(100, 0.01, SMALL)

    another = asking(gate, BIG)
    await waiting(gate, 2)

    permit.release()
    (await patient).release()
    (await another).release()


async def test_who_would_not_have_its_turn_in_time_is_told_so_when_it_comes() -> None:
    clock = Clock()
    gate = await practised(2, clock)
    permits = [await gate.enter(0, LONG_S, each) for each in (BIG, SMALL)]
    clock.seconds += 0.8

    for claimant in (BIG, SMALL):
        task = asking(gate, claimant, wait_s=0.5)
        await waiting(gate, 1 if claimant is BIG else 2)
        assert not task.done()
    with pytest.raises(QueueFull, match=r"no place would be free within 0\.5 s") as late:
        await gate.enter(100, 0.5, NIGHT)

    assert late.value.is_late
    assert late.value.retry_after_s == pytest.approx(1.5)  # two before it, two at a time, a second each
    for permit in permits:
        permit.release()


async def test_a_key_that_is_ahead_of_its_share_leaves_the_queue_to_others() -> None:
    clock = Clock()
    gate = await practised(4, clock)
    permits = [await gate.enter(0, LONG_S, BIG) for _ in range(4)]
    clock.seconds += 0.3
    asked = asking(gate, SMALL, wait_s=1.0)
    await waiting(gate, 1)

    with pytest.raises(QueueFull, match="requests with this key have their share of it") as refused:
        await gate.enter(100, 1.0, BIG)
    again = asking(gate, SMALL, wait_s=1.0)
    await waiting(gate, 2)

    assert refused.value.is_late
    for permit in permits:
        permit.release()
    for task in (asked, again):
        (await task).release()


async def test_a_key_that_is_alone_has_the_whole_queue() -> None:
    clock = Clock()
    gate = await practised(4, clock)
    permits = []
    for _ in range(4):
        permits.append(await gate.enter(0, LONG_S, BIG))
        clock.seconds += 0.2

    tasks = []
    for number in range(2):
        tasks.append(asking(gate, BIG, wait_s=0.5))
        await waiting(gate, number + 1)
    with pytest.raises(QueueFull, match=r"no place would be free within 0\.5 s"):
        await gate.enter(100, 0.5, BIG)

    for permit in permits:
        permit.release()
    for task in tasks:
        (await task).release()


async def test_in_a_full_queue_the_latest_of_the_key_that_has_too_much_of_it_makes_room() -> None:
    gate = AdmissionGate(1)
    permit = await gate.enter(0, LONG_S, BIG)
    mine = []
    for number in range(3):
        mine.append(asking(gate, BIG, max_waiting=3))
        await waiting(gate, number + 1)
    with pytest.raises(QueueFull, match="3 requests wait"):
        await gate.enter(3, LONG_S, BIG)

    other = asking(gate, SMALL, max_waiting=3)

    with pytest.raises(QueueFull, match="3 requests wait") as pushed:
        await mine[2]
    assert not pushed.value.is_late
    assert gate.waiting == 3
    permit.release()
    assert (await other).claimant == SMALL
    for task in mine[:2]:
        task.cancel()


async def test_whose_time_is_about_to_end_goes_first() -> None:
    clock = Clock()
    gate = await practised(1, clock)
    first = await gate.enter(0, LONG_S, SMALL)
    hurried = asking(gate, SMALL, wait_s=1.4)
    await waiting(gate, 1)
    patient = asking(gate, BIG)
    await waiting(gate, 2)
    clock.seconds += 1.0

    first.release()

    assert (await hurried).claimant == SMALL
    assert not patient.done()
    patient.cancel()


async def test_who_leaves_the_queue_owes_nothing_for_it() -> None:
    clock = Clock()
    gate = await practised(1, clock)
    first = await gate.enter(0, LONG_S, NIGHT)
    leavers = [asking(gate, BIG) for _ in range(5)]
    await waiting(gate, 5)
    for task in leavers:
        task.cancel()
    await waiting(gate, 0)
    small, big = asking(gate, SMALL), asking(gate, BIG)
    await waiting(gate, 2)

    order = await served(gate, clock, first, [small, big])

    assert order == ["small", "big"], "equally far behind: who came first"


async def test_while_nothing_is_known_somebody_who_waits_in_vain_is_a_warning_to_those_who_come() -> None:
    gate = AdmissionGate(1)
    permit = await gate.enter(0, LONG_S, BIG)
    with pytest.raises(QueueFull, match="it had no place"):
        await gate.enter(100, 0.01, BIG)
    one = asking(gate, BIG)
    await waiting(gate, 1)

    with pytest.raises(QueueFull, match=r"no place would be free within 0\.01 s") as late:
        await gate.enter(100, 0.01, SMALL)
    permit.release()
    (await one).release()

    assert late.value.retry_after_s is None
    (await gate.enter(100, LONG_S, SMALL)).release()
