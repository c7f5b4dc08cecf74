"""The series of the backends, from what the fleet says of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from app.supervisor.metrics.bucket_counts import BucketCounts
from app.supervisor.replicas.adapters import AdapterCounts
from backends.endpoint import State

_BACKEND = "modelport_backend"


@dataclass(frozen=True, slots=True)
class BackendCounts:
    """The numbers of one backend at one moment. `waiting`: requests that wait for its start or for a place at it;
    `waiting_limit`: how many may, None where none ever waits. `adapters`: its loads of adapters by their ends, and how
    many adapters it does not have. `starts`: the seconds of its starts, by how it came to serve (`start`, `wake`).
    `refused`: requests that were not let wait for a place, by why; `waits`: the seconds that others have waited for
    one, by their priority; both empty where it never had a limit.
    `is_ejected`: requests pass it over; `ejections`: how often it came to that, by why.
    """

    backend: str
    state: State
    restarts: int
    swaps: int = 0
    waiting: int = 0
    adapters: AdapterCounts = field(default_factory=AdapterCounts)
    waiting_limit: int | None = None
    starts: Mapping[str, BucketCounts] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    waits: Mapping[str, BucketCounts] = field(default_factory=dict)
    is_ejected: bool = False
    ejections: Mapping[str, int] = field(default_factory=dict)


def backend_series(backends: Sequence[BackendCounts]) -> Iterator[Metric]:
    """All of them; a family without a backend is there too."""
    yield _states(backends)
    yield _counter("restarts", "Starts of a backend after one that ended unasked.", backends, "restarts")
    yield _counter("swaps", "How often a backend made way for another one.", backends, "swaps")
    yield from _queues(backends)
    yield _starts(backends)
    yield from _adapters(backends)
    yield from _ejections(backends)


def _states(backends: Sequence[BackendCounts]) -> Metric:
    state = GaugeMetricFamily(
        "modelport_backend_state", "1 for the state a backend is in, 0 for the others.", labels=[_BACKEND, "state"]
    )
    for counts in backends:
        for each in State:
            state.add_metric([counts.backend, each.value], 1.0 if counts.state is each else 0.0)
    return state


def _counter(name: str, text: str, backends: Sequence[BackendCounts], attribute: str) -> Metric:
    counter = CounterMetricFamily(f"modelport_backend_{name}_total", text, labels=[_BACKEND])
    for counts in backends:
        counter.add_metric([counts.backend], getattr(counts, attribute))
    return counter


def _queues(backends: Sequence[BackendCounts]) -> Iterator[Metric]:
    waiting = GaugeMetricFamily(
        "modelport_backend_waiting",
        "Requests that wait for a backend to start, or for a place at one that has as many as it may have.",
        labels=[_BACKEND],
    )
    limit = GaugeMetricFamily(
        "modelport_backend_waiting_limit", "The most requests that may wait for a backend.", labels=[_BACKEND]
    )
    for counts in backends:
        waiting.add_metric([counts.backend], counts.waiting)
        if counts.waiting_limit is not None:
            limit.add_metric([counts.backend], counts.waiting_limit)
    yield from (waiting, limit)
    refused = CounterMetricFamily(
        "modelport_queue_refused_total",
        "Requests that were refused a place at a backend, and the wait for one.",
        labels=[_BACKEND, "reason"],
    )
    waits = HistogramMetricFamily(
        "modelport_queue_wait_seconds",
        "How long the requests that got a place at a backend have waited for it.",
        labels=[_BACKEND, "priority"],
    )
    for counts in backends:
        for reason, count in counts.refused.items():
            refused.add_metric([counts.backend, reason], count)
        for priority, seconds in counts.waits.items():
            waits.add_metric([counts.backend, priority], seconds.cumulated(), seconds.sum)
    yield from (refused, waits)


def _starts(backends: Sequence[BackendCounts]) -> Metric:
    seconds = HistogramMetricFamily(
        "modelport_backend_start_seconds",
        "From the start of a backend's process, or from its waking, until it served.",
        labels=[_BACKEND, "how"],
    )
    for counts in backends:
        for how, buckets in counts.starts.items():
            seconds.add_metric([counts.backend, how], buckets.cumulated(), buckets.sum)
    return seconds


def _adapters(backends: Sequence[BackendCounts]) -> Iterator[Metric]:
    loads = CounterMetricFamily(
        "modelport_adapter_loads_total",
        "Loads of adapters by what their proof has shown: proved, unclear, failed, or off.",
        labels=[_BACKEND, "verdict"],
    )
    missing = GaugeMetricFamily(
        "modelport_adapters_missing", "Adapters that a backend is to have and has not.", labels=[_BACKEND]
    )
    for counts in backends:
        for verdict, count in counts.adapters.loads.items():
            loads.add_metric([counts.backend, verdict], count)
        missing.add_metric([counts.backend], counts.adapters.missing)
    yield from (loads, missing)


def _ejections(backends: Sequence[BackendCounts]) -> Iterator[Metric]:
    ejected = GaugeMetricFamily(
        "modelport_backend_ejected",
        "1 while requests pass a backend over, because those before failed or were slow; else 0.",
        labels=[_BACKEND],
    )
    ejections = CounterMetricFamily(
        "modelport_ejections_total",
        "How often requests have begun to pass a backend over, by why: failures, share, silent or slow.",
        labels=[_BACKEND, "reason"],
    )
    for counts in backends:
        ejected.add_metric([counts.backend], 1.0 if counts.is_ejected else 0.0)
        for reason, count in counts.ejections.items():
            ejections.add_metric([counts.backend, reason], count)
    yield from (ejected, ejections)
