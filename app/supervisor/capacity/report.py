"""What `modelport plan` shows: where each configured engine would run on this machine, with what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from app.config.model import Config
from app.supervisor.admin.plan_schemas import GpuAnswer, PlanAnswer, RelayPlan, SeatAnswer
from app.supervisor.capacity import devices
from app.supervisor.capacity.forecast import Entry, ForecastRow, forecast
from app.supervisor.capacity.measurements import MeasurementStore
from app.supervisor.capacity.placement import Gpu, Machine
from app.supervisor.capacity.sizes import Size, Sizes, is_on_cpu
from app.supervisor.replicas import replicas
from backends.config.base import BackendConfig, ManagedConfig
from backends.kinds import preflight
from backends.process.cores import usable_cores
from backends.process.footprint import Footprint

MOST_AUTO: Final = 8  # a relay carries thousands of requests a second: more than these serve no engines of one machine


def plan(
    config: Config,
    machine: Machine,
    measurements: MeasurementStore,
    quarantined: Mapping[str, str] | None = None,
    running: Mapping[str, float] | None = None,
) -> PlanAnswer:
    """The forecast for all engines that the gateway runs itself. Blocks: it looks at model files.

    `quarantined`: GPUs in quarantine, with the reason; `running`: engines that have started, each with its host memory
    in GB.
    """
    running = running or {}
    if machine.free_gb is not None:
        machine = replace(machine, free_gb=machine.free_gb + sum(running.values()))
    backends = _managed(config)
    sizes = Sizes(measurements)
    sizes.refresh(backends, machine)
    size_of = {name: sizes.of(name, backend) for name, backend in backends.items()}
    entries = [_entry(name, backend, size_of[name], machine, name in running) for name, backend in backends.items()]
    rows = forecast(entries, machine, devices.shm_bytes(), quarantined or {})
    return PlanAnswer(
        memory_gb=round(machine.memory_gb, 3),
        relays=relays(config, machine, usable_cores()),
        gpus=tuple(_gpu(gpu, quarantined or {}) for gpu in machine.gpus),
        seats=tuple(_seat(row, size_of[row.entry.name], backends[row.entry.name]) for row in rows),
    )


def relays(config: Config, machine: Machine, cores: int) -> RelayPlan:
    """How many relays: as many as are set, or (`auto`) one for each core that engines leave, 1 to MOST_AUTO.

    Engines keep busy what those at the start do together, and the neediest one of those that come when they are wanted.
    """
    at_boot, later = 0, 0
    for backend in _managed(config).values():
        busy = backend.cores(cores, is_on_cpu=is_on_cpu(backend, machine))
        if backend.start == "boot":
            at_boot += busy
        else:
            later = max(later, busy)
    engine_cores = min(cores, at_boot + later)
    wanted = config.server.relays
    count = max(1, min(MOST_AUTO, cores - engine_cores)) if wanted == "auto" else wanted
    return RelayPlan(count=count, is_auto=wanted == "auto", cores=cores, engine_cores=engine_cores)


def _managed(config: Config) -> dict[str, ManagedConfig]:
    expanded: Mapping[str, BackendConfig] = replicas.expand(config.backends)
    return {name: managed for name, backend in expanded.items() if (managed := backend.as_managed()) is not None}


def _entry(name: str, config: ManagedConfig, size: Size, machine: Machine, has_started: bool) -> Entry:
    files = preflight(config)
    is_asked = not has_started and machine.host_gb is not None and is_on_cpu(config, machine)
    return Entry(
        name=name,
        need=size.need,
        starts_at_boot=config.start == "boot",
        workers=config.workers(),
        weights_gb=files.weights_gb(),
        measured_gb=size.footprint.resident_gb if size.footprint is not None else None,
        source=size.source,
        demanded_gb=files.demanded_gb(machine.host_gb) if is_asked and machine.host_gb is not None else None,
    )


def _gpu(gpu: Gpu, quarantined: Mapping[str, str]) -> GpuAnswer:
    return GpuAnswer(
        uuid=gpu.uuid,
        index=gpu.index,
        memory_gb=round(gpu.memory_gb, 3),
        is_mig=gpu.is_mig,
        quarantine=quarantined.get(gpu.uuid),
    )


def _seat(row: ForecastRow, size: Size, config: ManagedConfig) -> SeatAnswer:
    footprint = size.footprint or Footprint()
    return SeatAnswer(
        backend=row.entry.name,
        fits=row.allocation is not None,
        is_possible=row.is_possible,
        memory_gb=_rounded(size.need.memory_gb or None),
        memory_source=size.source,
        devices=row.allocation.devices if row.allocation is not None else (),
        share=row.allocation.share if row.allocation is not None else 0.0,
        weights_gb=_rounded(row.entry.weights_gb),
        estimated_gb=_rounded(size.estimated_gb),
        measured_gb=footprint.resident_gb,
        device_gb=footprint.device_gb,
        loaded_weights_gb=footprint.weights_gb,
        kv_gb=footprint.kv_gb,
        kv_tokens=footprint.kv_tokens,
        notes=row.notes,
        lacks=tuple(f"{key}: {problem}" for key, problem in preflight(config).missing()),
    )


def _rounded(size: float | None) -> float | None:
    return None if size is None else round(size, 3)
