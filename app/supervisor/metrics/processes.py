"""What our own processes take of the machine, as the system says it under /proc (Linux; elsewhere nothing is known)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    """One process now. `open_files_limit`: infinite where there is none; `started_at`: in seconds since 1970."""

    open_files: int
    open_files_limit: float
    resident_bytes: int
    cpu_s: float
    started_at: float


def read_all(pids: Mapping[str, int], proc: Path = Path("/proc")) -> dict[str, ProcessFigures]:
    """The figures of these processes by their names, without those that are gone. Blocks shortly."""
    figures = {name: read(proc / str(pid)) for name, pid in pids.items()}
    return {name: each for name, each in figures.items() if each is not None}


def read(folder: Path) -> ProcessFigures | None:
    """Of the process with this folder under /proc; None when it cannot be read."""
    try:
        # The name in parentheses may hold anything, blanks and parentheses too.
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        pages = int((folder / "statm").read_text().split()[1])
        limits = (folder / "limits").read_text()
        booted_at = _booted_at(folder.parent)
        open_files = sum(1 for _ in (folder / "fd").iterdir())
        limit = next(line for line in limits.splitlines() if line.startswith("Max open files")).split()[3]
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    return ProcessFigures(
        open_files,
        math.inf if limit == "unlimited" else float(limit),
        pages * os.sysconf("SC_PAGE_SIZE"),
        (int(fields[11]) + int(fields[12])) / ticks,
        booted_at + int(fields[19]) / ticks,
    )


@cache
def _booted_at(proc: Path) -> int:
    """When the machine was started, in seconds since 1970. Asked once: it moves with each correction of the clock, and
    a start that moves looks like another start.
    """
    lines = (proc / "stat").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("btime ")).split()[1])
