"""How much memory each engine is expected to take, and how that is known: given, else measured, else estimated."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from app.supervisor.capacity.measurements import MeasurementStore, fingerprint
from app.supervisor.capacity.placement import Machine
from backends.config.base import BackendConfig, ManagedConfig
from backends.engine import Need
from backends.kinds import preflight
from backends.process.footprint import Footprint

Source = Literal["given", "measured", "estimated"]


@dataclass(frozen=True, slots=True)
class Size:
    """What one engine needs. `source`: how its host memory is known; None when it is not, and not counted."""

    need: Need
    source: Source | None = None
    estimated_gb: float | None = None
    footprint: Footprint | None = None


def sized(need: Need, estimated_gb: float | None, footprint: Footprint | None) -> Size:
    """The size for a `need` as configured, with the best that is known of its host memory in GB. Pure."""
    if need.memory_gb:
        return Size(need, "given", estimated_gb, footprint)
    if footprint is not None and footprint.resident_gb:
        guess = replace(need, memory_gb=footprint.resident_gb, is_guess=True)
        return Size(guess, "measured", estimated_gb, footprint)
    if estimated_gb:
        return Size(replace(need, memory_gb=estimated_gb, is_guess=True), "estimated", estimated_gb, footprint)
    return Size(need, None, None, footprint)


def is_on_cpu(config: ManagedConfig, machine: Machine) -> bool:
    """Whether an engine computes on the CPU, in the host's memory, as far as that is known."""
    if machine.gpus or machine.has_unknown_gpus:
        return config.is_cpu_only()
    return True


def _estimated_gb(config: ManagedConfig, machine: Machine) -> float | None:
    host_gb = machine.host_gb or machine.memory_gb
    return preflight(config).estimated_gb(host_gb) if is_on_cpu(config, machine) else None


@dataclass(frozen=True, slots=True)
class _KnownEngine:
    config: ManagedConfig
    fingerprint: str
    estimated_gb: float | None


class Sizes:
    """The sizes of all engines. Of one that `refresh` has not looked at, only its configuration is known."""

    def __init__(self, measurements: MeasurementStore | None = None) -> None:
        self._measurements = measurements or MeasurementStore()
        self._known: Mapping[str, _KnownEngine] = {}

    def __repr__(self) -> str:
        return f"<Sizes of {list(self._known)}>"

    def refresh(self, backends: Mapping[str, BackendConfig], machine: Machine) -> None:
        """Take these as the engines from now on. Blocks: it looks at their files."""
        self._known = {
            name: _KnownEngine(
                config,
                fingerprint(config, bool(machine.gpus)),
                _estimated_gb(config, machine),
            )
            for name, backend in backends.items()
            if (config := backend.as_managed()) is not None
        }

    def of(self, name: str, config: ManagedConfig) -> Size:
        """What an engine needs, as far as that is known now."""
        known = self._known.get(name)
        if known is None or known.config != config:
            return sized(config.need(), None, None)
        return sized(config.need(), known.estimated_gb, self._measurements.get(known.fingerprint))

    async def keep(self, name: str, config: ManagedConfig, footprint: Footprint) -> None:
        """Remember what an engine took now that it serves."""
        known = self._known.get(name)
        if known is not None and known.config == config:
            await asyncio.to_thread(self._measurements.put, known.fingerprint, name, footprint)
