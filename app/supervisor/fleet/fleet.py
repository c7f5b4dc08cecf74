"""What may be asked and ordered of all backends: by the relays, the administrator and the configuration.

It decides nothing about one life: orders become events, and app/supervisor/fleet/event_loop.py applies them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.supervisor.capacity.gpu_quarantine import GpuQuarantine, Quarantine
from app.supervisor.capacity.schedule import Capacity
from app.supervisor.capacity.sizes import Sizes
from app.supervisor.fleet.daemons import Daemon, daemon
from app.supervisor.fleet.event_loop import EventLoop, LeaseView
from app.supervisor.fleet.past_lives import LastFailure, Log, PastLives
from app.supervisor.fleet.retry_failed import RetryFailed
from app.supervisor.fleet.unit import Unit
from app.supervisor.fleet.waiters import Waiters, WaitOutcome
from app.supervisor.replicas import adapter_orders, replicas
from app.supervisor.replicas.rolling_update import UpdateProgress
from app.table import Backend
from backends import kinds
from backends.config.base import BackendConfig
from backends.endpoint import State
from backends.engine import Engine
from backends.lifecycle.events import Event, Start, StopAsked
from backends.lifecycle.phases import Intent
from backends.process import process
from backends.process.footprint import Footprint

WAIT_S: Final = 600.0  # a request's own limit is the relay's; this one only ends what nobody waits for
CANCELLED_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """One backend for people. `since_s`: how long in this state; `load_s`: how long its last start took.

    `swaps`: how often it made way for another engine; `devices`: the GPUs it has now;
    `footprint`: what its last start was measured to take; `waiting`: requests that wait for a place.
    """

    name: str
    kind: str
    state: State
    reason: str | None
    generation: int
    pid: int | None
    restarts: int
    since_s: float
    load_s: float | None
    leases: int
    in_flight: int | None
    models: tuple[str, ...] | None
    swaps: int = 0
    devices: tuple[str, ...] = ()
    footprint: Footprint | None = None
    waiting: int = 0
    is_managed: bool = True
    replacement: UpdateProgress | None = None
    daemon: Daemon | None = None
    last_failure: LastFailure | None = None


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter of a backend. `reason`: why the engine has it not."""

    name: str
    path: str
    reason: str | None = None


