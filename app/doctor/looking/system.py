"""Of the system itself: libraries, processor, folders and disks, ports, GPUs, limits. Every function blocks shortly."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import importlib
import os
import re
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from app.doctor.facts import CollectorFacts, ContainerFacts, DiskFacts, FolderFacts, GpuFacts, PortFacts
from app.doctor.looking.listeners import users_of
from app.supervisor import listener, state_folder
from app.supervisor.capacity import control_group, devices
from app.supervisor.capacity.placement import visible

CONNECT_S: Final = 3.0
_LOCK: Final = "lock"


def has_library(file: str) -> bool:
    """Whether the system's loader finds and loads this shared library."""
    try:
        ctypes.CDLL(file)
    except OSError:
        return False
    return True


def processor_flags(root: Path = Path("/")) -> frozenset[str] | None:
    """The flags of an x86 processor; None for another processor, or a system without /proc."""
    try:
        text = (root / "proc/cpuinfo").read_text()
    except OSError:
        return None
    match = re.search(r"^flags\s*:\s*(.*)$", text, re.MULTILINE)
    return frozenset(match[1].split()) if match is not None else None


def folder(path: Path) -> FolderFacts:
    """What is there, and who holds it. Nothing is made."""
    try:
        try:
            status = path.stat()
        except FileNotFoundError:
            return FolderFacts(path, can_be_made=_can_make(path))
        if not stat.S_ISDIR(status.st_mode):
            return FolderFacts(path, exists=True)
        if status.st_uid != os.getuid() or not os.access(path, os.R_OK | os.X_OK):
            return FolderFacts(
                path, exists=True, is_folder=True, owner=status.st_uid, mode=stat.S_IMODE(status.st_mode)
            )
        names = {entry.name for entry in path.iterdir()}
        return FolderFacts(
            path,
            exists=True,
            is_folder=True,
            owner=status.st_uid,
            mode=stat.S_IMODE(status.st_mode),
            has_content=bool(names),
            has_lock=_LOCK in names,
            holder=_holder(path) if _LOCK in names else None,
        )
    except OSError as exc:
        return FolderFacts(path, trouble=exc.strerror or str(exc))


def _can_make(path: Path) -> bool:
    above = next(parent for parent in path.parents if parent.exists())
    return above.is_dir() and os.access(above, os.W_OK | os.X_OK)


def _holder(path: Path) -> str | None:
    if not state_folder.is_held(path):
        return None
    with contextlib.suppress(OSError, ValueError):
        return (path / _LOCK).read_text().strip()
    return ""


def disk(what: str, path: Path) -> DiskFacts:
    """The disk of the folder, or of the nearest folder above it that is there."""
    try:
        here = next(each for each in (path, *path.parents) if each.exists())
        status = os.statvfs(here)
        return DiskFacts(
            what,
            path,
            free_bytes=status.f_bavail * status.f_frsize,
            total_bytes=status.f_blocks * status.f_frsize,
            free_files=status.f_favail if status.f_files else None,
            device=here.stat().st_dev,
        )
    except OSError as exc:
        return DiskFacts(what, path, trouble=exc.strerror or str(exc))


def port(setting: str, host: str, number: int) -> PortFacts:
    """Whether the gateway could listen there: it is tried, and let go at once."""
    try:
        listener.listen(host, number).close()
    except listener.ListenError as exc:
        trouble, _, advice = str(exc).partition("; ")
        return PortFacts(setting, host, number, trouble, advice, users_of(number))
    return PortFacts(setting, host, number)


def collector(endpoint: str | None) -> CollectorFacts | None:
    """Whether a connection to the collector of traces can be made; None where none is configured. Nothing is sent."""
    if endpoint is None:
        return None
    url = urlsplit(endpoint)
    host, number = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    where = f"{host}:{number}"
    try:
        socket.create_connection((host, number), timeout=CONNECT_S).close()
    except TimeoutError:
        return CollectorFacts(where, f"no connection within {CONNECT_S:.0f} s")
    except OSError as exc:
        return CollectorFacts(where, exc.strerror or str(exc))
    return CollectorFacts(where)


def gpus(env: Mapping[str, str], library: Any = None) -> GpuFacts:
    """What NVML says, through `library` or nvidia-ml-py's module `pynvml`."""
    has_devices = Path("/dev/nvidiactl").exists()
    seen = GpuFacts(has_devices, has_others=not has_devices and devices.has_accelerators())
    try:
        library = library or importlib.import_module("pynvml")
    except ImportError:
        return dataclasses.replace(seen, trouble="the package nvidia-ml-py is not installed")
    try:
        library.nvmlInit()
    except library.NVMLError as exc:
        return dataclasses.replace(seen, trouble=str(exc))
    try:
        version = library.nvmlSystemGetCudaDriverVersion()
        listed: list[tuple[int, str, int, int]] = []
        lost: list[tuple[int, str]] = []
        for index in range(library.nvmlDeviceGetCount()):
            try:
                handle = library.nvmlDeviceGetHandleByIndex(index)
                memory = library.nvmlDeviceGetMemoryInfo(handle)
                listed.append((index, _text(library.nvmlDeviceGetName(handle)), int(memory.total), int(memory.used)))
            except library.NVMLError as exc:
                lost.append((index, str(exc)))
        driver = _text(library.nvmlSystemGetDriverVersion())
    except library.NVMLError as exc:
        return dataclasses.replace(seen, trouble=str(exc))
    finally:
        library.nvmlShutdown()
    all_gpus = devices.nvml(library)
    hidden = len(all_gpus) - len(visible(all_gpus, env.get("CUDA_VISIBLE_DEVICES")))
    cuda = f"{version // 1000}.{version % 1000 // 10}"
    return dataclasses.replace(seen, driver=driver, cuda=cuda, gpus=tuple(listed), lost=tuple(lost), hidden=hidden)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


def container(root: Path = Path("/")) -> ContainerFacts:
    """The limits of our control group, and whether we are in a container."""
    marks = (root / ".dockerenv", root / "run/.containerenv")
    return ContainerFacts(
        memory_bytes=control_group.memory_bytes(root),
        cores=control_group.cores(root),
        is_container=any(mark.exists() for mark in marks),
    )
