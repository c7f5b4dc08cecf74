"""What an engine takes of the machine: as its files let one expect, as it says itself, and as the system counts."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# vLLM's own lines; its GiB are 2^30 bytes.
_WEIGHTS: Final = re.compile(r"Model loading took ([\d.]+) GiB")
_CACHE: Final = re.compile(r"Available KV cache memory: ([\d.]+) GiB")
_TOKENS: Final = re.compile(r"KV cache size: ([\d,]+) tokens")
_GIB: Final = 2**30 / 1e9


@dataclass(frozen=True, slots=True)
class Footprint:
    """Measured at one start, in GB. `resident_gb`: host memory of all its processes, shared pages counted once.

    `device_gb`: how much more of its GPUs was in use afterwards. `weights_gb`, `kv_gb` and `kv_tokens` are what the
    engine said itself.
    """

    resident_gb: float | None = None
    weights_gb: float | None = None
    kv_gb: float | None = None
    kv_tokens: int | None = None
    device_gb: float | None = None


def measured(pids: Iterable[int], lines: Sequence[str]) -> Footprint:
    """Of a running engine: its processes, and what it printed while it started. Blocks for a few milliseconds."""
    text = "\n".join(lines)
    weights, cache, tokens = _WEIGHTS.search(text), _CACHE.search(text), _TOKENS.search(text)
    return Footprint(
        resident_gb=_resident_gb(pids),
        weights_gb=round(float(weights[1]) * _GIB, 3) if weights else None,
        kv_gb=round(float(cache[1]) * _GIB, 3) if cache else None,
        kv_tokens=int(tokens[1].replace(",", "")) if tokens else None,
    )


def _resident_gb(pids: Iterable[int]) -> float | None:
    """None where there is no /proc."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, StopIteration):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return round(total * 1024 / 1e9, 3) if total else None
