"""Every backend's life: the one place where lives change, and from which the relays' rows are published.

Nothing here awaits between reading and writing a life. What happens comes in as events (`_post`), in order; one turn
applies them all, publishes once, and then answers those who wait.
"""

from __future__ import annotations

import asyncio
import collections
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from app.supervisor.unit import Unit
from app.table import Backend
from backends import kinds, process
from backends.base import Engine, State
from backends.config import BackendConfig
from backends.lifecycle import (
    Drain,
    Drained,
    Event,
    Kill,
    Lifecycle,
    Spawn,
    Start,
    StopAsked,
    Terminate,
    Tick,
    Unwatch,
    Wanted,
    WarmUp,
    Watch,
    step,
)

WAIT_S: Final = 600.0  # a request's own limit is the relay's; this one only ends what nobody waits for
CANCELLED_S: Final = 5.0

log = structlog.get_logger()


class LeaseView(Protocol):
    """What the relays hold. Generation 0: requests that wait for a start."""

    def held(self, backend: str, generation: int) -> int:
        """Leases on one start of one backend, over all relays."""
        ...

    def is_applied(self, version: int) -> bool:
        """Whether every relay routes by this table or a later one."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a wish for a backend ended."""

    is_ready: bool
    reason: str | None = None
    retry_after_s: float = 5.0


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """One backend for people. `since_s`: how long in this state; `load_s`: how long its last start took."""

    name: str
    kind: str
    state: State
    reason: str | None
    generation: int
    pid: int | None
    restarts: int
    since_s: float
    ready_s: float | None
    load_s: float | None
    leases: int
    in_flight: int | None
    models: tuple[str, ...] | None


