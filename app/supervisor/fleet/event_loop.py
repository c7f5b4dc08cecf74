"""All lives, and the one place where they change.

Nothing here awaits between reading and writing a life. What happens comes in as events (`post`), in order; one turn
applies them all, publishes once, and then answers those who wait.
"""

from __future__ import annotations

import asyncio
import collections
import math
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from app.supervisor.capacity.gpu_quarantine import GpuQuarantine
from app.supervisor.capacity.schedule import Capacity
from app.supervisor.capacity.scheduler import Scheduler
from app.supervisor.fleet.unit import OrderRefused, Unit
from app.supervisor.relays.table_rows import row
from app.supervisor.replicas import rolling_update
from app.supervisor.replicas.rolling_update import UpdateProgress
from app.table import Backend
from backends.endpoint import State
from backends.lifecycle.events import (
    Drain,
    Drained,
    Event,
    Exited,
    Fetch,
    Kill,
    Sleep,
    Spawn,
    Start,
    StopAsked,
    Terminate,
    Tick,
    Unwatch,
    WakeUp,
    WarmUp,
    Watch,
)
from backends.lifecycle.machine import step
from backends.lifecycle.phases import Intent, Lifecycle, Phase

log = structlog.get_logger()


class LeaseView(Protocol):
    """What the relays hold. Generation 0: requests that wait for a start."""

    def held(self, backend: str, generation: int) -> int:
        """Leases on one start of one backend, over all relays."""
        ...

    def has_returned(self, backend: str, generation: int) -> bool:
        """Whether a request that used this start of it is over."""
        ...

    def is_applied(self, version: int) -> bool:
        """Whether every relay routes by this table or a later one."""
        ...


