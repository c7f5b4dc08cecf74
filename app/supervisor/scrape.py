"""`/metrics`: what all relays counted, the dead ones too, and the states of the engines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest, mmap_dict, multiprocess
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from backends.base import State

ADDED_UP = ("counter", "histogram", "summary")
# A file that was created this moment is empty, then has 8 bytes of header (prometheus_client.mmap_dict).
HEADER_BYTES = 8


class _Values(Protocol):
    """prometheus_client's file of numbers, with the types it lacks."""

    def read_all_values(self) -> Iterable[tuple[str, float, float]]: ...
    def read_value(self, key: str) -> tuple[float, float]: ...
    def write_value(self, key: str, value: float, timestamp: float) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Life:
    """One backend as it is counted."""

    backend: str
    state: State
    restarts: int
    swaps: int = 0
    waiting: int = 0


class Counters:
    """The folder of prometheus_client's multiprocess mode: every relay writes its own files there.

    The counts of dead relays are added up in one file of each type, so a relay that dies again and again does not
    fill the folder. Its methods are called in threads; the lock keeps a scrape from seeing a count twice or not at all.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Counters {self._folder}>"

    def bury(self, pid: int) -> None:
        """What that process was doing is over; what it counted stays."""
        with self._lock:
            mark_dead: Callable[[int, str], None] = multiprocess.mark_process_dead
            mark_dead(pid, os.fspath(self._folder))
            for kind in ADDED_UP:
                self._add_up(self._folder / f"{kind}_{pid}.db", self._folder / f"{kind}_buried.db")

    def read(self) -> Sequence[Metric]:
        """Everything that was counted, over all processes."""
        with self._lock:
            files = [str(file) for file in sorted(self._folder.glob("*.db")) if file.stat().st_size > HEADER_BYTES]
            merge: Callable[..., Iterable[Metric]] = multiprocess.MultiProcessCollector.merge
            return list(merge(files, accumulate=True))

    def _add_up(self, dead: Path, buried: Path) -> None:
        if not dead.exists():
            return
        if dead.stat().st_size > HEADER_BYTES:
            values: Callable[[str], _Values] = mmap_dict.MmapedDict
            with contextlib.closing(values(str(dead))) as counted, contextlib.closing(values(str(buried))) as total:
                for key, value, _ in counted.read_all_values():
                    total.write_value(key, total.read_value(key)[0] + value, 0.0)
        dead.unlink()


class Scrape:
    """Renders `/metrics` in a thread: with 800 histograms it takes 171 ms (docs/performance.md).

    `quarantines`: every GPU, and whether it is in quarantine.
    """

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(
        self,
        counters: Counters,
        lives: Callable[[], Sequence[Life]],
        version: str,
        quarantines: Callable[[], Mapping[str, bool]] = dict,
    ) -> None:
        self._counters = counters
        self._lives = lives
        self._version = version
        self._quarantines = quarantines

    async def render(self) -> bytes:
        """The page of this moment."""
        return await asyncio.to_thread(self._render, self._lives(), self._quarantines())

    def _render(self, lives: Sequence[Life], quarantines: Mapping[str, bool]) -> bytes:
        registry = CollectorRegistry()
        own = [*_families(lives, self._version), _quarantine(quarantines)]
        registry.register(_Moment([*self._counters.read(), *own]))
        return generate_latest(registry)


class _Moment(Collector):
    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return iter(self._metrics)


def _families(lives: Sequence[Life], version: str) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "modelport_backend_state",
        "1 for the state a backend is in, 0 for the others.",
        labels=["modelport_backend", "state"],
    )
    restarts = CounterMetricFamily(
        "modelport_backend_restarts_total",
        "Starts of a backend after one that ended unasked.",
        labels=["modelport_backend"],
    )
    swaps = CounterMetricFamily(
        "modelport_backend_swaps_total", "How often a backend made way for another one.", labels=["modelport_backend"]
    )
    waiting = GaugeMetricFamily(
        "modelport_backend_waiting",
        "Requests that wait for a place at a backend, which has as many as it may have.",
        labels=["modelport_backend"],
    )
    for life in lives:
        for each in State:
            state.add_metric([life.backend, each.value], 1.0 if life.state is each else 0.0)
        restarts.add_metric([life.backend], life.restarts)
        swaps.add_metric([life.backend], life.swaps)
        waiting.add_metric([life.backend], life.waiting)
    build = GaugeMetricFamily("modelport_build_info", "The version that runs.", labels=["version"])
    build.add_metric([version], 1.0)
    yield from (state, restarts, swaps, waiting, build)


def _quarantine(quarantines: Mapping[str, bool]) -> Metric:
    found = GaugeMetricFamily(
        "modelport_gpu_quarantined",
        "1 for a GPU that nothing is placed on because its memory did not come back.",
        labels=["device"],
    )
    for device, is_quarantined in quarantines.items():
        found.add_metric([device], float(is_quarantined))
    return found
