"""Which engines start now, which make way for them, and which have to be told that there is no room: pure.

Wishes are served in the order in which they came, those that a request waits for before the others. Only for a request
or an order of the administrator does another engine make way: what merely starts at boot must find its room free.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from app.supervisor.capacity.eviction import Evictable, give_way
from app.supervisor.capacity.placement import Allocation, DoesNotFit, Machine, place
from backends.engine import Need


@dataclass(frozen=True, slots=True)
class Capacity:
    """What there is, and how it is shared out. `start_parallel`: engines that may be starting at the same time.

    `barred`: GPUs that nothing may start on for now, with the reason.
    """

    machine: Machine = field(default_factory=Machine)
    start_parallel: int = 2
    swap_after_s: float = 30.0
    barred: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StartRequest:
    """An engine that is to start, or to wake up, since then. `is_asked`: somebody waits for it.

    `is_early`: another one must have started before. `is_spare`: it only helps others out, so it takes what nobody else
    wants, and is not told when there is nothing. Of a sleeping one, `need` is what it has not kept.
    """

    name: str
    need: Need
    since: float
    is_asked: bool = False
    is_early: bool = False
    is_spare: bool = False


@dataclass(frozen=True, slots=True)
class Occupant:
    """An engine that has a place. `loaded` is None where it cannot make way: it is starting, or leaving already.

    `asleep`: what it would still have if it slept instead of being stopped; None when it cannot, or does already.
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
    """It starts here."""

    name: str
    place: Allocation


@dataclass(frozen=True, slots=True)
class Evict:
    """It ends, or falls asleep, once its leases are returned."""

    name: str
    may_sleep: bool = False


@dataclass(frozen=True, slots=True)
class Reject:
    """There is no room for it; `is_final`: nor would there be if it were alone. `is_barred`: but for a quarantine."""

    name: str
    reason: str
    is_final: bool
    is_barred: bool = False


Order = StartNow | Evict | Reject


@dataclass(frozen=True, slots=True)
class Queued:
    """Why a wish waits. `behind`: the holders that have what it needs, or start before it."""

    why: Literal["replica", "starting", "leaving", "busy"]
    behind: tuple[str, ...] = ()


def schedule(
    wishes: Sequence[StartRequest], holders: Sequence[Occupant], bounds: Capacity, now: float
) -> tuple[list[Order], float]:
    """What is to be done now, and when to look again if nothing happens before (infinite: not at all)."""
    plan = planned(wishes, holders, bounds, now)
    return plan.orders, plan.look_at


def planned(wishes: Sequence[StartRequest], holders: Sequence[Occupant], bounds: Capacity, now: float) -> Schedule:
    """The same, and why the others wait."""
    plan = Schedule(list(holders), bounds, now)
    for wish in sorted(wishes, key=lambda wish: (wish.is_spare, not wish.is_asked, wish.since)):
        plan.serve(wish)
    return plan


class Schedule:
    """The machine as it will be when the orders until now are done; lives for one `schedule`."""

    def __init__(self, holders: list[Occupant], bounds: Capacity, now: float) -> None:
        self.orders: list[Order] = []
        self.look_at = math.inf
        self.queued: dict[str, Queued] = {}
        self._holders = holders
        self._reserved: list[Allocation] = []  # for wishes that wait until somebody has left
        self._barred = [Allocation(devices=(device,), share=1.0) for device in bounds.barred]
        self._bounds = bounds
        self._now = now

    def serve(self, wish: StartRequest) -> None:
        machine = self._bounds.machine
        if isinstance(alone := place(wish.need, machine, ()), DoesNotFit):
            if not wish.is_spare:
                self.orders.append(Reject(wish.name, alone.reason, is_final=True))
            return
        if wish.is_early:
            self.queued[wish.name] = Queued("replica")
            return
        held = [holder.place for holder in self._holders]
        now = place(wish.need, machine, [*held, *self._reserved, *self._barred])
        if isinstance(now, Allocation):
            self._start(wish, now)
            return
        if wish.is_spare:
            return
        later = place(wish.need, machine, self._taken_without(()))
        if isinstance(later, Allocation):
            self._reserved.append(later)  # somebody is leaving: it is enough to wait
            self.queued[wish.name] = Queued("leaving", tuple(each.name for each in self._holders if each.is_leaving))
            return
        pinned = [holder.place for holder in self._holders if holder.is_pinned]
        if wish.is_asked and isinstance(place(wish.need, machine, [*pinned, *self._barred]), Allocation):
            self._make_room(wish)
        else:
            self._refuse(wish, later, pinned)

    def _refuse(self, wish: StartRequest, found: DoesNotFit, pinned: Sequence[Allocation]) -> None:
        taken = pinned if wish.is_asked else [holder.place for holder in self._holders]
        is_barred = bool(self._barred) and isinstance(place(wish.need, self._bounds.machine, taken), Allocation)
        reason = "; ".join([found.reason, *self._bounds.barred.values()]) if is_barred else found.reason
        self.orders.append(Reject(wish.name, reason, is_final=False, is_barred=is_barred))

    def _start(self, wish: StartRequest, found: Allocation) -> None:
        starting = [holder for holder in self._holders if holder.is_starting]
        # An engine measures the free memory of its GPU while it starts: two at once would count it twice.
        is_shared = any(set(found.devices) & set(holder.place.devices) for holder in starting)
        if is_shared or len(starting) >= self._bounds.start_parallel:
            self._reserved.append(found)
            self.queued[wish.name] = Queued("starting", tuple(holder.name for holder in starting))
            return
        self.orders.append(StartNow(wish.name, found))
        self._holders.append(Occupant(wish.name, found, is_starting=True))

    def _make_room(self, wish: StartRequest) -> None:
        def fits_without(names: Collection[str]) -> bool:
            return isinstance(place(wish.need, self._bounds.machine, self._taken_without(names)), Allocation)

        candidates = [holder.loaded for holder in self._holders if holder.loaded is not None]
        names, look_at = give_way(fits_without, candidates, wish.since, self._now, self._bounds.swap_after_s)
        self.look_at = min(self.look_at, look_at)
        self.queued[wish.name] = Queued("busy", tuple(names or (one.name for one in candidates if not one.is_pinned)))
        if names:
            self._end(wish, names)

    def _end(self, wish: StartRequest, names: Collection[str]) -> None:
        """These leave; they only fall asleep where that makes room enough."""
        machine = self._bounds.machine
        ended = [holder for holder in self._holders if holder.name in names]
        gone = {holder.name: replace(holder, is_leaving=True, loaded=None) for holder in ended}
        self._holders = [gone.get(holder.name, holder) for holder in self._holders]
        for holder in ended:
            rest = [*self._taken_without(()), *([holder.asleep] if holder.asleep is not None else [])]
            may_sleep = holder.asleep is not None and isinstance(place(wish.need, machine, rest), Allocation)
            if may_sleep and holder.asleep is not None:
                self._reserved.append(holder.asleep)
            self.orders.append(Evict(holder.name, may_sleep))
        found = place(wish.need, machine, self._taken_without(()))
        if isinstance(found, Allocation):
            self._reserved.append(found)

    def _taken_without(self, names: Collection[str]) -> list[Allocation]:
        staying = [holder for holder in self._holders if not holder.is_leaving and holder.name not in names]
        return [*(holder.place for holder in staying), *self._reserved, *self._barred]
