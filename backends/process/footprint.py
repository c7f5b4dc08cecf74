"""What an engine takes of the machine: as it reports it, and as the system counts it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Footprint:
    """Measured at one start, in GB. `resident_gb`: host memory of all its processes, shared pages counted once.

    `device_gb`: how much more of its GPUs was in use afterwards. `weights_gb`, `kv_gb` and `kv_tokens` are what the
    engine reported.
    """

    resident_gb: float | None = None
    weights_gb: float | None = None
    kv_gb: float | None = None
    kv_tokens: int | None = None
    device_gb: float | None = None


def nothing_reported(lines: Sequence[str]) -> Footprint:
    """Of an engine that prints nothing of its memory."""
    return Footprint()


def resident_gb(pids: Iterable[int]) -> float | None:
    """The host memory of these processes, shared pages counted once, in GB; None where there is no /proc. Blocks for a
    few milliseconds.
    """
    total_kb = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, StopIteration):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total_kb += int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return round(total_kb * 1024 / 1e9, 3) if total_kb else None
