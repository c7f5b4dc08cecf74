"""All backends as one: what the relays, the administrator and the configuration may ask and order of them.

Nothing is decided about one life here: orders become events, and app/supervisor/fleet/event_loop.py applies them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from app.ipc import NO_CLAIM, Claim
from app.supervisor.capacity.gpu_quarantine import GpuQuarantine, Quarantine
from app.supervisor.capacity.schedule import Capacity
from app.supervisor.capacity.sizes import Sizes
from app.supervisor.fleet.event_loop import EventLoop, LeaseView
from app.supervisor.fleet.past_lives import Log, PastLives, StartRecord
from app.supervisor.fleet.retry_failed import RetryFailed
from app.supervisor.fleet.status import Adapter, BackendStatus, Started, started, status
from app.supervisor.fleet.unit import Shared, Unit
from app.supervisor.fleet.waiters import Waiters, WaitOutcome
from app.supervisor.replicas import adapter_orders, replicas
from app.table import Backend
from backends import kinds
from backends.config.base import BackendConfig
from backends.endpoint import Endpoint, State
from backends.engine import Engine
from backends.lifecycle.events import Event, Start, StopAsked
from backends.lifecycle.phases import Intent
from backends.process import process

WAIT_S: Final = 600.0  # the relay limits each request itself; this only ends waits that nobody needs any more
CANCELLED_S: Final = 5.0  # for tasks that were cancelled to end


class Fleet:
    """All backends. `publish` gets every change of their rows and returns the version of the table made of them.

    `implicit`: names of backends that nobody configured; they are logged quietly while they are not there. `drain_s`:
    how long leases are waited for when a backend is stopped, restarted, changed or removed. `wait_s`: how long a
    request waits for a backend that does not say how long itself.
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
        implicit: Collection[str] = (),
        capacity: Capacity | None = None,
        wait_s: float = WAIT_S,
        sizes: Sizes | None = None,
        quarantine: GpuQuarantine | None = None,
    ) -> None:
        self.drain_s = drain_s
        self._leases = leases
        self._now = now
        self._implicit = implicit
        self._pasts: dict[str, PastLives] = {}
        self._quarantine = quarantine or GpuQuarantine(tuple)
        self._event_loop = EventLoop(publish, leases, now, capacity or Capacity())
        self._shared = Shared(state_id, self._event_loop.post, random, engine, sizes or Sizes(), self._quarantine)
        self._event_loop.guard(self._quarantine)
        self._waiters = Waiters(self._event_loop, now, wait_s)
        self._retry_failed = RetryFailed(self._event_loop.everyone, self._event_loop.turn)
        self._event_loop.follow(replicas.firsts(backends))
        for name, config in replicas.expand(backends).items():
            self._event_loop.units[name] = self._unit(name, config)

    def __repr__(self) -> str:
        return f"<Fleet {list(self._event_loop.units.values())}>"

    async def run(self) -> None:
        """Start what starts at boot and keep it running, until `close`. However this ends, no process is left."""
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

    async def wanted(self, backend: str, claim: Claim = NO_CLAIM) -> WaitOutcome:
        """Make it serve, and admit one request to it (`Waiters.wanted`)."""
        return await self._waiters.wanted(backend, claim)

    def is_full(self, backend: str) -> bool:
        """Whether it has as many requests as it works on at a time."""
        return self._waiters.is_full(backend)

    def failing(self, backend: str, generation: int, *, is_not_finite: bool = False) -> None:
        """A relay could not reach this start of it: it is probed now. `is_not_finite`: it answered what are no numbers,
        so its adapters are proved again.
        """
        unit = self._event_loop.units.get(backend)
        if unit is not None and unit.life.generation == generation:
            if is_not_finite:
                unit.adapters.suspect()
            else:
                unit.runner.look()

    def leases_changed(self) -> None:
        """The leases that the relays hold, or the table that they have applied, are different now."""
        self._event_loop.leases_changed()

    async def start(self, backend: str) -> None:
        """Start it, and forget its failures until now. Returns at once; KeyError for an unknown name."""
        for unit in self._event_loop.replicas(backend):
            self._event_loop.scheduler.request(unit)
        self._order(backend, Start())

    async def stop(self, backend: str) -> None:
        """Drain and stop it, until it is started by hand. Returns at once."""
        self._order(backend, StopAsked(self.drain_s, Intent.HELD))

    async def restart(self, backend: str) -> None:
        """Drain, stop and start it again. Returns at once."""
        self._order(backend, StopAsked(self.drain_s, Intent.RESTART))

    def share(self, capacity: Capacity) -> None:
        """Share the machine out like this from now on; engines that have a place keep it. Quarantines are lifted."""
        self._event_loop.scheduler.capacity = capacity
        self._quarantine.lift()

    @property
    def quarantined(self) -> Sequence[Quarantine]:
        """GPUs that nothing is placed on for now."""
        return tuple(self._quarantine.quarantined.values())

    async def reload(self, backends: Mapping[str, BackendConfig], *, is_requested: bool = True) -> None:
        """Have these backends from now on: unchanged ones are left alone, failed ones are tried again if the
        administrator asked for the reload (`is_requested`).

        Returns at once; changed ones drain, stop and start again afterwards.
        """
        if self._event_loop.is_closing:
            return
        self._event_loop.is_reloading = True
        try:
            self._apply(backends, is_requested=is_requested)
        finally:
            self._event_loop.is_reloading = False
        self._event_loop.turn()

    def _apply(self, entries: Mapping[str, BackendConfig], *, is_requested: bool) -> None:
        self._event_loop.follow(replicas.firsts(entries))
        backends = replicas.expand(entries)
        self._pasts = {name: past for name, past in self._pasts.items() if name in backends}
        for unit in [unit for name, unit in self._event_loop.units.items() if name not in backends]:
            self._event_loop.cancel_replacement(unit.name)
            unit.change.leave()
            self._event_loop.stop_when_spared(unit, self.drain_s)
        for name, config in backends.items():
            unit = self._event_loop.units.get(name) or self._join(name, config)
            replacement = self._event_loop.replacements.get(name)
            if replacement is not None and config != replacement.config:
                self._event_loop.cancel_replacement(name)
                replacement = None
            refused = unit.change.refused
            is_known = refused is not None and refused.config == config and not is_requested
            is_new = unit.change.is_leaving or config != (unit.change.next_config or unit.config)
            if replacement is None and is_new and not is_known:
                self._replace(unit, config)
            elif unit.life.state is State.FAILED and is_requested:
                self._event_loop.post(unit, Start())
            elif config == unit.config:
                unit.change.forgive()

    def stop_waiting(self) -> None:
        """The gateway ends: requests that wait for an engine are refused now."""
        self._event_loop.is_ending = True
        for unit in self._event_loop.units.values():
            self._event_loop.waiting.wake(unit)

    async def close(self, drain_s: float) -> None:
        """Take all out of routing, wait `drain_s` for the leases, then stop them. Returns when nothing is left."""
        self._event_loop.is_closing = True
        self._quarantine.stop_waiting()
        for unit in self._event_loop.everyone():
            unit.change.close()
            self._event_loop.post(unit, StopAsked(drain_s, Intent.HELD))
        await self._event_loop.drive(self._event_loop.is_at_rest)
        if self._event_loop.failure is not None:
            await self._abandon()
        for unit in [*self._event_loop.everyone(), *self._event_loop.ended]:
            await unit.runner.gone()
        await self._quarantine.close()

    def started(self) -> Sequence[Started]:
        """What each start that serves now was made from."""
        return [started(unit) for unit in self._event_loop.units.values() if unit.life.state is State.READY]

    def engine_metrics(self) -> Sequence[tuple[str, str, Endpoint]]:
        """The engines that serve and show metrics of their own, as (backend, URL, endpoint)."""
        units = [unit for unit in self._event_loop.units.values() if unit.life.state is State.READY]
        return [(unit.name, unit.probe.metrics, unit.endpoint) for unit in units if unit.probe.metrics is not None]

    def status(self) -> Sequence[BackendStatus]:
        """Every backend, in the order of the configuration."""
        return [
            status(
                unit,
                self._now(),
                leases=sum(self._leases.held(unit.name, generation) for generation in {0, unit.life.generation}),
                waiting=self._waiters.waiting(unit.name),
                progress=self._event_loop.update_progress(unit),
                queue=self._waiters.counts(unit),
            )
            for unit in self._event_loop.units.values()
        ]

    def adapters(self, backend: str) -> Sequence[Adapter]:
        """Its adapters, loaded or not; KeyError for an unknown backend."""
        units = self._event_loop.replicas(backend)
        return [
            Adapter(
                name,
                path,
                next((why for one in units if (why := one.adapters.explained(name))), None),
                tuple(record for one in units if (record := one.adapters.records.get(name)) is not None),
            )
            for name, path in units[0].adapters.paths.items()
        ]

    async def load_adapter(self, backend: str, name: str, path: str, *, is_proved: bool = True) -> None:
        """Serve it from now on, also after restarts, until a reload that changes the backend's configuration.

        BackendError when an engine refuses it, or it does not prove itself: then no engine has it. KeyError for an
        unknown backend. `is_proved`: it is held against the base's answers.
        """
        await adapter_orders.load(self._event_loop, backend, name, path, is_proved=is_proved)

    async def unload_adapter(self, backend: str, name: str) -> None:
        """Stop serving it; requests that use it have `drain_s`. KeyError for an unknown backend or adapter."""
        await adapter_orders.unload(self._event_loop, self._leases, backend, name, self.drain_s)

    def log_tail(self, backend: str) -> list[str]:
        """The last lines that its latest process wrote; KeyError for an unknown name."""
        return self._event_loop.units[backend].runner.tail()

    def log(self, backend: str, life: int | None = None) -> Log | None:
        """What one start of it wrote at last: `life` is its generation, or counts back from the latest (-1: the one
        before it). None when that start is not known, or no longer; KeyError for an unknown name.
        """
        unit = self._event_loop.units[backend]
        return unit.record.past.log(life, unit.runner.tail())

    def _unit(self, name: str, config: BackendConfig, record: StartRecord | None = None) -> Unit:
        # A name that was removed and comes back goes on counting: no lease of its earlier starts fits a new one.
        before = [*self._event_loop.everyone(), *self._event_loop.ended]
        past = self._pasts.setdefault(name, PastLives())
        return Unit(
            name,
            config,
            self._shared,
            entry=self._event_loop.scheduler.firsts.get(name, name),
            record=record or StartRecord(past),
            is_implicit=name in self._implicit,
            generation=max((unit.life.generation for unit in before if unit.name == name), default=0),
        )

    def _join(self, name: str, config: BackendConfig) -> Unit:
        unit = self._event_loop.units[name] = self._unit(name, config)
        if unit.starts_at_boot:
            self._event_loop.post(unit, Start())
        return unit

    def _replace(self, unit: Unit, config: BackendConfig) -> None:
        unit.change.forgive()
        change = unit.change
        is_pending = change.next_config is not None and change.postponed_stop is None
        is_untouched = unit.life.state is State.READY and not is_pending
        if is_untouched and config == unit.config:
            change.stay()  # it was only to change, or to leave
            return
        if unit.life.state is State.READY and not change.is_leaving and self._is_counted(config):
            # There may be room for both: the old one serves until the new one does.
            self._event_loop.replace_beside(unit, self._unit(unit.name, config, unit.record.carried_on()), self.drain_s)
            return
        change.take(config, starts_after=unit.life.state not in (State.STOPPED, State.FAILED))
        self._event_loop.stop_when_spared(unit, self.drain_s)

    def _is_counted(self, config: BackendConfig) -> bool:
        """Whether it is known what it takes of the machine, so that a second one may be started beside it."""
        managed = config.as_managed()
        if managed is None:
            return False
        need = managed.need()
        return need.memory_gb > 0 or (need.gpus > 0 and bool(self._event_loop.scheduler.capacity.machine.gpus))

    def _order(self, backend: str, event: Event) -> None:
        for unit in self._event_loop.replicas(backend):
            if isinstance(event, Start) and unit.life.state is State.READY:
                if unit.change.refused is not None:
                    self._replace(unit, unit.change.refused.config)
            elif not self._event_loop.is_closing:
                replacement = self._event_loop.cancel_replacement(unit.name)
                if replacement is not None:
                    unit.change.take(replacement.config, starts_after=False)
                unit.change.postpone(None)
                self._event_loop.post(unit, event)

    async def _abandon(self) -> None:
        """Kill what is left, however the fleet ended."""
        self._event_loop.is_closing = True
        self._quarantine.stop_waiting()
        units = [*self._event_loop.everyone(), *self._event_loop.ended]
        for unit in units:
            unit.runner.unwatch()
            unit.runner.kill()
        endings = [asyncio.create_task(unit.runner.gone()) for unit in units]
        if endings:
            await asyncio.wait(endings, timeout=CANCELLED_S)

    def pending(self) -> tuple[str, ...]:
        """The names of those that do not have their new configuration yet, or are starting or stopping."""
        under_way = (State.STARTING, State.STOPPING)
        return tuple(
            unit.name
            for unit in self._event_loop.units.values()
            if self._event_loop.update_progress(unit) is not None
            or (unit.is_managed and (unit.change.is_leaving or unit.life.state in under_way))
        )
