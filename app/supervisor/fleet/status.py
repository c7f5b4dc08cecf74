"""One backend for people: what `status` and the administrator's interface say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.supervisor.admission.queue_counts import QueueCounts
from app.supervisor.ejection.ejected_model import EjectedModel
from app.supervisor.fleet.past_lives import LastFailure
from app.supervisor.fleet.unit import Unit
from app.supervisor.metrics.bucket_counts import BucketCounts
from app.supervisor.replicas.adapters import AdapterCounts, ProofRecord
from app.supervisor.replicas.rolling_update import UpdateProgress
from backends.endpoint import Dialect, Endpoint, State
from backends.engine import Probe
from backends.model_files.sources import Sources
from backends.process.footprint import Footprint


@dataclass(frozen=True, slots=True)
class Daemon:
    """`url`: where it listens. `loaded`: its models in memory, by full name, with the bytes that they take."""

    url: str
    loaded: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """One backend for people. `since_s`: how long in this state; `load_s`: how long its last start took.

    `swaps`: how often it made way for another engine; `devices`: the GPUs it has now;
    `footprint`: what its last start was measured to take; `waiting`: requests that wait for its start or for a place,
    and `waiting_limit`: how many may. `starts`: the seconds of its starts, by how it came to serve. `refused`, `waits`:
    of its queue, where it has a limit (`QueueCounts`). `ejected`: the models that requests pass it over for now;
    `ejections`: how often it was ejected, by why.
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
    adapters: AdapterCounts = field(default_factory=AdapterCounts)
    waiting_limit: int | None = None
    starts: Mapping[str, BucketCounts] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    waits: Mapping[str, BucketCounts] = field(default_factory=dict)
    ejected: tuple[EjectedModel, ...] = ()
    ejections: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter of a backend. `reason`: why the engine has it not. `records`: how its latest load ended at each of
    the backend's engines.
    """

    name: str
    path: str
    reason: str | None = None
    records: tuple[ProofRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """What one start of an engine was made from. `sources`: what it read, None where that is not known; `adapters`: the
    same of each adapter that it is to have; `digests`, `num_ctx`: of a daemon's models by their full names.
    """

    name: str
    kind: str
    generation: int
    version: str | None = None
    models: tuple[str, ...] | None = None
    sources: Sources | None = None
    adapters: Mapping[str, Sources | None] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    num_ctx: Mapping[str, int | None] = field(default_factory=dict)


def started(unit: Unit) -> Started:
    """What its present start was made from."""
    probe = unit.probe
    return Started(
        name=unit.name,
        kind=unit.kind,
        generation=unit.life.generation,
        version=probe.version,
        models=probe.models,
        sources=unit.runner.sources,
        adapters={name: unit.adapters.sources.get(name) for name in unit.adapters.paths},
        digests=probe.digests,
        num_ctx={name: facts.num_ctx for name, facts in probe.facts.items()} if probe.digests else {},
    )


def status(
    unit: Unit,
    now: float,
    *,
    leases: int,
    waiting: int,
    progress: UpdateProgress | None,
    queue: QueueCounts | None = None,
) -> BackendStatus:
    """It, now. `leases`: requests that it works on; `waiting`: those that wait for it; `queue`: what that has seen."""
    life, record = unit.life, unit.record
    return BackendStatus(
        name=unit.name,
        kind=unit.kind,
        state=life.state,
        reason=unit.reason,
        generation=life.generation,
        pid=unit.runner.pid,
        restarts=record.restarts,
        since_s=now - life.since,
        load_s=record.load_s,
        leases=leases,
        in_flight=unit.probe.in_flight,
        models=unit.probe.models,
        swaps=unit.occupancy.swaps,
        devices=unit.devices,
        footprint=record.footprint,
        waiting=waiting,
        is_managed=unit.is_managed,
        replacement=progress,
        daemon=daemon(unit.endpoint, unit.probe),
        last_failure=record.past.failure(now),
        adapters=AdapterCounts(dict(unit.adapters.counts), len(unit.adapters.missing)),
        waiting_limit=unit.config.max_waiting if unit.is_managed or unit.config.limit() is not None else None,
        starts=record.past.starts,
        refused=queue.refused if queue is not None else {},
        waits=queue.waits if queue is not None else {},
    )


def daemon(endpoint: Endpoint, probe: Probe) -> Daemon | None:
    """The daemon behind an endpoint; None for every other engine."""
    if endpoint.dialect is not Dialect.OLLAMA:
        return None
    return Daemon(endpoint.address, {name: each.memory_bytes for name, each in probe.facts.items() if each.is_loaded})
