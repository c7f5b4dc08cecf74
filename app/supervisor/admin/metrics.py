"""`/metrics`: what all relays counted, the dead ones too, and the states of the engines."""

from __future__ import annotations

import asyncio
import json
import math
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from app import shared_counters
from backends.endpoint import State

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Life:
    """One backend as it is counted."""

    backend: str
    state: State
    restarts: int
    swaps: int = 0
    waiting: int = 0


class RelayCounters:
    """The ledgers of all relays (app/shared_counters.py), and the sum of those whose relay is dead.

    Its methods are called in threads; the lock keeps a scrape from seeing a count twice or not at all.
    """

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._buried: dict[str, float] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Counters relays={len(self._open)} buried={len(self._buried)}>"

    def open(self) -> int:
        """The descriptor of a ledger for a relay that is about to start. OSError when there can be none."""
        with self._lock:
            descriptor = shared_counters.create()
            self._open.add(descriptor)
        return descriptor

    def bury(self, descriptor: int) -> None:
        """What that relay was doing is over; what it counted stays. Its descriptor is closed."""
        with self._lock:
            if descriptor in self._open:
                self._open.discard(descriptor)
                try:
                    for key, number in _counted(descriptor):
                        if json.loads(key)[0] != "gauge":
                            self._buried[key] = self._buried.get(key, 0.0) + number
                finally:
                    os.close(descriptor)

    def read(self) -> Sequence[Metric]:
        """Everything that was counted, over all processes."""
        with self._lock:
            total: defaultdict[str, float] = defaultdict(float, self._buried)
            for descriptor in self._open:
                for key, number in _counted(descriptor):
                    total[key] += number
        return _as_metrics(total)


def _counted(descriptor: int) -> list[tuple[str, float]]:
    """All of a ledger or nothing: half of it would be as wrong, and the others' page must be rendered."""
    try:
        return list(shared_counters.entries(descriptor))
    except (OSError, ValueError) as exc:
        log.error("counters of a relay lost", reason=str(exc))
        return []


def _as_metrics(numbers: Mapping[str, float]) -> list[Metric]:
    """As Prometheus has them: a histogram's buckets hold what is below them, too."""
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
    in_words: Callable[[float], str] = floatToGoString
    for (family, labels), found in buckets.items():
        below = 0.0
        for bound, number in sorted(found):
            below += number
            families[family].add_sample(f"{family}_bucket", {**dict(labels), "le": in_words(bound)}, below)
        families[family].add_sample(f"{family}_count", dict(labels), below)
    return list(families.values())


def _bound(told: str) -> float:
    return math.inf if told == "+Inf" else float(told)


class Scrape:
    """Renders `/metrics` in a thread: with 800 histograms it takes 171 ms (docs/performance.md).

    `quarantines`: every GPU, and whether it is in quarantine. `trouble`: why the state folder cannot be written.
    """

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(
        self,
        counters: RelayCounters,
        lives: Callable[[], Sequence[Life]],
        version: str,
        quarantines: Callable[[], Mapping[str, bool]] = dict,
        trouble: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._counters = counters
        self._lives = lives
        self._version = version
        self._quarantines = quarantines
        self._trouble = trouble

    async def render(self) -> bytes:
        """The page of this moment."""
        return await asyncio.to_thread(self._render, self._lives(), self._quarantines())

    def _render(self, lives: Sequence[Life], quarantines: Mapping[str, bool]) -> bytes:
        registry = CollectorRegistry()
        own = [*_families(lives, self._version), _quarantine(quarantines), _storage(self._trouble())]
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


def _storage(trouble: str | None) -> Metric:
    found = GaugeMetricFamily(
        "modelport_state_folder_full",
        "1 while nothing can be written into the state folder, because its disk is full, for example.",
    )
    found.add_metric([], float(trouble is not None))
    return found
