"""Which unit is busy, which is idle, and which gets whose room: puts the fleet's situation into the words of
schedule.py, and what that decides into events.

Everything is read from the units and the leases at one moment; nothing awaits. Only this file writes an `Occupancy`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol

import structlog

from app.supervisor import status_text
from app.supervisor.capacity.eviction import Evictable
from app.supervisor.capacity.placement import Allocation
from app.supervisor.capacity.schedule import Capacity, Evict, Occupant, Reject, StartNow, StartRequest, schedule
from app.supervisor.fleet.unit import Unit
from backends.endpoint import State
from backends.engine import Need
from backends.lifecycle.events import Event, NotPlaced, Placed, SleepAsked, StopAsked, Wanted
from backends.lifecycle.machine import can_start
from backends.lifecycle.phases import Intent, Phase

# On its way to serve with its process; one that is dead and has not exited yet keeps others from starting as well.
_TAKES_ITS_PLACE: Final = (Phase.LOADING, Phase.WARMING, Phase.WAKING, Phase.DYING)

log = structlog.get_logger()


class LeaseCounts(Protocol):
    """The leases that are held, and were. Generation 0: requests that wait for a start."""

    def held(self, backend: str, generation: int) -> int: ...
    def has_returned(self, backend: str, generation: int) -> bool: ...


class Scheduler:
    """Shares the machine out among the units, and keeps the `Occupancy` of each.

    `waiting`: how many requests wait for a unit to serve.
    """

    def __init__(
        self,
        leases: LeaseCounts,
        now: Callable[[], float],
        capacity: Capacity,
        waiting: Callable[[Unit], int],
    ) -> None:
        self.capacity = capacity
        self.firsts: Mapping[str, str] = {}  # of replicas: the one that starts alone
        self.barred: Callable[[], Mapping[str, str]] = dict  # GPUs in quarantine, with the reason
        self.look_at = math.inf  # when the next `decide` may have something to say though nothing happened
        self._leases = leases
        self._now = now
        self._waiting = waiting

    def request(self, unit: Unit) -> None:
        """Room is to be made for it, as the administrator waits for it, or a request will come back."""
        unit.occupancy.requested_by_admin = True

    def request_is_over(self, unit: Unit) -> None:
        """It has started, or will not."""
        unit.occupancy.requested_by_admin = False

    def unbar(self, unit: Unit) -> bool:
        """A GPU may be used again; whether this unit did not start because of one that could not."""
        was_barred, unit.occupancy.is_barred = unit.occupancy.is_barred, False
        return was_barred

    def hand_over(self, unit: Unit, replacement: Unit) -> None:
        """The replacement goes on counting where the unit is."""
        replacement.occupancy.swaps = unit.occupancy.swaps

    def observe(self, units: Iterable[Unit]) -> bool:
        """Note which units are busy and which are idle; returns whether that has changed."""
        is_news = False
        named = {unit.name: unit for unit in units}
        for unit in named.values():
            if unit.policy.is_attached:
                continue
            first = named.get(self.firsts.get(unit.name, ""))
            occupancy, life = unit.occupancy, unit.life
            occupancy.waits_for_first = first is not None and _is_to_be_first(first)
            if self._leases.has_returned(unit.name, life.generation):
                occupancy.served_generation = life.generation
            is_idle = life.state is State.READY and not self._is_needed(unit)
            if is_idle is (occupancy.idle_since is None):
                occupancy.idle_since = self._now() if is_idle else None
                is_news = True
        return is_news

    def decide(self, units: Sequence[Unit], ended: Sequence[Unit]) -> list[tuple[Unit, Event]]:
        """The events by which wanted units get room now and units that are idle for long go.

        `units` may start; `ended` ones only still have a place.
        """
        for unit in (*units, *ended):
            self._review_place(unit)
        now = self._now()
        happens, self.look_at = self._unload(units, now)
        named = {f"{unit.name} {at}": unit for at, unit in enumerate(units)}  # a unit and its replacement have one name
        requests = [
            self._request(key, unit) for key, unit in named.items() if unit.life.is_queued and not _is_ending(unit)
        ]
        requests += self._spares(named)
        if not requests:
            return happens
        occupants = [self._occupant(key, unit, place) for key, unit in named.items() if (place := unit.occupancy.place)]
        occupants += [Occupant(unit.name, place, is_leaving=True) for unit in ended if (place := unit.occupancy.place)]
        plan = schedule(requests, occupants, replace(self.capacity, barred=self.barred()), now)
        self.look_at = min(self.look_at, plan.look_at)
        for key, unit in named.items():
            queued = plan.queued.get(key)
            others = [named[each].name if each in named else each for each in queued.behind] if queued else []
            unit.occupancy.waits_for = status_text.queued(queued, _need(unit), others) if queued is not None else None
        for order in plan.orders:
            unit = named[order.name]
            occupancy = unit.occupancy
            match order:
                case StartNow(place=place):
                    occupancy.place = occupancy.place if unit.life.is_asleep else place
                    occupancy.is_barred = False
                    self._warn(unit)
                    # A spare one has not been asked yet.
                    happens += [(unit, Placed())] if unit.life.is_queued else [(unit, Wanted()), (unit, Placed())]
                case Evict(may_sleep=may_sleep):
                    log.info("engine evicted", backend=unit.name, generation=unit.life.generation)
                    occupancy.swaps += 1
                    happens.append((unit, self._rest(unit, may_sleep)))
                case Reject(reason=reason, is_final=is_final, is_barred=is_barred):
                    log.warning("no room for engine", backend=unit.name, reason=reason)
                    occupancy.is_barred = is_barred
                    happens.append((unit, NotPlaced(reason, is_final)))
        return happens

    def _review_place(self, unit: Unit) -> None:
        occupancy = unit.occupancy
        if occupancy.place is None:
            return
        if not unit.runner.keeps_place:
            occupancy.place = None
        elif unit.need.is_guess and unit.life.state is State.READY:
            # Nobody has said what it takes: it has its place by what it was measured to take.
            occupancy.place = replace(occupancy.place, memory_gb=unit.need.memory_gb)

    def _warn(self, unit: Unit) -> None:
        there_gb = self.capacity.machine.memory_gb
        if unit.need.is_guess and unit.need.memory_gb > there_gb:
            expected_gb = round(unit.need.memory_gb, 2)
            log.warning(
                "engine may not fit; tried alone", backend=unit.name, expected_gb=expected_gb, there_gb=there_gb
            )

    def _spares(self, named: Mapping[str, Unit]) -> list[StartRequest]:
        """Resting replicas of entries that have work: requests go to replicas that serve, and would not wake these."""
        busy = {self.firsts.get(unit.name, unit.name) for unit in named.values() if self._is_working(unit)}
        entries = {*self.firsts, *self.firsts.values()}
        return [
            StartRequest(key, _need(unit), unit.life.since, is_spare=True)
            for key, unit in named.items()
            if unit.name in entries and self.firsts.get(unit.name, unit.name) in busy and _is_resting(unit)
        ]

    def _is_working(self, unit: Unit) -> bool:
        return unit.life.state is State.READY and self._is_needed(unit)

    def _unload(self, units: Sequence[Unit], now: float) -> tuple[list[tuple[Unit, Event]], float]:
        serving = [(unit, self.firsts.get(unit.name, unit.name)) for unit in units if unit.life.state is State.READY]
        due: dict[str, float] = {}
        for unit, first in serving:
            # Replicas rest together: a request would start only the first again.
            due[first] = max(due.get(first, -math.inf), unit.unload_at)
        happens = [(unit, self._rest(unit, may_sleep=True)) for unit, first in serving if due[first] <= now]
        return happens, min((at for at in due.values() if at > now), default=math.inf)

    def _rest(self, unit: Unit, may_sleep: bool) -> Event:
        if may_sleep and unit.sleep_level and unit.life.state is State.READY:
            return SleepAsked(unit.sleep_level)
        # However long its last leases take: that another needs room is no reason to cut a response off.
        return StopAsked(math.inf, Intent.REST)

    def _is_needed(self, unit: Unit) -> bool:
        generations = {0, unit.life.generation}
        return self._waiting(unit) > 0 or any(self._leases.held(unit.name, generation) for generation in generations)

    def _request(self, key: str, unit: Unit) -> StartRequest:
        is_asked = self._waiting(unit) > 0 or unit.occupancy.requested_by_admin or self._leases.held(unit.name, 0) > 0
        return StartRequest(key, _need(unit), unit.life.since, is_asked, unit.occupancy.waits_for_first)

    def _occupant(self, key: str, unit: Unit, place: Allocation) -> Occupant:
        life = unit.life
        asleep = Allocation(memory_gb=place.memory_gb)
        if life.is_asleep:
            rests = Evictable(key, life.since, None, unit.is_pinned) if life.state is State.SLEEPING else None
            return Occupant(key, asleep, loaded=rests, is_pinned=unit.is_pinned)
        serves = life.state is State.READY
        is_starting = life.phase in _TAKES_ITS_PLACE
        loaded = Evictable(key, unit.occupancy.idle_since, life.ready_at, unit.is_pinned) if serves else None
        return Occupant(
            name=key,
            place=place,
            is_starting=is_starting,
            is_leaving=not is_starting and not serves,  # also the remains of what crashed
            loaded=loaded,
            asleep=asleep if unit.sleep_level else None,
            is_pinned=unit.is_pinned,
        )


def _is_to_be_first(unit: Unit) -> bool:
    is_under_way = unit.life.state is not State.READY and can_start(unit.life, unit.policy)
    return unit.record.load_s is None and is_under_way


def _is_ending(unit: Unit) -> bool:
    """Its process has not ended altogether, or its GPUs' memory is not free again: it still has its last place."""
    return unit.runner.has_remains and not unit.life.is_asleep


def _is_resting(unit: Unit) -> bool:
    is_at_rest = unit.life.phase in (Phase.STOPPED, Phase.ASLEEP) and not _is_ending(unit)
    return (
        is_at_rest
        and can_start(unit.life, unit.policy)
        and not unit.change.is_leaving
        and unit.change.next_config is None
    )


def _need(unit: Unit) -> Need:
    place = unit.occupancy.place
    if unit.life.is_asleep and place is not None:
        # It has kept its host memory, and it can only wake up on its own devices.
        return Need(gpus=len(place.devices), named=place.devices, share=place.share)
    return unit.need
