"""Whether an engine that should make progress stands still: by output and I/O while it starts, by its counters later.

"Healthy" says little: an engine whose scheduler or worker hangs goes on answering its health check.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path

from backends.engine import Probe


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The signs of life seen last, and since when they have been the same, in seconds of a monotonic clock. `signs`
    None: there was nothing to watch.
    """

    signs: Hashable
    since: float


def advance(before: Heartbeat | None, signs: Hashable, now: float) -> Heartbeat:
    """What is known once `signs` were seen at `now`. Pure. `signs` None: nothing has to move now."""
    if before is None or signs is None or signs != before.signs:
        return Heartbeat(signs, now)
    return before


def work(probe: Probe, is_used: bool = False) -> Hashable:
    """The signs of life of a serving engine: its counters while requests run; None while none runs, or where it has no
    counters. Pure.

    `is_used`: it has requests of ours. vLLM's server counts a request only once its core has made a step with it. An
    engine that does not give its counters in time (`is_mute`) is working at something.
    """
    if probe.is_up and probe.is_mute:
        return ("mute", probe.progress)
    return probe.progress if probe.is_up and (probe.in_flight or is_used) else None


def io(pids: Iterable[int], proc: Path = Path("/proc")) -> Hashable:
    """The signs of life of a starting engine: its processes, and what each has read and written. None where the system
    does not tell.
    """
    counters: list[tuple[int, bytes]] = []
    for pid in pids:
        with contextlib.suppress(OSError):
            counters.append((pid, (proc / str(pid) / "io").read_bytes()))
    return tuple(sorted(counters)) or None


def cpu_s(pids: Iterable[int], proc: Path = Path("/proc")) -> float:
    """The processor time that these processes have used, in seconds; 0 where the system does not tell."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # utime and stime (proc(5)), counted behind the name
    return ticks / os.sysconf("SC_CLK_TCK")
