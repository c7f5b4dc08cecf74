"""What this machine has for engines: its GPUs as NVML tells them, and its memory as the host or the container has it.

NVML comes with the package nvidia-ml-py. Without the package, the driver or a GPU there are no GPUs, and that is no
error: engines run on the CPU then.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from app.supervisor.placement import Gpu, Machine, visible

log = structlog.get_logger()

# The port: every GPU and MIG device of the machine. Blocks for milliseconds, at the first call up to seconds.
Gpus = Callable[[], Sequence[Gpu]]


def machine(memory_gb: float | None, env: Mapping[str, str], gpus: Gpus | None = None) -> Machine:
    """What engines may have: `memory_gb` when it is given, else all there is; the GPUs that we may see ourselves."""
    found = visible((gpus or nvml)(), env.get("CUDA_VISIBLE_DEVICES"))
    return Machine(memory_gb if memory_gb is not None else host_memory_gb(), found)


def host_memory_gb(root: Path = Path("/")) -> float:
    """The memory of the host, or less where the control group may use less."""
    sizes = [float("inf")]
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = (root / "proc/meminfo").read_text().splitlines()
        sizes.append(int(next(line for line in lines if line.startswith("MemTotal:")).split()[1]) * 1024)
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # version 2; version 1
        with contextlib.suppress(OSError, ValueError):  # "max"
            sizes.append(int((root / "sys/fs/cgroup" / name).read_text()))
    if len(sizes) == 1:
        with contextlib.suppress(OSError, ValueError):  # no /proc: macOS
            sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(sizes) / 1e9


def shm_bytes(path: Path = Path("/dev/shm")) -> int | None:  # noqa: S108 - its size only
    """The size of the shared memory that workers of one engine use; None where there is none."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return found.f_frsize * found.f_blocks


def nvml() -> tuple[Gpu, ...]:
    """The port on the real library."""
    try:
        library: Any = importlib.import_module("pynvml")
    except ImportError:
        return ()
    try:
        library.nvmlInit()
    except library.NVMLError as exc:
        log.debug("no GPUs", reason=str(exc))
        return ()
    try:
        return tuple(gpu for index in range(library.nvmlDeviceGetCount()) for gpu in _device(library, index))
    except library.NVMLError as exc:
        log.warning("GPUs not readable", reason=str(exc))
        return ()
    finally:
        library.nvmlShutdown()


def _device(library: Any, index: int) -> list[Gpu]:
    """One GPU and the MIG devices it is cut into."""
    handle = library.nvmlDeviceGetHandleByIndex(index)
    try:
        is_split = bool(library.nvmlDeviceGetMigMode(handle)[0])
    except library.NVMLError:  # most GPUs cannot be cut
        is_split = False
    found = [_gpu(library, handle, index, is_split=is_split)]
    for part in range(library.nvmlDeviceGetMaxMigDeviceCount(handle) if is_split else 0):
        with contextlib.suppress(library.NVMLError):  # the numbers have gaps
            found.append(_gpu(library, library.nvmlDeviceGetMigDeviceHandleByIndex(handle, part), index, is_mig=True))
    return found


def _gpu(library: Any, handle: Any, index: int, *, is_split: bool = False, is_mig: bool = False) -> Gpu:
    uuid = library.nvmlDeviceGetUUID(handle)
    total = library.nvmlDeviceGetMemoryInfo(handle).total
    return Gpu(uuid if isinstance(uuid, str) else uuid.decode(), index, total / 1e9, is_mig, is_split)
