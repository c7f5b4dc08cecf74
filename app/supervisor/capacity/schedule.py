"""Which engines start now, which make way for them, and which have to be told that there is no room: pure.

Start requests are served in the order in which they came, those that a client waits for before the others. Only for a
client, or an order of the administrator, does another engine make way: what merely starts at boot must find its room
free.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from app.supervisor.capacity.eviction import Evictable, choose_evicted
from app.supervisor.capacity.placement import Allocation, DoesNotFit, Machine, place
from backends.engine import Need


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the machine has, and how it is shared out. `start_parallel`: engines that may be starting at the same time.

    `swap_after_s`: a busy engine is evicted when it has served for so long while another waited. `barred`: GPUs that
    nothing may start on for now, with the reason.
    """

    machine: Machine = field(default_factory=Machine)
    start_parallel: int = 2
    swap_after_s: float = 30.0
    barred: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StartRequest:
    """An engine that is to start, or to wake up, since `since`. `is_asked`: a client or the administrator waits for it.

    `waits_for_first`: the first of its replicas must have started before. `is_spare`: a further replica that takes only
    what nobody else wants, and is never rejected. `need`: of a sleeping engine, what it has not kept.
    """

    name: str
    need: Need
    since: float
    is_asked: bool = False
    waits_for_first: bool = False
    is_spare: bool = False


@dataclass(frozen=True, slots=True)
class Occupant:
    """An engine that has a place. `loaded`: None where it cannot be evicted: it is starting, or leaving already.

    `asleep`: what it would keep if it slept instead of being stopped; None where it cannot sleep, or sleeps already.
    """

    name: str
    place: Allocation
    is_starting: bool = False
    is_leaving: bool = False
    loaded: Evictable | None = None
    asleep: Allocation | None = None
    is_pinned: bool = False


@dataclass(frozen=True, slots=True)
class StartNow:
    """It starts, or wakes up, at this place."""

    name: str
    place: Allocation


@dataclass(frozen=True, slots=True)
class Evict:
    """It stops, or falls asleep where it `may_sleep`, once its leases are returned."""

    name: str
    may_sleep: bool = False


@dataclass(frozen=True, slots=True)
class Reject:
    """There is no room for it. `is_final`: nor would there be if it were alone. `is_barred`: there would be without
    the GPUs in quarantine.
    """

    name: str
    reason: str
    is_final: bool
    is_barred: bool = False


Order = StartNow | Evict | Reject


@dataclass(frozen=True, slots=True)
class Queued:
    """Why a request waits. `behind`: the occupants that have what it needs, or start before it."""

    why: Literal["replica", "starting", "leaving", "busy"]
    behind: tuple[str, ...] = ()


def schedule(
    requests: Sequence[StartRequest], occupants: Sequence[Occupant], capacity: Capacity, now: float
) -> Schedule:
    """What is to be done now (`orders`), why other requests wait (`queued`), and when to look again if nothing happens
    before (`look_at`, on the clock of `now`; infinite: not at all).
    """
    made = Schedule(list(occupants), capacity, now)
    for request in sorted(requests, key=lambda request: (request.is_spare, not request.is_asked, request.since)):
        made.serve(request)
    return made


