"""All units, and the one place where events change their lives.

Nothing here awaits between reading and writing a life. What happens comes in as events (`post`), in order. One turn
applies them all, publishes the table once, and then wakes the requests that wait.
"""

from __future__ import annotations

import asyncio
import collections
import math
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from app.supervisor.capacity.gpu_quarantine import GpuQuarantine
from app.supervisor.capacity.schedule import Capacity
from app.supervisor.capacity.scheduler import Scheduler
from app.supervisor.fleet.unit import Unit
from app.supervisor.fleet.waiters import WaitList
from app.supervisor.relays.table_rows import row
from app.supervisor.replicas import rolling_update
from app.supervisor.replicas.rolling_update import UpdateProgress
from app.table import Backend
from backends.endpoint import State
from backends.lifecycle.events import (
    Drain,
    Drained,
    Event,
    Start,
    StopAsked,
    Tick,
)
from backends.lifecycle.phases import Intent, Lifecycle, Phase

log = structlog.get_logger()


class LeaseView(Protocol):
    """What the relays hold. Generation 0: requests that wait for a start."""

    def held(self, backend: str, generation: int) -> int:
        """How many leases all relays together hold on this start of this backend."""
        ...

    def has_returned(self, backend: str, generation: int) -> bool:
        """Whether a request that used this start of it is over."""
        ...

    def is_applied(self, version: int) -> bool:
        """Whether every relay routes by this table or a later one."""
        ...


