"""One backend of the fleet: its configuration, its engine, its life, and what is known of it.

Its attributes are written here only. What belongs to others is an object of its own with one writer: what scheduling
knows (`Occupancy`), what the configuration is to make of it (`PendingChange`), its processes and tasks (`Runner`), its
adapters (`AdapterSet`), its starts until now (`StartRecord`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from app.supervisor.capacity.gpu_quarantine import GpuQuarantine
from app.supervisor.capacity.occupancy import Occupancy
from app.supervisor.capacity.sizes import Sizes
from app.supervisor.fleet.past_lives import StartRecord
from app.supervisor.fleet.runner import Runner
from app.supervisor.relays import table_rows
from app.supervisor.replicas.adapters import AdapterSet
from app.supervisor.replicas.pending_change import PendingChange
from backends.config.base import BackendConfig
from backends.endpoint import State
from backends.engine import Engine, Need, Probe
from backends.kinds import kind_of
from backends.lifecycle.events import Action, Event, Probed, Stalled
from backends.lifecycle.machine import step
from backends.lifecycle.phases import Intent, Lifecycle, Phase, Policy


@dataclass(frozen=True, slots=True)
class Shared:
    """What all units of a fleet have in common. `post`: this happened to that unit. `random`: a number in [0, 1)."""

    state_id: str
    post: Callable[[Unit, Event], None]
    random: Callable[[], float]
    engine: Callable[[str, BackendConfig], Engine]
    sizes: Sizes
    quarantine: GpuQuarantine


class Unit:
    """A backend by name; `probe` and `endpoint` are of the start that `life.generation` names.

    `entry`: its name in the configuration, where one entry may be several units. `is_implicit`: nobody configured
    it, it is only looked for. `generation`: how often an engine of this name was started before.
    """

    def __init__(
        self,
        name: str,
        config: BackendConfig,
        shared: Shared,
        *,
        entry: str,
        record: StartRecord,
        is_implicit: bool = False,
        generation: int = 0,
    ) -> None:
        self.name = name
        self.entry = entry
        self.is_implicit = is_implicit
        self.shared = shared
        self.life = Lifecycle(generation=generation)
        self.record = record
        self.occupancy = Occupancy()
        self.change = PendingChange()
        self.runner = Runner(self)
        self.become(config)

    def __repr__(self) -> str:
        return f"<Unit {self.name} {self.life.state.upper()} #{self.life.generation} pid={self.runner.pid}>"

    def become(self, config: BackendConfig) -> None:
        """Take this configuration; only while nothing of it runs."""
        self.config = config
        self.engine = self.shared.engine(self.name, config)
        managed = config.as_managed()
        self.policy = (
            Policy(
                is_fetched=self.engine.fetcher is not None,
                is_placed=True,
                start_timeout_s=managed.start_timeout_s,
                stop_grace_s=managed.stop_grace_s,
            )
            if managed is not None
            else Policy(is_attached=True)
        )
        self.need = self.shared.sizes.of(self.name, managed).need if managed is not None else Need()
        paths = managed.adapter_paths() if managed is not None else {}
        unproved = managed.unproved_adapters() if managed is not None else ()
        self.adapters = AdapterSet(self.name, paths, self.engine.adapters, unproved, self._spoilt)
        self.change.taken()
        self.reach_at(self.life.generation)
        self.probe = Probe(False)

    def apply(self, event: Event, now: float) -> tuple[Lifecycle, list[Action]]:
        """Let this happen to its life. Returns the life before and what is to be done; nothing of that is done yet."""
        before = self.life
        self.life, actions = step(before, event, now, self.policy)
        self.record.changed(before, self.life, event, now)
        return before, actions

    def post(self, event: Event) -> None:
        """This happened to it."""
        self.shared.post(self, event)

    def _spoilt(self, reason: str) -> None:
        """It computes no numbers any more: it is killed, which its clients are told, and started anew."""
        self.post(Stalled(self.life.generation, f"{reason}, so it is started anew"))

    def probed(self, generation: int, probe: Probe) -> None:
        """This start was asked how it is. What an answer leaves out is as it was."""
        known = self.probe
        if probe.is_up:
            is_told = probe.models is not None
            self.probe = probe if is_told else replace(probe, models=known.models, facts=known.facts)
        else:
            self.probe = replace(
                probe,
                models=known.models,
                facts=known.facts,
                version=known.version,
                metrics=known.metrics,
                warning=None,
            )
        self.post(Probed(generation, probe.is_up, probe.reason, is_dead=probe.is_dead))

    def reach_at(self, generation: int, port: int = 0, key: str = "") -> None:
        """This start listens there; without a port: where its configuration says."""
        self.endpoint = self.engine.endpoint(generation, port, key)

    async def measure(self) -> None:
        """Note what it takes of the machine now; it needs that from now on."""
        footprint = await self.runner.footprint()
        if footprint is None:
            return
        self.record.measured(footprint)
        managed = self.config.as_managed()
        if managed is not None:
            await self.shared.sizes.keep(self.name, managed, footprint)
            self.need = self.shared.sizes.of(self.name, managed).need

    def chance(self) -> float:
        """A number in [0, 1)."""
        return self.shared.random()

    def unlist(self, model: str) -> None:
        """It has no model of that name any more, as the next probe will say too."""
        if self.probe.models is not None and model in self.probe.models:
            self.probe = replace(self.probe, models=tuple(name for name in self.probe.models if name != model))

    def enlist(self, model: str) -> None:
        """It has a model of that name now, as the next probe will say too."""
        if self.probe.models is not None and model not in self.probe.models:
            self.probe = replace(self.probe, models=(*self.probe.models, model))

    @property
    def kind(self) -> str:
        """The kind of its engine, as the configuration names it."""
        return kind_of(self.config)

    @property
    def is_managed(self) -> bool:
        """We run its process."""
        return not self.policy.is_attached

    @property
    def starts_at_boot(self) -> bool:
        """It starts with the gateway, not when a request wants it."""
        managed = self.config.as_managed()
        return managed is None or managed.start == "boot"

    @property
    def is_pinned(self) -> bool:
        """It is never evicted."""
        managed = self.config.as_managed()
        return managed is not None and managed.pinned

    @property
    def sleep_level(self) -> int:
        """At which it sleeps instead of being stopped; 0: it cannot."""
        managed = self.config.as_managed()
        return managed.sleep_level() if managed is not None and self.engine.sleeper is not None else 0

    @property
    def devices(self) -> tuple[str, ...]:
        """The GPUs that it has."""
        place = self.occupancy.place
        return place.devices if place is not None else ()

    @property
    def reason(self) -> str | None:
        """Why it does not serve, for the administrator: with paths of this machine, which clients are not told."""
        reason = table_rows.explained(self, self.runner.in_full(self.life.reason))
        return reason or (self.occupancy.waits_for if self.life.is_queued else None)

    @property
    def is_to_follow(self) -> bool:
        """It stops for another configuration of it, which whoever waits gets started."""
        is_asked = self.change.next_config is not None and self.change.postponed_stop is None
        return is_asked and self.life.intent is not Intent.HELD and not self.change.is_leaving

    @property
    def is_pending(self) -> bool:
        """It is on its way to serve."""
        if self.life.state is State.READY:
            return False
        restarts = self.life.intent is Intent.RESTART or self.change.next_config is not None
        return self.life.state is State.STARTING or restarts

    @property
    def unload_at(self) -> float:
        """When it will have been idle for too long, on the scheduler's clock; infinite for never."""
        managed = self.config.as_managed()
        after_s = managed.unload_after_s if managed is not None else None
        idle_since = self.occupancy.idle_since
        return math.inf if after_s is None or idle_since is None else idle_since + after_s

    def expected_s(self, now: float) -> float | None:
        """How long until it serves, by what its last start took; None when it has never started."""
        load_s = self.record.load_s
        if (left_s := self.runner.fetch_left_s) is not None:
            return left_s + (load_s or 0.0)
        if load_s is None:
            return None
        is_starting = self.life.state is State.STARTING and self.life.has_process
        is_loading = is_starting and self.life.phase is not Phase.FETCHING
        return max(0.0, load_s - (now - self.life.since)) if is_loading else load_s
