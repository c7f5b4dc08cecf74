"""What all relays have counted, also those that ended."""

from __future__ import annotations

import json
import math
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import structlog
from prometheus_client.core import Metric
from prometheus_client.utils import floatToGoString

from app import shared_counters

log = structlog.get_logger()


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
