"""What this machine has for engines: its GPUs as NVML reports them, and the memory of the host or the container.

NVML is part of NVIDIA's driver; the package nvidia-ml-py calls it. A machine without driver or GPU simply has no GPUs:
engines run on the CPU then.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog

from app.supervisor.capacity import control_group
from app.supervisor.capacity.placement import Gpu, Machine, visible

log = structlog.get_logger()
T = TypeVar("T")

# Lists every GPU and MIG device of the machine. Blocks for milliseconds, at the first call up to seconds.
Gpus = Callable[[], Sequence[Gpu]]


@dataclass(frozen=True, slots=True)
class GpuLoad:
    """How full and how busy a GPU or MIG device is. `utilization`: 0 to 1, None where NVML does not say it."""

    uuid: str
    used_bytes: int
    total_bytes: int
    utilization: float | None = None


def machine(memory_gb: float | None, env: Mapping[str, str], gpus: Gpus | None = None) -> Machine:
    """What engines may use: `memory_gb` when it is given, else all of the host's; the GPUs that we may use ourselves.

    `env`: where CUDA_VISIBLE_DEVICES is looked up. Blocks.
    """
    all_gpus = (gpus or nvml)()
    usable = visible(all_gpus, env.get("CUDA_VISIBLE_DEVICES"))
    has_unknown_gpus = not all_gpus and has_accelerators()
    host_gb = host_memory_gb()
    return Machine(
        memory_gb if memory_gb is not None else host_gb,
        usable,
        has_unknown_gpus=has_unknown_gpus,
        host_gb=host_gb,
        free_gb=free_memory_gb(),
    )


def has_accelerators(dev: Path = Path("/dev")) -> bool:
    """Whether there are device files of a GPU driver: NVIDIA's, AMD's, or that of other accelerators."""
    return any((dev / name).exists() for name in ("nvidiactl", "kfd", "accel"))


def host_memory_gb(root: Path = Path("/")) -> float:
    """The memory of the host in GB, or the limit of our control group (container, service) where that is less."""
    sizes = [float("inf")]
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = (root / "proc/meminfo").read_text().splitlines()
        sizes.append(int(next(line for line in lines if line.startswith("MemTotal:")).split()[1]) * 1024)
    if (limit := control_group.memory_bytes(root)) is not None:
        sizes.append(limit)
    if len(sizes) == 1:
        with contextlib.suppress(OSError, ValueError):  # no /proc: macOS
            sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(sizes) / 1e9


def free_memory_gb(root: Path = Path("/")) -> float | None:
    """How much memory is free now in GB, cached files included, as vLLM counts it; None where that is not known."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        sizes = {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        free = sum(sizes[name] for name in ("MemFree", "Active(file)", "Inactive(file)", "SReclaimable"))
    except (OSError, ValueError, IndexError, KeyError):
        return None
    left = control_group.memory_left_bytes(root)
    free = free if left is None else min(free, left)
    return max(0, free) / 1e9


def shm_bytes(path: Path = Path("/dev/shm")) -> int | None:  # noqa: S108 - its size only
    """The size of the shared memory through which workers of one engine talk; None where there is none."""
    try:
        disk = os.statvfs(path)
    except OSError:
        return None
    return disk.f_frsize * disk.f_blocks


def nvml(library: Any = None) -> tuple[Gpu, ...]:
    """The GPUs as NVML lists them, through `library` or nvidia-ml-py's module `pynvml`; none when it fails."""
    return _each(library, _devices)


def loads(library: Any = None) -> tuple[GpuLoad, ...]:
    """How full and how busy the GPUs are, as `nvml` lists them. Of a GPU that is cut into MIG devices only these."""
    return _each(library, _loads)


def _each(library: Any, read: Callable[[Any, int], list[T]]) -> tuple[T, ...]:
    """What is read of each GPU by its index."""
    if library is None:
        try:
            library = importlib.import_module("pynvml")
        except ImportError:
            return ()
    try:
        library.nvmlInit()
    except library.NVMLError as exc:
        log.debug("no GPUs", reason=str(exc))
        return ()
    try:
        return tuple(each for index in range(library.nvmlDeviceGetCount()) for each in read(library, index))
    except library.NVMLError as exc:
        log.warning("GPUs not readable", reason=str(exc))
        return ()
    finally:
        library.nvmlShutdown()


def _devices(library: Any, index: int) -> list[Gpu]:
    """One GPU and the MIG devices that it is cut into; nothing when it cannot be read (it has fallen off the bus)."""
    try:
        handle = library.nvmlDeviceGetHandleByIndex(index)
        is_split = _is_split(library, handle)
        listed = [_gpu(library, handle, index, is_split=is_split)]
    except library.NVMLError as exc:
        log.warning("GPU not readable", index=index, reason=str(exc))
        return []
    for part in _parts(library, handle, is_split=is_split):
        with contextlib.suppress(library.NVMLError):
            listed.append(_gpu(library, part, index, is_mig=True))
    return listed


def _loads(library: Any, index: int) -> list[GpuLoad]:
    with contextlib.suppress(library.NVMLError):  # it has fallen off the bus
        handle = library.nvmlDeviceGetHandleByIndex(index)
        is_split = _is_split(library, handle)
        return [_load(library, part) for part in (_parts(library, handle, is_split=is_split) if is_split else [handle])]
    return []


def _load(library: Any, handle: Any) -> GpuLoad:
    memory = library.nvmlDeviceGetMemoryInfo(handle)
    utilization = None
    with contextlib.suppress(library.NVMLError):  # a MIG device has none
        utilization = library.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    return GpuLoad(_uuid(library, handle), memory.used, memory.total, utilization)


def _parts(library: Any, handle: Any, *, is_split: bool) -> list[Any]:
    """The MIG devices that a GPU is cut into."""
    parts = []
    for part in range(library.nvmlDeviceGetMaxMigDeviceCount(handle) if is_split else 0):
        with contextlib.suppress(library.NVMLError):  # the numbers have gaps
            parts.append(library.nvmlDeviceGetMigDeviceHandleByIndex(handle, part))
    return parts


def _is_split(library: Any, handle: Any) -> bool:
    try:
        return bool(library.nvmlDeviceGetMigMode(handle)[0])
    except library.NVMLError:  # most GPUs cannot be cut
        return False


def _gpu(library: Any, handle: Any, index: int, *, is_split: bool = False, is_mig: bool = False) -> Gpu:
    memory = library.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(
        _uuid(library, handle),
        index,
        memory.total / 1e9,
        is_mig,
        is_split,
        used_gb=memory.used / 1e9,
        users=_users(library, handle),
    )


def _uuid(library: Any, handle: Any) -> str:
    uuid = library.nvmlDeviceGetUUID(handle)
    return uuid if isinstance(uuid, str) else str(uuid.decode())


def _users(library: Any, handle: Any) -> tuple[tuple[int, float | None], ...]:
    """The processes on a GPU, each once, with their memory in GB; None for a size that is not shown to us."""
    sizes: dict[int, float | None] = {}
    for ask in (library.nvmlDeviceGetComputeRunningProcesses, library.nvmlDeviceGetGraphicsRunningProcesses):
        with contextlib.suppress(library.NVMLError):  # not supported, or not allowed
            for process in ask(handle):
                sizes[process.pid] = None if process.usedGpuMemory is None else process.usedGpuMemory / 1e9
    return tuple(sorted(sizes.items()))