class Fleet:
    """All backends. `publish` is told every change of their rows and returns the version of the table made of them.

    Of the `unasked` ones, which nobody configured, nothing is said until they are found.
    """

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
        unasked: Collection[str] = (),
        capacity: Capacity | None = None,
        wait_s: float = WAIT_S,
        sizes: Sizes | None = None,
        quarantine: GpuQuarantine | None = None,
    ) -> None:
        self.drain_s = drain_s  # for what is stopped, restarted, changed or removed while the gateway runs
        self._state_id = state_id
        self._leases = leases
        self._now = now
        self._random = random
        self._engine = engine
        self._unasked = unasked
        self._pasts: dict[str, PastLives] = {}
        self._sizes = sizes or Sizes()
        self._quarantine = quarantine or GpuQuarantine(tuple)
        self._event_loop = EventLoop(publish, leases, now, capacity or Capacity())
        self._event_loop.guard(self._quarantine)
        self._waiters = Waiters(self._event_loop, now, wait_s)
        self._retry_failed = RetryFailed(self._event_loop.everyone, self._event_loop.turn)
        self._event_loop.follow(replicas.firsts(backends))
        for name, config in replicas.expand(backends).items():
            self._event_loop.units[name] = self._unit(name, config)

    def __repr__(self) -> str:
        return f"<Fleet {list(self._event_loop.units.values())}>"

    async def run(self) -> None:
        """Start what starts at boot and keep it running; returns after `close`. However it ends, nothing is left."""
        process.adopt_orphans()
        self._event_loop.turn(must_publish=True)
        retrying = asyncio.create_task(self._retry_failed.run(), name="retrying")
        try:
            for unit in list(self._event_loop.units.values()):
                if unit.starts_at_boot and not self._event_loop.is_closing:
                    self._event_loop.post(unit, Start())
            await self._event_loop.drive(lambda: self._event_loop.is_closing and self._event_loop.is_at_rest())
            if self._event_loop.failure is not None:
                raise self._event_loop.failure
        finally:
            retrying.cancel()
            await self._abandon()

    @property
    def wait_s(self) -> float:
        """How long a request waits for a backend that does not say how long itself."""
        return self._waiters.wait_s

    @wait_s.setter
    def wait_s(self, seconds: float) -> None:
        self._waiters.wait_s = seconds

    async def wanted(self, backend: str) -> WaitOutcome:
        """Make it serve, and admit one request to it (app/supervisor/fleet/waiters.py)."""
        return await self._waiters.wanted(backend)

    def failing(self, backend: str, generation: int) -> None:
        """A relay could not reach this start of it: look at it now."""
        unit = self._event_loop.units.get(backend)
        if unit is not None and unit.life.generation == generation:
            unit.look()

    def leases_changed(self) -> None:
        """What the relays hold or have applied is different now."""
        self._event_loop.notice()

    async def start(self, backend: str) -> None:
        """Start it; failures before are forgiven. Returns at once; KeyError for an unknown name."""
        for unit in self._event_loop.replicas(backend):
            unit.requested_by_admin = True
        self._order(backend, Start())

    async def stop(self, backend: str) -> None:
        """Drain and stop it, until it is started by hand. Returns at once."""
        self._order(backend, StopAsked(self.drain_s, Intent.HELD))

    async def restart(self, backend: str) -> None:
        """Drain, stop and start it again. Returns at once."""
        self._order(backend, StopAsked(self.drain_s, Intent.RESTART))

    def share(self, capacity: Capacity) -> None:
        """From now on the machine is shared out as this says; who has a place keeps it. No quarantine stays."""
        self._event_loop.scheduler.capacity = capacity
        self._quarantine.lift()

    @property
    def quarantined(self) -> Sequence[Quarantine]:
        """GPUs that nothing is placed on for now."""
        return tuple(self._quarantine.quarantined.values())

    async def reload(self, backends: Mapping[str, BackendConfig], *, is_wished: bool = True) -> None:
        """Have these backends from now on: unchanged ones are not touched, failed ones get a new chance where somebody
        wished the reload.

        Returns at once; what changed drains, stops and starts anew behind it.
        """
        if self._event_loop.is_closing:
            return
        self._event_loop.is_reloading = True
        try:
            self._told(backends, is_wished=is_wished)
        finally:
            self._event_loop.is_reloading = False
        self._event_loop.turn()

    def _told(self, entries: Mapping[str, BackendConfig], *, is_wished: bool) -> None:
        self._event_loop.follow(replicas.firsts(entries))
        backends = replicas.expand(entries)
        self._pasts = {name: past for name, past in self._pasts.items() if name in backends}
        for unit in [unit for name, unit in self._event_loop.units.items() if name not in backends]:
            self._event_loop.cancel_replacement(unit.name)
            unit.is_leaving = True
            unit.successor = unit.parting = None
            self._event_loop.part(unit, self.drain_s)
        for name, config in backends.items():
            unit = self._event_loop.units.get(name) or self._join(name, config)
            replacement = self._event_loop.replacements.get(name)
            if replacement is not None and config != replacement.config:
                self._event_loop.cancel_replacement(name)
                replacement = None
            is_known = unit.refused is not None and unit.refused.config == config and not is_wished
            if replacement is None and (unit.is_leaving or config != (unit.successor or unit.config)) and not is_known:
                self._replace(unit, config)
            elif unit.life.state is State.FAILED and is_wished:
                self._event_loop.post(unit, Start())
            elif config == unit.config:
                unit.refused = None

    def hurry(self) -> None:
        """The gateway ends: whoever waits for an engine that does not serve yet is told so now."""
        self._event_loop.is_ending = True
        for unit in self._event_loop.units.values():
            unit.answer()

    async def close(self, drain_s: float) -> None:
        """Everything out of routing; leases have `drain_s`; then all stop. Returns when nothing is left."""
        self._event_loop.is_closing = True
        self._quarantine.stop_waiting()
        for unit in self._event_loop.everyone():
            unit.successor = unit.parting = None
            unit.is_closing = True
            self._event_loop.post(unit, StopAsked(drain_s, Intent.HELD))
        await self._event_loop.drive(self._event_loop.is_at_rest)
        if self._event_loop.failure is not None:
            await self._abandon()
        for unit in [*self._event_loop.everyone(), *self._event_loop.ended]:
            await unit.gone()
        await self._quarantine.close()

    def status(self) -> Sequence[BackendStatus]:
        """Every backend, in the order of the configuration."""
        return [self._status(unit) for unit in self._event_loop.units.values()]

    def adapters(self, backend: str) -> Sequence[Adapter]:
        """Those it is to have; KeyError for an unknown backend."""
        units = self._event_loop.replicas(backend)
        return [
            Adapter(name, path, next((why for one in units if (why := one.adapters.told(name))), None))
            for name, path in units[0].adapters.paths.items()
        ]

    async def load_adapter(self, backend: str, name: str, path: str) -> None:
        """Serve it from now on, and after every start again, until a reload of the configuration that changes the
        backend. BackendError when an engine refuses it, which changes nothing at any; KeyError for an unknown backend.
        """
        await adapter_orders.load(self._event_loop, backend, name, path)

    async def unload_adapter(self, backend: str, name: str) -> None:
        """Serve it no longer: requests that use it have `drain_s`. KeyError for an unknown backend or adapter."""
        await adapter_orders.unload(self._event_loop, self._leases, backend, name, self.drain_s)

    def log_tail(self, backend: str) -> list[str]:
        """The last lines its latest process wrote; KeyError for an unknown name."""
        return self._event_loop.units[backend].log_tail()

    def log(self, backend: str, life: int | None = None) -> Log | None:
        """What a life of it wrote at last; KeyError for an unknown name. None: there is no such life, or no longer."""
        unit = self._event_loop.units[backend]
        return unit.past.log(life, unit.log_tail())

    def _unit(self, name: str, config: BackendConfig) -> Unit:
        # A name that left and came back goes on counting: no lease of its earlier life fits the new one.
        before = [*self._event_loop.everyone(), *self._event_loop.ended]
        generation = max((unit.life.generation for unit in before if unit.name == name), default=0)
        make, random, sizes = self._engine, self._random, self._sizes
        unit = Unit(
            name, config, self._state_id, self._event_loop.post, random, make, sizes, self._quarantine, generation
        )
        unit.is_unasked = name in self._unasked
        unit.entry = self._event_loop.scheduler.firsts.get(name, name)
        unit.past = self._pasts.setdefault(name, unit.past)
        return unit

    def _join(self, name: str, config: BackendConfig) -> Unit:
        unit = self._event_loop.units[name] = self._unit(name, config)
        if unit.starts_at_boot:
            self._event_loop.post(unit, Start())
        return unit

    def _replace(self, unit: Unit, config: BackendConfig) -> None:
        unit.refused = None
        is_untouched = unit.life.state is State.READY and (unit.parting is not None or unit.successor is None)
        if is_untouched and config == unit.config:
            unit.successor = unit.parting = None  # it was only to change, or to leave
            unit.is_leaving = False
            return
        if unit.life.state is State.READY and not unit.is_leaving and self._is_counted(config):
            # There may be room for both: the old one serves until the new one does.
            self._event_loop.replace_beside(unit, self._unit(unit.name, config), self.drain_s)
            return
        unit.starts_after = unit.starts_after or unit.life.state not in (State.STOPPED, State.FAILED)
        unit.is_leaving = False
        unit.successor = config
        self._event_loop.part(unit, self.drain_s)

    def _is_counted(self, config: BackendConfig) -> bool:
        """Whether it is known what it takes, so that a second one beside it is no gamble."""
        managed = config.as_managed()
        if managed is None:
            return False
        need = managed.need()
        return need.memory_gb > 0 or (need.gpus > 0 and bool(self._event_loop.scheduler.capacity.machine.gpus))

    def _order(self, backend: str, event: Event) -> None:
        for unit in self._event_loop.replicas(backend):
            if isinstance(event, Start) and unit.life.state is State.READY:
                if unit.refused is not None:
                    self._replace(unit, unit.refused.config)
            elif not self._event_loop.is_closing:
                replacement = self._event_loop.cancel_replacement(unit.name)
                unit.successor = replacement.config if replacement is not None else unit.successor
                unit.parting = None
                self._event_loop.post(unit, event)

    async def _abandon(self) -> None:
        """Nothing outlives the fleet, however it ends."""
        self._event_loop.is_closing = True
        self._quarantine.stop_waiting()
        units = [*self._event_loop.everyone(), *self._event_loop.ended]
        for unit in units:
            unit.unwatch()
            unit.kill()
        endings = [asyncio.create_task(unit.gone()) for unit in units]
        if endings:
            await asyncio.wait(endings, timeout=CANCELLED_S)

    def pending(self) -> tuple[str, ...]:
        """Those that are not, or not yet, what their configuration says, and those that are on their way."""
        under_way = (State.STARTING, State.STOPPING)
        return tuple(
            unit.name
            for unit in self._event_loop.units.values()
            if self._event_loop.update_progress(unit) is not None
            or (unit.is_managed and (unit.is_leaving or unit.life.state in under_way))
        )

    def _status(self, unit: Unit) -> BackendStatus:
        life = unit.life
        held = sum(self._leases.held(unit.name, generation) for generation in {0, life.generation})
        return BackendStatus(
            name=unit.name,
            kind=unit.kind,
            state=life.state,
            reason=unit.reason,
            generation=life.generation,
            pid=unit.pid,
            restarts=unit.restarts,
            since_s=self._now() - life.since,
            load_s=unit.load_s,
            leases=held,
            in_flight=unit.probe.in_flight,
            models=unit.probe.models,
            swaps=unit.swaps,
            devices=unit.place.devices if unit.place is not None else (),
            footprint=unit.footprint,
            waiting=self._waiters.waiting(unit.name),
            is_managed=unit.is_managed,
            replacement=self._event_loop.update_progress(unit),
            daemon=daemon(unit.endpoint, unit.probe),
            last_failure=unit.past.failure(self._now()),
        )