class EventLoop:
    """`units` by name, in the order of the configuration; `replacements` start beside the unit of their name and take
    its place when they serve; `retiring` units have lost their name and are not at rest yet; of `ended` ones the latest
    of each name is kept. `is_ending`: requests no longer wait for what does not serve yet. `is_closing`: all is to
    stop.

    `on_promoted` is called with the name that a replacement has taken over.
    """

    def __init__(
        self,
        publish: Callable[[Mapping[str, Backend]], int],
        leases: LeaseView,
        now: Callable[[], float],
        capacity: Capacity,
    ) -> None:
        self.units: dict[str, Unit] = {}
        self.replacements: dict[str, Unit] = {}
        self.retiring: list[Unit] = []
        self.ended: list[Unit] = []
        self.is_closing = False
        self.is_ending = False
        self.is_reloading = False  # a new configuration is only known in part yet
        self.failure: Exception | None = None  # of a turn: the published table is wrong from then on
        self.waiting = WaitList()
        self.scheduler = Scheduler(leases, now, capacity, self.waiting.count)
        self.on_promoted: Callable[[str], None] = lambda _: None
        self._publish = publish
        self._leases = leases
        self._now = now
        self._inbox: collections.deque[tuple[Unit, Event]] = collections.deque()
        self._rows: Mapping[str, Backend] = {}
        self._version = 0
        self._is_in_turn = False
        self._withdrawn: dict[Unit, int] = {}  # the table version that no longer shows its endpoint, while it drains
        self._drains_s: dict[str, float] = {}  # of what a replacement is to replace
        self._changed = asyncio.Event()

    def follow(self, firsts: Mapping[str, str]) -> None:
        """From now on these are replicas: name → the name of the first one, which starts alone."""
        self.scheduler.firsts = firsts

    def guard(self, quarantine: GpuQuarantine) -> None:
        """Place nothing on GPUs in quarantine; what did not start because of that starts when they are free again."""
        self.scheduler.barred = lambda: {each.device: each.reason for each in quarantine.quarantined.values()}
        quarantine.neighbours = self._neighbours
        quarantine.on_lifted = self._lifted

    def _neighbours(self, device: str) -> list[str]:
        units = [*self.everyone(), *self.ended]
        return [unit.name for unit in units if device in unit.devices]

    def _lifted(self) -> None:
        if self.is_closing:
            return
        for unit in self.units.values():
            is_free = unit.life.state is State.STOPPED and unit.life.intent is not Intent.HELD
            if self.scheduler.unbar(unit) and unit.starts_at_boot and is_free:
                self._inbox.append((unit, Start()))
        self.turn()

    def everyone(self) -> list[Unit]:
        """All that may have a process."""
        return [*self.units.values(), *self.replacements.values(), *self.retiring]

    def replace_beside(self, unit: Unit, replacement: Unit, drain_s: float) -> None:
        """Let the replacement start while the unit serves; then it has the name, and the unit drains and ends.

        Where there is no room for both, the unit ends first.
        """
        self.scheduler.hand_over(unit, replacement)
        self.replacements[unit.name], self._drains_s[unit.name] = replacement, drain_s
        self.post(replacement, Start())

    def cancel_replacement(self, name: str) -> Unit | None:
        """Stop the replacement of that name. Returns it; None when there is none."""
        replacement = self.replacements.pop(name, None)
        if replacement is not None:
            self._retire(replacement, 0.0)
            self.turn()
        return replacement

    def stop_when_spared(self, unit: Unit, drain_s: float) -> None:
        """Stop it as soon as the other replicas can do without it: for its new configuration, or because it leaves."""
        event = StopAsked(drain_s)
        if unit.life.state is State.READY and unit.is_managed:
            unit.change.postpone(event)
        else:
            self._inbox.append((unit, event))

    def _stop_spared(self) -> None:
        if not self.is_reloading and not self.is_closing:
            for unit in list(rolling_update.free(self.units.values(), self.replacements)):
                if unit.change.postponed_stop is not None:
                    self._inbox.append((unit, unit.change.postponed_stop))
                    unit.change.postpone(None)

    def update_progress(self, unit: Unit) -> UpdateProgress | None:
        """How far it is with its new configuration; None when it has it."""
        return rolling_update.progress(unit, self.units.values(), self.replacements)

    def _retire(self, unit: Unit, drain_s: float) -> None:
        self.retiring.append(unit)
        unit.change.drop()
        self._inbox.append((unit, StopAsked(drain_s, Intent.HELD)))

    def _promote(self) -> None:
        """Replacements that serve take over. One that fails changes nothing; for one without room its unit stops."""
        for name, replacement in list(self.replacements.items()):
            unit, state = self.units[name], replacement.life.state
            if state is State.READY or unit.life.state is not State.READY:
                del self.replacements[name]
                self.units[name] = replacement
                self.waiting.hand_over(unit, replacement)
                self._retire(unit, self._drains_s[name])
                self.on_promoted(name)
            elif state is State.FAILED:
                log.error(
                    "engine not replaced: the new one does not start", backend=name, reason=replacement.life.reason
                )
                unit.change.refuse(replacement.config, replacement.life.reason or "no reason given")
                del self.replacements[name]
                self._retire(replacement, 0.0)
            elif state is State.STOPPED:  # refused: no room for both
                del self.replacements[name]
                self._retire(replacement, 0.0)
                unit.change.take(replacement.config, starts_after=True)
                self.stop_when_spared(unit, self._drains_s[name])

    @property
    def version(self) -> int:
        """Of the table that was published last."""
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
        """Apply what has happened, publish, wake those who wait. What happens meanwhile is applied in the same turn."""
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
                self._stop_spared()
                while self._inbox:
                    self._apply(*self._inbox.popleft())
                rows = {name: row(unit) for name, unit in self.units.items()}
                if must_publish or rows != self._rows:
                    self._version = self._publish(rows)
                    self._rows, must_publish = rows, False
                self._post_drained()
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
                self.waiting.wake(unit)

    def leases_changed(self) -> None:
        """Leases, applied tables or waiting requests are different now."""
        is_news = self.scheduler.observe(self.units.values())
        if is_news or any(unit.life.phase is Phase.DRAINING or unit.life.is_queued for unit in self.everyone()):
            self.turn()

    def _share_out(self) -> bool:
        """Give room to units that are wanted, and stop those that are idle for long; whether anything was done."""
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
        before, actions = unit.apply(event, self._now())
        _log_change(unit, before)
        if unit.life.state in (State.READY, State.STOPPED, State.FAILED):
            self.scheduler.request_is_over(unit)
        if isinstance(event, StopAsked) and event.then is Intent.HELD:
            unit.change.postpone(None)
        for action in actions:
            if isinstance(action, Drain):
                self._withdrawn.pop(unit, None)
            else:
                unit.runner.do(action)
        if isinstance(event, Start):
            unit.runner.look()
        if unit.life.state is State.STOPPED:
            self._stopped(unit)

    def _stopped(self, unit: Unit) -> None:
        if unit in self.retiring:
            self.retiring.remove(unit)
            self._end(unit)
        elif unit.change.is_leaving and self.units.get(unit.name) is unit:
            del self.units[unit.name]
            self._end(unit)
            self.waiting.wake(unit)
        elif unit.change.next_config is not None:
            unit.become(unit.change.next_config)
            is_wanted = unit.starts_at_boot or unit.change.starts_after or self.waiting.count(unit) > 0
            if is_wanted and unit.life.intent is not Intent.HELD:
                self._inbox.append((unit, Start()))
            unit.change.started()

    def _end(self, unit: Unit) -> None:
        """It is at rest for good. Kept are units with running tasks, and the latest of each name: the next unit of that
        name goes on from its generation.
        """
        self.ended.append(unit)
        self._withdrawn.pop(unit, None)
        latest: dict[str, int] = {}
        for one in [*self.everyone(), *self.ended]:
            latest[one.name] = max(latest.get(one.name, 0), one.life.generation)
        self.ended = [
            one
            for one in self.ended
            if not one.runner.is_gone or one.life.generation == latest[one.name] or one is unit
        ]

    def _post_drained(self) -> None:
        """Tell the units that are out of routing when their last lease is returned and no relay can take another."""
        for unit in self.everyone():
            if unit.life.phase is Phase.DRAINING:
                is_applied = self._leases.is_applied(self._withdrawn.setdefault(unit, self._version))
                if is_applied and not self._leases.held(unit.name, unit.life.generation):
                    self._inbox.append((unit, Drained(unit.life.generation)))

    def is_at_rest(self) -> bool:
        """Whether nothing runs, or waits to run."""
        return all(unit.life.state is State.STOPPED for unit in self.everyone())

    async def drive(self, is_over: Callable[[], bool]) -> None:
        """Let time pass for every life until `is_over`, or until a turn has failed."""
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