class EventLoop:
    """The units by name, in the configuration's order, and of each removed name at least the latest."""

    def __init__(
        self,
        publish: Callable[[Mapping[str, Backend]], int],
        leases: LeaseView,
        now: Callable[[], float],
        capacity: Capacity,
    ) -> None:
        self.units: dict[str, Unit] = {}
        self.replacements: dict[str, Unit] = {}  # each starts beside the unit of its name, and takes its place then
        self.retiring: list[Unit] = []  # out of their names and not at rest yet
        self.ended: list[Unit] = []
        self.is_closing = False
        self.is_ending = False  # what does not serve by now will not be waited for
        self.is_reloading = False  # a new configuration, of which only a part is known here yet
        self.failure: Exception | None = None  # of a turn: what is published is not what is so any more
        self.scheduler = Scheduler(leases, now, capacity)
        self.on_promoted: Callable[[str], None] = lambda _: None  # a replacement has this name now
        self._publish = publish
        self._leases = leases
        self._now = now
        self._inbox: collections.deque[tuple[Unit, Event]] = collections.deque()
        self._rows: Mapping[str, Backend] = {}
        self._version = 0
        self._is_in_turn = False
        self._drains_s: dict[str, float] = {}  # of what a replacement is to replace
        self._changed = asyncio.Event()

    def follow(self, firsts: Mapping[str, str]) -> None:
        """From now on these are replicas: name → the name of the first, which starts alone."""
        self.scheduler.firsts = firsts

    def guard(self, quarantine: GpuQuarantine) -> None:
        """Nothing is placed on GPUs that it has in quarantine; what did not start because of that starts afterwards."""
        self.scheduler.barred = lambda: {each.device: each.reason for each in quarantine.quarantined.values()}
        quarantine.neighbours = self._neighbours
        quarantine.on_lifted = self._lifted

    def _neighbours(self, device: str) -> list[str]:
        units = [*self.everyone(), *self.ended]
        return [unit.name for unit in units if unit.place is not None and device in unit.place.devices]

    def _lifted(self) -> None:
        if self.is_closing:
            return
        for unit in self.units.values():
            if (
                unit.is_barred
                and unit.starts_at_boot
                and unit.life.state is State.STOPPED
                and unit.life.intent is not Intent.HELD
            ):
                self._inbox.append((unit, Start()))
            unit.is_barred = False
        self.turn()

    def everyone(self) -> list[Unit]:
        """All that may have a process."""
        return [*self.units.values(), *self.replacements.values(), *self.retiring]

    def replace_beside(self, unit: Unit, replacement: Unit, drain_s: float) -> None:
        """Let the replacement start while the unit serves; then it has the name, and the unit drains and ends.

        Where there is no room for both, the unit ends first.
        """
        replacement.restarts, replacement.swaps, replacement.load_s = unit.restarts, unit.swaps, unit.load_s
        self.replacements[unit.name], self._drains_s[unit.name] = replacement, drain_s
        self.post(replacement, Start())

    def cancel_replacement(self, name: str) -> Unit | None:
        """There is to be no replacement of that name any more; who it was."""
        replacement = self.replacements.pop(name, None)
        if replacement is not None:
            self._retire(replacement, 0.0)
            self.turn()
        return replacement

    def part(self, unit: Unit, drain_s: float) -> None:
        """It is to stop as soon as its replicas can spare it: for what it is to become, or because it leaves."""
        event = StopAsked(drain_s)
        if unit.life.state is State.READY and unit.is_managed:
            unit.parting = event
        else:
            self._inbox.append((unit, event))

    def _part(self) -> None:
        if not self.is_reloading and not self.is_closing:
            for unit in list(rolling_update.free(self.units.values(), self.replacements)):
                if unit.parting is not None:
                    self._inbox.append((unit, unit.parting))
                    unit.parting = None

    def update_progress(self, unit: Unit) -> UpdateProgress | None:
        """How far it is with its new configuration; None when it has it."""
        return rolling_update.progress(unit, self.units.values(), self.replacements)

    def _retire(self, unit: Unit, drain_s: float) -> None:
        self.retiring.append(unit)
        unit.successor = unit.parting = None
        self._inbox.append((unit, StopAsked(drain_s, Intent.HELD)))

    def _promote(self) -> None:
        """Replacements that serve take over; those that cannot leave the unit as it is, or make it end first."""
        for name, replacement in list(self.replacements.items()):
            unit, state = self.units[name], replacement.life.state
            if state is State.READY or unit.life.state is not State.READY:
                del self.replacements[name]
                self.units[name] = replacement
                replacement.waiters, unit.waiters = unit.waiters, replacement.waiters
                self._retire(unit, self._drains_s[name])
                self.on_promoted(name)
            elif state is State.FAILED:
                log.error(
                    "engine not replaced: the new one does not start", backend=name, reason=replacement.life.reason
                )
                unit.refused = OrderRefused(replacement.config, replacement.life.reason or "no reason given")
                del self.replacements[name]
                self._retire(replacement, 0.0)
            elif state is State.STOPPED:  # refused: no room for both
                del self.replacements[name]
                self._retire(replacement, 0.0)
                unit.successor, unit.starts_after = replacement.config, True
                self.part(unit, self._drains_s[name])

    @property
    def version(self) -> int:
        """Of the table that says what is so now."""
        return self._version

    def replicas(self, name: str) -> list[Unit]:
        """The unit of that name and, where it is the first of several, the others; KeyError for an unknown name."""
        others = [other for other, first in self.scheduler.firsts.items() if first == name and other in self.units]
        return [self.units[one] for one in (name, *others)]

    def post(self, unit: Unit, event: Event) -> None:
        """This happened to it."""
        self._inbox.append((unit, event))
        self.turn()

    def turn(self, must_publish: bool = False) -> None:
        """Apply what has happened, publish, answer. What happens meanwhile waits for the next round."""
        if self._is_in_turn:
            return
        self._is_in_turn = True
        try:
            is_settled = False
            while not is_settled:
                while self._inbox:
                    self._apply(*self._inbox.popleft())
                while self._share_out():
                    pass
                self._promote()
                self._part()
                while self._inbox:
                    self._apply(*self._inbox.popleft())
                rows = {name: row(unit) for name, unit in self.units.items()}
                if must_publish or rows != self._rows:
                    self._version = self._publish(rows)
                    self._rows, must_publish = rows, False
                self._hear_drained()
                is_settled = not self._inbox
        except Exception as exc:
            # A turn runs in whichever task had news; `drive` tells the one that must know.
            self.failure = exc
            raise
        finally:
            self._is_in_turn = False
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()
        for unit in self.units.values():
            if self.is_closing or not unit.is_pending:
                unit.answer()

    def notice(self) -> None:
        """What is held, applied or waited for is different now."""
        is_news = self.scheduler.observe(self.units.values())
        if is_news or any(unit.life.phase is Phase.DRAINING or unit.life.is_queued for unit in self.everyone()):
            self.turn()

    def _share_out(self) -> bool:
        """Give room to who is wanted, and send away who is idle; whether that was anything."""
        if self.is_closing:
            return False
        self.scheduler.observe(self.units.values())
        starting = [*self.units.values(), *self.replacements.values()]
        happens = self.scheduler.decide(starting, [*self.retiring, *self.ended])
        self._inbox.extend(happens)
        while self._inbox:
            self._apply(*self._inbox.popleft())
        return bool(happens)

    def _apply(self, unit: Unit, event: Event) -> None:
        before = unit.life
        unit.life, actions = step(before, event, self._now(), unit.policy)
        if unit.life.due != before.due:
            unit.tries_at = None if unit.life.due is None else time.time() + unit.life.due - self._now()
        _tell(unit, before)
        self._bury(unit, before, event)
        unit.restarts += before.phase is Phase.BACKING_OFF is not unit.life.phase and isinstance(event, Tick)
        if unit.life.state in (State.READY, State.STOPPED, State.FAILED):
            unit.requested_by_admin = False
        if isinstance(event, StopAsked) and event.then is Intent.HELD:
            unit.parting = None
        for action in actions:
            match action:
                case Fetch(generation):
                    unit.fetch(generation)
                case Spawn(generation):
                    unit.spawn(generation)
                case Sleep(generation, level):
                    unit.sleep(generation, level)
                case WakeUp(generation):
                    unit.wake_up(generation)
                case WarmUp(generation):
                    unit.warm_up(generation)
                case Watch():
                    unit.watch()
                case Unwatch():
                    unit.unwatch()
                case Drain():
                    unit.withdrawn = None
                case Terminate():
                    unit.terminate()
                case Kill():
                    unit.kill()
        if isinstance(event, Start):
            unit.look()
        if unit.life.state is State.STOPPED:
            self._stopped(unit)

    def _bury(self, unit: Unit, before: Lifecycle, event: Event) -> None:
        """What is known of a life that is over stays known for a while."""
        life = unit.life
        if unit.policy.is_attached:
            if before.state is State.READY and life.state is State.FAILED:
                unit.past.ended(before.generation, self._now(), life.reason)
        elif (
            isinstance(event, Exited)
            and before.has_process
            and not life.has_process
            and before.phase is not Phase.FETCHING
        ):
            was_asked = before.state is State.STOPPING
            unit.past.ended(before.generation, self._now(), None if was_asked else life.reason or event.reason)

    def _stopped(self, unit: Unit) -> None:
        if unit in self.retiring:
            self.retiring.remove(unit)
            self._depart(unit)
        elif unit.is_leaving and self.units.get(unit.name) is unit:
            del self.units[unit.name]
            self._depart(unit)
            unit.answer()
        elif unit.successor is not None:
            unit.become(unit.successor)
            if (unit.starts_at_boot or unit.starts_after or unit.waiters) and unit.life.intent is not Intent.HELD:
                self._inbox.append((unit, Start()))
            unit.starts_after = False

    def _depart(self, unit: Unit) -> None:
        """It is at rest for good. Kept is what still runs, and of each name the latest: its next one counts on."""
        self.ended.append(unit)
        latest: dict[str, int] = {}
        for one in [*self.everyone(), *self.ended]:
            latest[one.name] = max(latest.get(one.name, 0), one.life.generation)
        self.ended = [
            one for one in self.ended if not one.is_gone or one.life.generation == latest[one.name] or one is unit
        ]

    def _hear_drained(self) -> None:
        """Leases on what is out of routing: when the last is returned, and no relay can take one, it may end."""
        for unit in self.everyone():
            if unit.life.phase is Phase.DRAINING:
                unit.withdrawn = self._version if unit.withdrawn is None else unit.withdrawn
                if self._leases.is_applied(unit.withdrawn) and not self._leases.held(unit.name, unit.life.generation):
                    self._inbox.append((unit, Drained(unit.life.generation)))

    def is_at_rest(self) -> bool:
        """Nothing runs, or waits to run."""
        return all(unit.life.state is State.STOPPED for unit in self.everyone())

    async def drive(self, is_over: Callable[[], bool]) -> None:
        """Let time pass for every life until that is so, or a turn has failed."""
        while self.failure is None and not is_over():
            changed = self._changed
            dues = [unit.life.due for unit in self.everyone() if unit.life.due is not None]
            due = min([*dues, self.scheduler.look_at])
            wait_s = max(0.0, due - self._now()) if due < math.inf else None
            changing = asyncio.ensure_future(changed.wait())
            try:
                await asyncio.wait({changing}, timeout=wait_s)
            finally:
                changing.cancel()
            for unit in self.everyone():
                if unit.life.due is not None and unit.life.due <= self._now():
                    self.post(unit, Tick())
            if self.scheduler.look_at <= self._now():
                self.turn()


