"""`/metrics`: what all relays have counted, also those that ended, and the states of the backends."""

from __future__ import annotations

import asyncio
import json
import math
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from app import shared_counters
from app.supervisor.replicas.adapters import AdapterCounts
from backends.endpoint import State

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BackendCounts:
    """The numbers of one backend at one moment. `waiting`: requests that wait for a place at it; `adapters`: its loads
    of adapters by their ends, and how many adapters it does not have.
    """

    backend: str
    state: State
    restarts: int
    swaps: int = 0
    waiting: int = 0
    adapters: AdapterCounts = field(default_factory=AdapterCounts)


class RelayCounters:
    """The counters of all running relays (app/shared_counters.py), and the sum of those of relays that ended.

    Its methods are called in threads; the lock keeps a reader from seeing a count twice or not at all.
    """

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._ended: dict[str, float] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<RelayCounters relays={len(self._open)} ended={len(self._ended)}>"

    def open(self) -> int:
        """A file descriptor with fresh counters, for a relay that is about to start. OSError without memory for it."""
        with self._lock:
            descriptor = shared_counters.create()
            self._open.add(descriptor)
        return descriptor

    def close(self, descriptor: int) -> None:
        """Take over what an ended relay has counted and close its descriptor. Its gauges are dropped."""
        with self._lock:
            if descriptor in self._open:
                self._open.discard(descriptor)
                try:
                    for key, number in _counted(descriptor):
                        if json.loads(key)[0] != "gauge":
                            self._ended[key] = self._ended.get(key, 0.0) + number
                finally:
                    os.close(descriptor)

    def read(self) -> Sequence[Metric]:
        """All series, each summed over all relays."""
        with self._lock:
            total: defaultdict[str, float] = defaultdict(float, self._ended)
            for descriptor in self._open:
                for key, number in _counted(descriptor):
                    total[key] += number
        return _as_metrics(total)


def _counted(descriptor: int) -> list[tuple[str, float]]:
    """All of a relay's counters, or none when they are damaged: the page with the others' must still be rendered."""
    try:
        return list(shared_counters.entries(descriptor))
    except (OSError, ValueError) as exc:
        log.error("counters of a relay lost", reason=str(exc))
        return []


def _as_metrics(numbers: Mapping[str, float]) -> list[Metric]:
    """The series as Prometheus wants them: a bucket of a histogram includes all below it."""
    families: dict[str, Metric] = {}
    buckets: defaultdict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[float, float]]] = defaultdict(list)
    for key, number in numbers.items():
        kind, _, family, name, labels, help_text = json.loads(key)
        metric = families.get(family)
        if metric is None:
            metric = families[family] = Metric(family, help_text, kind)
        if (bound := labels.pop("le", None)) is None or kind != "histogram":
            metric.add_sample(name, labels, number)
        else:
            buckets[family, tuple(sorted(labels.items()))].append((_bound(bound), number))
    as_text: Callable[[float], str] = floatToGoString
    for (family, labels), counts in buckets.items():
        below = 0.0
        for bound, number in sorted(counts):
            below += number
            families[family].add_sample(f"{family}_bucket", {**dict(labels), "le": as_text(bound)}, below)
        families[family].add_sample(f"{family}_count", dict(labels), below)
    return list(families.values())


def _bound(label: str) -> float:
    return math.inf if label == "+Inf" else float(label)


class MetricsPage:
    """Renders `/metrics` in a thread: with 800 histograms it takes 171 ms (docs/performance.md).

    `quarantines`: every GPU, and whether it is in quarantine; `trouble`: why the state folder cannot be written.
    """

    def __init__(
        self,
        counters: RelayCounters,
        backends: Callable[[], Sequence[BackendCounts]],
        version: str,
        quarantines: Callable[[], Mapping[str, bool]] = dict,
        trouble: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._counters = counters
        self._backends = backends
        self._version = version
        self._quarantines = quarantines
        self._trouble = trouble

    async def render(self) -> bytes:
        """The page as it is now, in Prometheus's text format."""
        return await asyncio.to_thread(self._render, self._backends(), self._quarantines())

    def _render(self, backends: Sequence[BackendCounts], quarantines: Mapping[str, bool]) -> bytes:
        registry = CollectorRegistry()
        own = [*_families(backends, self._version), _quarantine(quarantines), _disk(self._trouble())]
        registry.register(_Snapshot([*self._counters.read(), *own]))
        return generate_latest(registry)


class _Snapshot(Collector):
    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return iter(self._metrics)


def _families(backends: Sequence[BackendCounts], version: str) -> Iterator[Metric]:
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
    loads = CounterMetricFamily(
        "modelport_adapter_loads_total",
        "Loads of adapters by what their proof has shown: proved, unclear, failed, or off.",
        labels=["modelport_backend", "verdict"],
    )
    missing = GaugeMetricFamily(
        "modelport_adapters_missing", "Adapters that a backend is to have and has not.", labels=["modelport_backend"]
    )
    for counts in backends:
        for verdict, count in counts.adapters.loads.items():
            loads.add_metric([counts.backend, verdict], count)
        missing.add_metric([counts.backend], counts.adapters.missing)
        for each in State:
            state.add_metric([counts.backend, each.value], 1.0 if counts.state is each else 0.0)
        restarts.add_metric([counts.backend], counts.restarts)
        swaps.add_metric([counts.backend], counts.swaps)
        waiting.add_metric([counts.backend], counts.waiting)
    build = GaugeMetricFamily("modelport_build_info", "The version that runs.", labels=["version"])
    build.add_metric([version], 1.0)
    yield from (state, restarts, swaps, waiting, loads, missing, build)


def _quarantine(quarantines: Mapping[str, bool]) -> Metric:
    gauge = GaugeMetricFamily(
        "modelport_gpu_quarantined",
        "1 for a GPU that nothing is placed on because its memory did not come back.",
        labels=["device"],
    )
    for device, is_quarantined in quarantines.items():
        gauge.add_metric([device], float(is_quarantined))
    return gauge


def _disk(trouble: str | None) -> Metric:
    gauge = GaugeMetricFamily(
        "modelport_state_folder_full",
        "1 while nothing can be written into the state folder, because its disk is full, for example.",
    )
    gauge.add_metric([], float(trouble is not None))
    return gauge
