"""The figures of a vLLM server's `/metrics` that show its work. Pure.

With data parallelism each of its engines has series of its own; the figures here are the sums over all of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_NAMES: Final = {
    b"num_requests_running": 0,
    b"num_requests_waiting": 1,
    b"generation_tokens_total": 2,
    b"prompt_tokens_total": 3,
    b"iteration_tokens_total_count": 4,
    b"kv_cache_usage_perc": 5,
}
_LINE: Final = re.compile(rb"^vllm:(" + b"|".join(_NAMES) + rb")(?:\{[^\n]*\})? ([0-9.eE+-]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Figures:
    """Sums over all engines. `kv_usage`: 1.0 for each engine whose KV cache is full."""

    running: int
    waiting: int
    generation_tokens: float
    prompt_tokens: float
    iterations: float
    kv_usage: float

    @property
    def in_flight(self) -> int:
        """Requests that it has and has not finished: running and waiting."""
        return self.running + self.waiting

    @property
    def progress(self) -> tuple[float, ...]:
        """Numbers of which one changes whenever any work is done."""
        return (self.generation_tokens, self.prompt_tokens, self.iterations, self.kv_usage)


def figures(page: bytes) -> Figures | None:
    """The figures on a page of `/metrics`; None when it is not vLLM's."""
    sums = [0.0] * len(_NAMES)
    seen: set[int] = set()
    for name, value in _LINE.findall(page):
        index = _NAMES[name]
        try:
            sums[index] += float(value)
        except ValueError:
            continue
        seen.add(index)
    if not {0, 1} <= seen:
        return None
    return Figures(int(sums[0]), int(sums[1]), *sums[2:])
