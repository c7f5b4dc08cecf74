"""Whether everything that is configured fits on the machine, and what to change where it does not. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.supervisor.capacity.placement import Allocation, DoesNotFit, Machine, gb, place
from app.supervisor.capacity.sizes import Source
from backends.engine import Need

SPARE_GB: Final = 0.5  # what vLLM's own processes take before it checks the free memory
SMALL_SHM_BYTES: Final = 64 * 1024 * 1024  # Docker's default for a container


@dataclass(frozen=True, slots=True)
class Entry:
    """One engine as configured. `workers`: how many of its processes share memory; `measured_gb`: host memory it took;
    `source`: how the host memory in `need` is known; `demanded_gb`: host memory that must be free when it starts.
    """

    name: str
    need: Need
    starts_at_boot: bool = True
    workers: int = 1
    weights_gb: float | None = None
    measured_gb: float | None = None
    source: Source | None = None
    demanded_gb: float | None = None


@dataclass(frozen=True, slots=True)
class ForecastRow:
    """Where an engine runs. `allocation` None: not beside all those before it; `is_possible`: at least alone.

    `notes`: what to know or to change, in sentences.
    """

    entry: Entry
    allocation: Allocation | None
    is_possible: bool
    notes: tuple[str, ...] = ()


def forecast(
    entries: Sequence[Entry], machine: Machine, shm_bytes: int | None, quarantined: Mapping[str, str] | None = None
) -> list[ForecastRow]:
    """One row per entry, in their order. Those that start at boot get their place first, each beside all before it.

    `shm_bytes`: the size of /dev/shm, None where there is none; `quarantined`: GPUs in quarantine, with the reason.
    """
    taken: dict[str, Allocation] = {}
    rows: dict[str, ForecastRow] = {}
    unusable = [Allocation(devices=(device,), share=1.0) for device in quarantined or {}]
    for entry in sorted(entries, key=lambda entry: not entry.starts_at_boot):
        placed = place(entry.need, machine, [*taken.values(), *unusable])
        alone = place(entry.need, machine, ())
        notes = [*_notes(entry, machine, placed, alone, taken), *_small_shm(entry, shm_bytes)]
        if isinstance(placed, DoesNotFit) and isinstance(place(entry.need, machine, taken.values()), Allocation):
            notes = [f"{reason}; `modelport reload` lifts it" for reason in (quarantined or {}).values()]
        obstacle = _why_not_started(entry, machine, 0.0)
        beside = obstacle or _why_not_started(entry, machine, math.fsum(each.memory_gb for each in taken.values()))
        if isinstance(placed, Allocation) and beside is not None:
            notes, placed = [*notes, beside], DoesNotFit(beside, is_memory=True)
        if isinstance(placed, Allocation):
            taken[entry.name] = placed
        is_possible = isinstance(alone, Allocation) and not _small_shm(entry, shm_bytes) and obstacle is None
        rows[entry.name] = ForecastRow(
            entry, placed if isinstance(placed, Allocation) else None, is_possible, tuple(notes)
        )
    return [rows[entry.name] for entry in entries]


def _notes(
    entry: Entry,
    machine: Machine,
    placed: Allocation | DoesNotFit,
    alone: Allocation | DoesNotFit,
    taken: Mapping[str, Allocation],
) -> list[str]:
    if isinstance(alone, DoesNotFit):
        return [f"it never fits: {alone.reason}; {_advice(entry, machine, alone)}"]
    notes = []
    if isinstance(placed, DoesNotFit):
        others = [name for name, each in taken.items() if each.memory_gb or set(each.devices) & set(alone.devices)]
        beside = f" beside {', '.join(others)}" if others else ""
        notes.append(
            f"no room{beside}: they take turns, and a request swaps them. To keep all loaded: "
            f"{_advice(entry, machine, placed)}"
        )
    is_given = entry.need.memory_gb > 0 and not entry.need.is_guess
    if is_given and entry.measured_gb is not None and entry.measured_gb > entry.need.memory_gb:
        notes.append(f"it took {gb(entry.measured_gb)} GB: raise its memory_gb ({gb(entry.need.memory_gb)})")
    if entry.need.is_guess and entry.need.memory_gb > machine.memory_gb:
        notes.append(
            f"it may not fit: {gb(entry.need.memory_gb)} GB of memory ({entry.source}), and there are "
            f"{gb(machine.memory_gb)}; it is tried anyway, alone. Take a smaller model "
            "or a shorter context, or set memory_gb to what it really takes"
        )
    if not entry.need.memory_gb and not (isinstance(placed, Allocation) and placed.devices):
        notes.append("its memory is not counted: set memory_gb")
    return notes


def _why_not_started(entry: Entry, machine: Machine, others_gb: float) -> str | None:
    """Why vLLM would end at once: its whole share must be free when it starts, although it fills it only later."""
    demanded, free, host = entry.demanded_gb, machine.free_gb, machine.host_gb
    if demanded is None or free is None or host is None or demanded <= free - others_gb:
        return None
    left = max(0.0, free - others_gb)
    beside = "" if not others_gb else " beside those before it"
    share = math.floor(100 * max(0.0, left - SPARE_GB) / host) / 100
    advice = f"set gpu_memory_utilization to {share:g} or less, or " if share else ""
    return (
        f"vLLM would not start{beside}: it needs {gb(demanded)} GB of free memory, and {gb(left)} of {gb(host)} are "
        f"free now: {advice}set kv_cache_memory_bytes to what its cache needs"
    )


def _advice(entry: Entry, machine: Machine, why: DoesNotFit) -> str:
    need, took_gb = entry.need, entry.measured_gb
    if why.is_memory and not need.is_guess and took_gb is not None and took_gb < need.memory_gb:
        return f"lower its memory_gb, of which it took {gb(took_gb)}, or raise server.memory_gb"
    if why.is_memory:
        known = ", or set its memory_gb to what it really takes" if need.is_guess else ""
        return f"raise server.memory_gb, or take a smaller model, a shorter context or a stronger quantisation{known}"
    if not machine.gpus:
        return (
            "leave `devices` out to run it on the CPU, or let the gateway see its GPUs (the driver, "
            "CUDA_VISIBLE_DEVICES; in a container --gpus all)"
        )
    return "give it other `devices`, fewer GPUs (tensor_parallel_size), or a smaller gpu_memory_utilization"


def _small_shm(entry: Entry, shm_bytes: int | None) -> list[str]:
    if entry.workers < 2 or shm_bytes is None or shm_bytes > SMALL_SHM_BYTES:
        return []
    return [
        f"its {entry.workers} workers share memory and /dev/shm has {shm_bytes // 2**20} MiB: start the container with "
        "--shm-size=16g or --ipc=host (Compose: shm_size: 16gb, or ipc: host)"
    ]