def _tell(unit: Unit, before: Lifecycle) -> None:
    """A line for every change of state; and how long a start took."""
    life = unit.life
    if life.state is before.state:
        has_ended = before.has_process and not life.has_process and not life.is_queued
        if life.state is State.STARTING and has_ended and life.ready_at is None:
            log.warning("engine not started", backend=unit.name, generation=life.generation, reason=unit.reason)
        return
    match life.state:
        case State.READY if unit.policy.is_attached:
            log.info("engine found", backend=unit.name)
        case State.READY:
            unit.load_s = life.since - before.since
            log.info("engine ready", backend=unit.name, generation=life.generation, seconds=round(unit.load_s, 2))
        case State.FAILED if unit.policy.is_attached:
            # That one nobody configured is not there is no news: without a file, an Ollama daemon is only looked for.
            quiet = log.debug if unit.is_unasked else log.info
            say = log.warning if before.state is State.READY else quiet
            say("engine not there", backend=unit.name, reason=unit.reason)
        case State.FAILED:
            log.error("engine failed", backend=unit.name, generation=life.generation, reason=unit.reason)
        case State.SLEEPING:
            log.info("engine asleep", backend=unit.name, generation=life.generation)
        case State.STOPPED:
            say = log.debug if unit.is_unasked and not life.generation else log.info
            say("engine stopped", backend=unit.name, generation=life.generation)
        case State.STOPPING:
            log.info("engine stopping", backend=unit.name, generation=life.generation)
        case State.STARTING if before.state is State.READY and unit.policy.is_attached:
            log.info("engine asked anew", backend=unit.name)
        case State.STARTING if before.state is State.READY:
            log.warning("engine lost", backend=unit.name, generation=life.generation, reason=unit.reason)