def _log_change(unit: Unit, before: Lifecycle) -> None:
    """Log every change of state, and every start that ended before it served."""
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
            load_s = round(life.since - before.since, 2)
            log.info("engine ready", backend=unit.name, generation=life.generation, seconds=load_s)
        case State.FAILED if unit.policy.is_attached:
            # That one nobody configured is not there is no news: without a file, an Ollama daemon is only looked for.
            quiet = log.debug if unit.is_implicit else log.info
            say = log.warning if before.state is State.READY else quiet
            say("engine not there", backend=unit.name, reason=unit.reason)
        case State.FAILED:
            log.error("engine failed", backend=unit.name, generation=life.generation, reason=unit.reason)
        case State.SLEEPING:
            log.info("engine asleep", backend=unit.name, generation=life.generation)
        case State.STOPPED:
            say = log.debug if unit.is_implicit and not life.generation else log.info
            say("engine stopped", backend=unit.name, generation=life.generation)
        case State.STOPPING:
            log.info("engine stopping", backend=unit.name, generation=life.generation)
        case State.STARTING if before.state is State.READY and unit.policy.is_attached:
            log.info("engine asked anew", backend=unit.name)
        case State.STARTING if before.state is State.READY:
            log.warning("engine lost", backend=unit.name, generation=life.generation, reason=unit.reason)
