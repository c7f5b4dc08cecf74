"""What `modelport plan` shows: everything configured on the machine as it is, with what was measured."""

from __future__ import annotations

from collections.abc import Mapping

from app.config import Config
from app.supervisor import devices, replicas
from app.supervisor.answers import GpuAnswer, PlanAnswer, SeatAnswer
from app.supervisor.forecast import Entry, Seat, forecast
from app.supervisor.placement import Machine
from backends.config import ManagedConfig
from backends.footprint import Footprint, weights_gb


def plan(config: Config, machine: Machine, measured: Mapping[str, Footprint]) -> PlanAnswer:
    """Blocks: it looks at model files. Backends that somebody else runs take nothing here and are left out."""
    entries = [
        _entry(name, managed, measured.get(name, Footprint()))
        for name, backend in replicas.expand(config.backends).items()
        if (managed := backend.as_managed()) is not None
    ]
    seats = forecast(entries, machine, devices.shm_bytes())
    return PlanAnswer(
        memory_gb=round(machine.memory_gb, 3),
        gpus=tuple(
            GpuAnswer(uuid=gpu.uuid, index=gpu.index, memory_gb=round(gpu.memory_gb, 3), is_mig=gpu.is_mig)
            for gpu in machine.gpus
        ),
        seats=tuple(_seat(seat, measured.get(seat.entry.name, Footprint())) for seat in seats),
    )


def _entry(name: str, config: ManagedConfig, footprint: Footprint) -> Entry:
    return Entry(
        name=name,
        need=config.need(),
        starts_at_boot=config.start == "boot",
        workers=config.workers(),
        weights_gb=weights_gb(config),
        measured_gb=footprint.resident_gb,
    )


def _seat(seat: Seat, footprint: Footprint) -> SeatAnswer:
    return SeatAnswer(
        backend=seat.entry.name,
        fits=seat.place is not None,
        is_possible=seat.is_possible,
        memory_gb=seat.entry.need.memory_gb or None,
        devices=seat.place.devices if seat.place is not None else (),
        share=seat.place.share if seat.place is not None else 0.0,
        weights_gb=None if seat.entry.weights_gb is None else round(seat.entry.weights_gb, 3),
        measured_gb=footprint.resident_gb,
        loaded_weights_gb=footprint.weights_gb,
        kv_gb=footprint.kv_gb,
        kv_tokens=footprint.kv_tokens,
        notes=seat.notes,
    )
