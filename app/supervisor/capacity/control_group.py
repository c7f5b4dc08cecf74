"""The limits of the control group that we are in: of a container, of a systemd unit, of a slice above it (Linux)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("sys/fs/cgroup")
_NO_LIMIT: Final = 1 << 60  # version 1 says "no limit" with a number of this size


def folders(controller: str, root: Path = Path("/")) -> Iterator[Path]:
    """The folders of our group and of each one above it, the innermost first, for `memory` or `cpu`: version 2 has one
    tree, version 1 one for each controller. A container sees its own group as the root of the tree.
    """
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            if names == "" or controller in names.split(","):
                base = root / _CGROUP / (controller if names else "")
                inner = base / path.lstrip("/")
                yield from (each for each in (inner, *inner.parents) if each != base and each.is_relative_to(base))
    yield root / _CGROUP / controller
    yield root / _CGROUP


def memory_bytes(root: Path = Path("/")) -> int | None:
    """The least limit of memory, in bytes; None where there is none."""
    limits = []
    for folder in folders("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):  # version 2; version 1
            with contextlib.suppress(OSError, ValueError):  # "max"
                limits.append(int((folder / name).read_text()))
    least = min(limits, default=_NO_LIMIT)
    return least if least < _NO_LIMIT else None


def memory_left_bytes(root: Path = Path("/")) -> int | None:
    """What is left of the limits of memory, of the one with the least left; None where there is no limit."""
    left = []
    for folder in folders("memory", root):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with contextlib.suppress(OSError, ValueError):  # "max"
                left.append(int((folder / limit).read_text()) - int((folder / used).read_text()))
    least = min(left, default=_NO_LIMIT)
    return max(0, least) if least < _NO_LIMIT >> 1 else None


def cores(root: Path = Path("/")) -> float | None:
    """The least limit of processor time, in cores; None where there is none."""
    limits = []
    for folder in folders("cpu", root):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):  # "max"
            quota, period = (folder / "cpu.max").read_text().split()
            limits.append(int(quota) / int(period))
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            quota_us = int((folder / "cpu.cfs_quota_us").read_text())
            if quota_us > 0:
                limits.append(quota_us / int((folder / "cpu.cfs_period_us").read_text()))
    return min(limits, default=None)