class Schedule:
    """The machine as it will be once the orders until now are carried out; made for one call of `schedule`."""

    def __init__(self, occupants: list[Occupant], capacity: Capacity, now: float) -> None:
        self.orders: list[Order] = []
        self.look_at = math.inf
        self.queued: dict[str, Queued] = {}
        self._occupants = occupants
        self._reserved: list[Allocation] = []  # for requests that wait until somebody has left
        self._barred = [Allocation(devices=(device,), share=1.0) for device in capacity.barred]
        self._capacity = capacity
        self._now = now

    def serve(self, request: StartRequest) -> None:
        """Order what this request needs, or reserve its place, note why it waits, or reject it."""
        machine = self._capacity.machine
        if isinstance(alone := place(request.need, machine, ()), DoesNotFit):
            if not request.is_spare:
                self.orders.append(Reject(request.name, alone.reason, is_final=True))
            return
        if request.waits_for_first:
            self.queued[request.name] = Queued("replica")
            return
        held = [occupant.place for occupant in self._occupants]
        now = place(request.need, machine, [*held, *self._reserved, *self._barred])
        if isinstance(now, Allocation):
            self._start(request, now)
            return
        if request.is_spare:
            return
        later = place(request.need, machine, self._taken_without(()))
        if isinstance(later, Allocation):
            self._reserved.append(later)  # somebody is leaving: it is enough to wait
            self.queued[request.name] = Queued(
                "leaving", tuple(each.name for each in self._occupants if each.is_leaving)
            )
            return
        pinned = [occupant.place for occupant in self._occupants if occupant.is_pinned]
        if request.is_asked and isinstance(place(request.need, machine, [*pinned, *self._barred]), Allocation):
            self._make_room(request)
        else:
            self._reject(request, later, pinned)

    def _reject(self, request: StartRequest, misfit: DoesNotFit, pinned: Sequence[Allocation]) -> None:
        taken = pinned if request.is_asked else [occupant.place for occupant in self._occupants]
        is_barred = bool(self._barred) and isinstance(place(request.need, self._capacity.machine, taken), Allocation)
        reason = "; ".join([misfit.reason, *self._capacity.barred.values()]) if is_barred else misfit.reason
        self.orders.append(Reject(request.name, reason, is_final=False, is_barred=is_barred))

    def _start(self, request: StartRequest, allocation: Allocation) -> None:
        starting = [occupant for occupant in self._occupants if occupant.is_starting]
        # An engine measures the free memory of its GPU while it starts: two at once would count it twice.
        is_shared = any(set(allocation.devices) & set(occupant.place.devices) for occupant in starting)
        if is_shared or len(starting) >= self._capacity.start_parallel:
            self._reserved.append(allocation)
            self.queued[request.name] = Queued("starting", tuple(occupant.name for occupant in starting))
            return
        self.orders.append(StartNow(request.name, allocation))
        self._occupants.append(Occupant(request.name, allocation, is_starting=True))

    def _make_room(self, request: StartRequest) -> None:
        def fits_without(names: Collection[str]) -> bool:
            return isinstance(place(request.need, self._capacity.machine, self._taken_without(names)), Allocation)

        candidates = [occupant.loaded for occupant in self._occupants if occupant.loaded is not None]
        names, look_at = choose_evicted(fits_without, candidates, request.since, self._now, self._capacity.swap_after_s)
        self.look_at = min(self.look_at, look_at)
        self.queued[request.name] = Queued(
            "busy", tuple(names or (one.name for one in candidates if not one.is_pinned))
        )
        if names:
            self._evict(request, names)

    def _evict(self, request: StartRequest, names: Collection[str]) -> None:
        """Evict these; they only fall asleep where that makes room enough."""
        machine = self._capacity.machine
        evicted = [occupant for occupant in self._occupants if occupant.name in names]
        gone = {occupant.name: replace(occupant, is_leaving=True, loaded=None) for occupant in evicted}
        self._occupants = [gone.get(occupant.name, occupant) for occupant in self._occupants]
        for occupant in evicted:
            rest = [*self._taken_without(()), *([occupant.asleep] if occupant.asleep is not None else [])]
            may_sleep = occupant.asleep is not None and isinstance(place(request.need, machine, rest), Allocation)
            if may_sleep and occupant.asleep is not None:
                self._reserved.append(occupant.asleep)
            self.orders.append(Evict(occupant.name, may_sleep))
        allocation = place(request.need, machine, self._taken_without(()))
        if isinstance(allocation, Allocation):
            self._reserved.append(allocation)

    def _taken_without(self, names: Collection[str]) -> list[Allocation]:
        staying = [occupant for occupant in self._occupants if not occupant.is_leaving and occupant.name not in names]
        return [*(occupant.place for occupant in staying), *self._reserved, *self._barred]