class Fleet:
    """All backends. `publish` is told every change of their rows and returns the version of the table made of them."""

    def __init__(
        self,
        backends: Mapping[str, BackendConfig],
        *,
        state_id: str,
        publish: Callable[[Mapping[str, Backend]], int],
        leases: LeaseView,
        drain_s: float = 30.0,
        now: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
        engine: Callable[[str, BackendConfig], Engine] = kinds.engine,
    ) -> None:
        self.drain_s = drain_s
        self._state_id = state_id
        self._publish = publish
        self._leases = leases
        self._now = now
        self._random = random
        self._engine = engine
        self._departed: list[Unit] = []  # of each removed name at least the latest
        self._units = {name: self._unit(name, config) for name, config in backends.items()}
        self._inbox: collections.deque[tuple[Unit, Event]] = collections.deque()
        self._rows: Mapping[str, Backend] = {}
        self._version = 0
        self._is_in_turn = False
        self._is_closing = False
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Fleet {list(self._units.values())}>"

    async def run(self) -> None:
        """Start what starts at boot and keep it running; returns after `close`, and ends everything when cancelled."""
        process.adopt_orphans()
        self._turn(must_publish=True)
        try:
            for unit in list(self._units.values()):
                if unit.starts_at_boot and not self._is_closing:
                    self._post(unit, Start())
            await self._drive(lambda: self._is_closing and self._is_at_rest())
        finally:
            await self._abandon()

    async def wanted(self, backend: str) -> Outcome:
        """Make it serve; returns when it does or when it is known that it won't. It was published before."""
        unit = self._units.get(backend)
        if unit is None:
            return Outcome(False, "it is not configured any more")
        self._post(unit, Wanted())
        if not self._is_pending(unit):
            return self._outcome(unit)
        waiter = asyncio.get_running_loop().create_future()
        unit.waiters.add(waiter)
        try:
            await asyncio.wait({waiter}, timeout=WAIT_S)
        finally:
            unit.waiters.discard(waiter)
        return self._outcome(unit)

    def failing(self, backend: str, generation: int) -> None:
        """A relay could not reach this start of it: look at it now."""
        unit = self._units.get(backend)
        if unit is not None and unit.life.generation == generation:
            unit.look()

    def leases_changed(self) -> None:
        """What the relays hold or have applied is different now."""
        if any(unit.life.is_draining for unit in self._units.values()):
            self._turn()

    async def start(self, backend: str) -> None:
        """Start it; failures before are forgiven. Returns at once; KeyError for an unknown name."""
        self._order(backend, Start())

    async def stop(self, backend: str) -> None:
        """Drain and stop it, until it is started by hand. Returns at once."""
        self._order(backend, StopAsked(self.drain_s, is_held=True))

    async def restart(self, backend: str) -> None:
        """Drain, stop and start it again. Returns at once."""
        self._order(backend, StopAsked(self.drain_s, then_start=True))

    async def reload(self, backends: Mapping[str, BackendConfig]) -> None:
        """Have these backends from now on: unchanged ones are not touched, failed ones get a new chance.

        Returns at once; what changed drains, stops and starts anew behind it.
        """
        if self._is_closing:
            return
        for unit in [unit for name, unit in self._units.items() if name not in backends]:
            unit.is_leaving = True
            unit.successor = None
            self._post(unit, StopAsked(self.drain_s))
        for name, config in backends.items():
            unit = self._units.get(name) or self._join(name, config)
            if unit.is_leaving or config != (unit.successor or unit.config):
                self._replace(unit, config)
            elif unit.life.state is State.FAILED:
                self._post(unit, Start())
        self._turn()

    async def close(self, drain_s: float) -> None:
        """Everything out of routing; leases have `drain_s`; then all stop. Returns when nothing is left."""
        self._is_closing = True
        for unit in list(self._units.values()):
            unit.successor = None
            self._post(unit, StopAsked(drain_s, is_held=True))
        await self._drive(self._is_at_rest)
        for unit in [*self._units.values(), *self._departed]:
            await unit.gone()

    def status(self) -> Sequence[BackendStatus]:
        """Every backend, in the order of the configuration."""
        return [self._status(unit) for unit in self._units.values()]

    def log_tail(self, backend: str) -> list[str]:
        """The last lines its latest process wrote; KeyError for an unknown name."""
        return self._units[backend].log_tail()

    def _unit(self, name: str, config: BackendConfig) -> Unit:
        # A name that left and came back goes on counting: no lease of its earlier life fits the new one.
        generation = max((unit.life.generation for unit in self._departed if unit.name == name), default=0)
        return Unit(name, config, self._state_id, self._post, self._random, self._engine, generation)

    def _join(self, name: str, config: BackendConfig) -> Unit:
        unit = self._units[name] = self._unit(name, config)
        if unit.starts_at_boot:
            self._post(unit, Start())
        return unit

    def _replace(self, unit: Unit, config: BackendConfig) -> None:
        unit.starts_after = unit.starts_after or unit.life.state not in (State.STOPPED, State.FAILED)
        unit.is_leaving = False
        unit.successor = config
        self._post(unit, StopAsked(self.drain_s))

    def _order(self, backend: str, event: Event) -> None:
        unit = self._units[backend]
        if not self._is_closing:
            self._post(unit, event)

    def _post(self, unit: Unit, event: Event) -> None:
        self._inbox.append((unit, event))
        self._turn()

    def _turn(self, must_publish: bool = False) -> None:
        """Apply what has happened, publish, answer. What happens meanwhile waits for the next round."""
        if self._is_in_turn:
            return
        self._is_in_turn = True
        try:
            is_settled = False
            while not is_settled:
                while self._inbox:
                    self._apply(*self._inbox.popleft())
                rows = {name: unit.row for name, unit in self._units.items()}
                if must_publish or rows != self._rows:
                    self._rows, must_publish = rows, False
                    self._version = self._publish(rows)
                self._hear_drained()
                is_settled = not self._inbox
        finally:
            self._is_in_turn = False
        for unit in self._units.values():
            if not self._is_pending(unit):
                self._answer(unit)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

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
        if unit.is_leaving and self._units.get(unit.name) is unit:
            del self._units[unit.name]
            self._departed = [*(one for one in self._departed if one.name != unit.name or not one.is_gone), unit]
            self._answer(unit)
        elif unit.successor is not None:
            unit.become(unit.successor)
            if unit.starts_at_boot or unit.starts_after or unit.waiters:
                self._inbox.append((unit, Start()))
            unit.starts_after = False

    def _hear_drained(self) -> None:
        """Leases on what is out of routing: when the last is returned, and no relay can take one, it may end."""
        for unit in self._units.values():
            if unit.life.is_draining:
                unit.withdrawn = self._version if unit.withdrawn is None else unit.withdrawn
                is_free = self._leases.is_applied(unit.withdrawn)
                if is_free and not self._leases.held(unit.name, unit.life.generation):
                    self._inbox.append((unit, Drained(unit.life.generation)))

    def _is_pending(self, unit: Unit) -> bool:
        if self._is_closing:
            return False
        is_on_its_way = unit.life.state is State.STARTING or unit.life.then_start or unit.successor is not None
        return is_on_its_way and unit.life.state is not State.READY

    def _outcome(self, unit: Unit) -> Outcome:
        row = unit.row
        if row.state is State.READY:
            return Outcome(True)
        reasons = {State.STARTING: "it is still starting", State.STOPPING: "it is being stopped"}
        return Outcome(False, row.reason or reasons.get(row.state, "it is stopped"), row.retry_after_s)

    @staticmethod
    def _answer(unit: Unit) -> None:
        for waiter in unit.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _is_at_rest(self) -> bool:
        return all(unit.life.state is State.STOPPED for unit in self._units.values())

    async def _drive(self, is_over: Callable[[], bool]) -> None:
        """Let time pass for every life until that is so."""
        while not is_over():
            changed = self._changed
            dues = [unit.life.due for unit in self._units.values() if unit.life.due is not None]
            wait_s = max(0.0, min(dues) - self._now()) if dues else None
            changing = asyncio.ensure_future(changed.wait())
            try:
                await asyncio.wait({changing}, timeout=wait_s)
            finally:
                changing.cancel()
            for unit in list(self._units.values()):
                if unit.life.due is not None and unit.life.due <= self._now():
                    self._post(unit, Tick())

    async def _abandon(self) -> None:
        """Nothing outlives the fleet, however it ends."""
        self._is_closing = True
        units = [*self._units.values(), *self._departed]
        for unit in units:
            unit.unwatch()
            unit.kill()
        endings = [asyncio.create_task(unit.gone()) for unit in units]
        if endings:
            await asyncio.wait(endings, timeout=CANCELLED_S)

    def _status(self, unit: Unit) -> BackendStatus:
        life = unit.life
        held = sum(self._leases.held(unit.name, generation) for generation in {0, life.generation})
        is_ready = life.state is State.READY and life.ready_at is not None
        return BackendStatus(
            name=unit.name,
            kind=unit.kind,
            state=life.state,
            reason=life.reason,
            generation=life.generation,
            pid=unit.pid,
            restarts=unit.restarts,
            since_s=self._now() - life.since,
            ready_s=self._now() - life.since if is_ready else None,
            load_s=unit.load_s,
            leases=held,
            in_flight=unit.probe.in_flight,
            models=unit.probe.models,
        )


def _tell(unit: Unit, before: Lifecycle) -> None:
    """A line for every change of state; and how long a start took."""
    life = unit.life
    if life.state is before.state:
        if life.state is State.STARTING and before.has_process and not life.has_process:
            log.warning("engine not started", backend=unit.name, generation=life.generation, reason=life.reason)
        return
    match life.state:
        case State.READY:
            took_s = life.since - before.since
            unit.load_s = None if unit.policy.is_attached else took_s
            log.info("engine ready", backend=unit.name, generation=life.generation, seconds=round(took_s, 2))
        case State.FAILED:
            log.error("engine failed", backend=unit.name, generation=life.generation, reason=life.reason)
        case State.STOPPED:
            log.info("engine stopped", backend=unit.name, generation=life.generation)
        case State.STOPPING:
            log.info("engine stopping", backend=unit.name, generation=life.generation)
        case State.STARTING if before.state is State.READY:
            log.warning("engine lost", backend=unit.name, generation=life.generation, reason=life.reason)
