"""All lives, and the one place where they change.

Nothing here awaits between reading and writing a life. What happens comes in as events (`post`), in order; one turn
applies them all, publishes once, and then answers those who wait.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from app.supervisor.unit import Unit
from app.table import Backend
from backends.base import State
from backends.events import Drain, Drained, Event, Kill, Spawn, Start, Terminate, Tick, Unwatch, WarmUp, Watch
from backends.lifecycle import Lifecycle, step

log = structlog.get_logger()


class LeaseView(Protocol):
    """What the relays hold. Generation 0: requests that wait for a start."""

    def held(self, backend: str, generation: int) -> int:
        """Leases on one start of one backend, over all relays."""
        ...

    def is_applied(self, version: int) -> bool:
        """Whether every relay routes by this table or a later one."""
        ...


class Lives:
    """The units by name, in the configuration's order, and of each removed name at least the latest."""

    def __init__(
        self, publish: Callable[[Mapping[str, Backend]], int], leases: LeaseView, now: Callable[[], float]
    ) -> None:
        self.units: dict[str, Unit] = {}
        self.departed: list[Unit] = []
        self.is_closing = False
        self.failure: Exception | None = None  # of a turn: what is published is not what is so any more
        self._publish = publish
        self._leases = leases
        self._now = now
        self._inbox: collections.deque[tuple[Unit, Event]] = collections.deque()
        self._rows: Mapping[str, Backend] = {}
        self._version = 0
        self._is_in_turn = False
        self._changed = asyncio.Event()

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
                rows = {name: unit.row for name, unit in self.units.items()}
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

    def _apply(self, unit: Unit, event: Event) -> None:
        before = unit.life
        unit.life, actions = step(before, event, self._now(), unit.policy)
        _tell(unit, before)
        for action in actions:
            match action:
                case Spawn(generation):
                    unit.restarts += isinstance(event, Tick)
                    unit.spawn(generation)
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

    def _stopped(self, unit: Unit) -> None:
        if unit.is_leaving and self.units.get(unit.name) is unit:
            del self.units[unit.name]
            self.departed = [*(one for one in self.departed if one.name != unit.name or not one.is_gone), unit]
            unit.answer()
        elif unit.successor is not None:
            unit.become(unit.successor)
            if unit.starts_at_boot or unit.starts_after or unit.waiters:
                self._inbox.append((unit, Start()))
            unit.starts_after = False

    def _hear_drained(self) -> None:
        """Leases on what is out of routing: when the last is returned, and no relay can take one, it may end."""
        for unit in self.units.values():
            if unit.life.is_draining:
                unit.withdrawn = self._version if unit.withdrawn is None else unit.withdrawn
                is_free = self._leases.is_applied(unit.withdrawn)
                if is_free and not self._leases.held(unit.name, unit.life.generation):
                    self._inbox.append((unit, Drained(unit.life.generation)))

    def is_at_rest(self) -> bool:
        """Nothing runs, or waits to run."""
        return all(unit.life.state is State.STOPPED for unit in self.units.values())

    async def drive(self, is_over: Callable[[], bool]) -> None:
        """Let time pass for every life until that is so, or a turn has failed."""
        while self.failure is None and not is_over():
            changed = self._changed
            dues = [unit.life.due for unit in self.units.values() if unit.life.due is not None]
            wait_s = max(0.0, min(dues) - self._now()) if dues else None
            changing = asyncio.ensure_future(changed.wait())
            try:
                await asyncio.wait({changing}, timeout=wait_s)
            finally:
                changing.cancel()
            for unit in list(self.units.values()):
                if unit.life.due is not None and unit.life.due <= self._now():
                    self.post(unit, Tick())


def _tell(unit: Unit, before: Lifecycle) -> None:
    """A line for every change of state; and how long a start took."""
    life = unit.life
    if life.state is before.state:
        if life.state is State.STARTING and before.has_process and not life.has_process and life.ready_at is None:
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
        case State.STOPPED:
            say = log.debug if unit.is_unasked and not life.generation else log.info
            say("engine stopped", backend=unit.name, generation=life.generation)
        case State.STOPPING:
            log.info("engine stopping", backend=unit.name, generation=life.generation)
        case State.STARTING if before.state is State.READY and unit.policy.is_attached:
            log.info("engine asked anew", backend=unit.name)
        case State.STARTING if before.state is State.READY:
            log.warning("engine lost", backend=unit.name, generation=life.generation, reason=unit.reason)
