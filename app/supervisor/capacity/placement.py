"""Which devices an engine runs on, and whether there is room for it. Host memory is a device too. Pure.

A share of a GPU is a part of its memory (`gpu_memory_utilization`): two engines run on one GPU only when their shares
leave room for both. A MIG device was cut out of a GPU on purpose, so it is used only by name, by one engine, and never
as one of several devices.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from backends.engine import Need

_ROUNDING: Final = 1e-6  # sums of decimal fractions are not exact


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or one MIG device (`is_mig`). `is_split`: it is cut into MIG devices and not usable as a whole.

    `used_gb` is the memory that all its users together have at the moment of reading. `users`: their process ids, each
    with its memory in GB, as far as they are shown to us (in a container: often none); None for a size that is not.
    """

    uuid: str
    index: int
    memory_gb: float = 0.0
    is_mig: bool = False
    is_split: bool = False
    used_gb: float = 0.0
    users: tuple[tuple[int, float | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Machine:
    """What engines may use together: host memory in GB, and the GPUs that the gateway may see.

    `has_unknown_gpus`: there seem to be GPUs of which nothing is known, so an engine without one may run there instead
    of on the CPU. `host_gb`: all memory of the host; `free_gb`: what of it is free now; None where that is not known.
    """

    memory_gb: float = math.inf
    gpus: tuple[Gpu, ...] = ()
    has_unknown_gpus: bool = False
    host_gb: float | None = field(default=None, compare=False)  # when it changes, it is still the same machine
    free_gb: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Allocation:
    """What one engine gets of the machine: host memory in GB, and a share (0 to 1) of each of these GPUs (by UUID)."""

    memory_gb: float = 0.0
    devices: tuple[str, ...] = ()
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class DoesNotFit:
    """Why an engine cannot run. `is_memory`: there is too little host memory."""

    reason: str
    is_memory: bool = False


def place(need: Need, machine: Machine, taken: Iterable[Allocation]) -> Allocation | DoesNotFit:
    """Where an engine with this need may run beside those that have `taken` their allocations already."""
    taken = tuple(taken)
    used_gb = math.fsum(allocation.memory_gb for allocation in taken)
    # A guess may be wrong: an engine that is guessed too large for the machine may have it to itself.
    memory_gb = min(need.memory_gb, machine.memory_gb) if need.is_guess else need.memory_gb
    if memory_gb and used_gb + memory_gb > machine.memory_gb + _ROUNDING:
        free_gb = max(0.0, machine.memory_gb - used_gb)
        about = "about " if need.is_guess else ""
        return DoesNotFit(
            f"it needs {about}{gb(need.memory_gb)} GB of memory, and {gb(free_gb)} of {gb(machine.memory_gb)} are free",
            is_memory=True,
        )
    devices = _named(need, machine, taken) if need.named else _chosen(need, machine, taken)
    if isinstance(devices, DoesNotFit):
        return devices
    return Allocation(memory_gb, devices, need.share if devices else 0.0)


def gb(size: float) -> str:
    """A size for a sentence: `8`, `0.91`, `1024`."""
    return f"{round(size, 2):.12g}"


def _named(need: Need, machine: Machine, taken: Sequence[Allocation]) -> tuple[str, ...] | DoesNotFit:
    chosen: list[Gpu] = []
    for name in need.named:
        gpu = next((gpu for gpu in machine.gpus if name in (gpu.uuid, str(gpu.index)) and _is_meant(gpu, name)), None)
        if gpu is None:
            known = ", ".join(f"{gpu.index} ({gpu.uuid})" for gpu in machine.gpus) or "none"
            if machine.has_unknown_gpus:
                known += "; there are others, which NVML does not list: it knows only NVIDIA's"
            return DoesNotFit(f"it is to run on device {name}, which does not exist here (known: {known})")
        if gpu in chosen:
            return DoesNotFit(f"device {name} is named twice")
        if gpu.is_split:
            return DoesNotFit(f"device {name} is cut into MIG devices: name one of these")
        chosen.append(gpu)
    if len(chosen) > 1 and any(gpu.is_mig for gpu in chosen):
        return DoesNotFit("a MIG device serves one engine alone, without tensor parallel: name one")
    if need.gpus > len(chosen):
        return DoesNotFit(f"it needs {need.gpus} GPUs and {len(chosen)} are named: name as many, or write auto")
    for gpu in chosen:
        if _free(gpu, taken) + _ROUNDING < _share(need, gpu):
            return DoesNotFit(f"device {gpu.index} ({gpu.uuid}) is taken: {_free(gpu, taken):.0%} of it are free")
    return tuple(gpu.uuid for gpu in chosen)


def _is_meant(gpu: Gpu, name: str) -> bool:
    return name == gpu.uuid or not gpu.is_mig  # an index means a whole GPU


def _chosen(need: Need, machine: Machine, taken: Sequence[Allocation]) -> tuple[str, ...] | DoesNotFit:
    usable = [gpu for gpu in machine.gpus if not gpu.is_mig and not gpu.is_split]
    if need.gpus == 0 or not machine.gpus:
        return ()
    if need.gpus > len(usable):
        others = "" if len(usable) == len(machine.gpus) else " (MIG devices are used only where `devices` names them)"
        return DoesNotFit(f"it needs {need.gpus} GPUs, and there are {len(usable)}{others}")
    free = [gpu for gpu in usable if _free(gpu, taken) + _ROUNDING >= _share(need, gpu)]
    if len(free) < need.gpus:
        return DoesNotFit(f"it needs {need.share:.0%} of {need.gpus} GPUs, and {len(free)} have so much free")
    emptiest = sorted(free, key=lambda gpu: (-_free(gpu, taken), gpu.index))[: need.gpus]
    return tuple(gpu.uuid for gpu in sorted(emptiest, key=lambda gpu: gpu.index))


def _free(gpu: Gpu, taken: Sequence[Allocation]) -> float:
    return 1.0 - math.fsum(allocation.share for allocation in taken if gpu.uuid in allocation.devices)


def _share(need: Need, gpu: Gpu) -> float:
    return 1.0 if gpu.is_mig else need.share


def visible(gpus: Sequence[Gpu], chosen: str | None) -> tuple[Gpu, ...]:
    """The GPUs that a process with this CUDA_VISIBLE_DEVICES may use, in CUDA's way of reading it.

    None: all of them. A name that is not known ends the list.
    """
    if chosen is None:
        return tuple(gpus)
    seen: list[Gpu] = []
    for word in filter(None, map(str.strip, chosen.split(","))):
        named = next((gpu for gpu in gpus if _is_called(gpu, word)), None)
        if named is None:
            break
        parts = [gpu for gpu in gpus if gpu.is_mig and gpu.index == named.index] if named.is_split else []
        seen += [gpu for gpu in (named, *parts) if gpu not in seen]
    return tuple(seen)


def _is_called(gpu: Gpu, word: str) -> bool:
    if word.isdigit():
        return not gpu.is_mig and gpu.index == int(word)
    return gpu.uuid.startswith(word)  # CUDA takes any unique beginning of a UUID
