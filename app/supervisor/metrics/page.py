"""`/metrics`: what all relays have counted, and how backends, models, processes and GPUs are now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from app.metrics import LAG
from app.supervisor.capacity import devices
from app.supervisor.capacity.devices import GpuLoad
from app.supervisor.metrics.backend_series import backend_series
from app.supervisor.metrics.bucket_counts import BucketCounts
from app.supervisor.metrics.gpu_watch import GpuWatch
from app.supervisor.metrics.machine_series import (
    build_series,
    disk_series,
    gpu_series,
    process_series,
    quarantine_series,
)
from app.supervisor.metrics.model_series import model_series
from app.supervisor.metrics.processes import read_all
from app.supervisor.metrics.relay_counters import RelayCounters
from app.supervisor.metrics.snapshot import GatewaySnapshot
from app.supervisor.metrics.team_series import team_series


class MetricsPage:
    """Renders `/metrics` in a thread: it is megabytes of text where there are hundreds of models.

    `seen`: the gateway as it is now; `gpus`: how loaded the GPUs are, which may block. `lag`: how late the supervisor's
    event loop is.
    """

    def __init__(
        self,
        counters: RelayCounters,
        seen: Callable[[], GatewaySnapshot],
        version: str,
        gpus: Callable[[], Sequence[GpuLoad]] = devices.loads,
    ) -> None:
        self.lag = BucketCounts(LAG.bounds)
        self._counters = counters
        self._seen = seen
        self._version = version
        self._gpus = GpuWatch(gpus)

    async def render(self) -> bytes:
        """The page as it is now, in Prometheus's text format."""
        seen = self._seen()
        # Without a GPU every question would look for the driver anew.
        loads = await self._gpus.read() if seen.quarantines else ()
        return await asyncio.to_thread(self._render, seen, loads)

    def _render(self, seen: GatewaySnapshot, loads: Sequence[GpuLoad]) -> bytes:
        own = [
            *backend_series(seen.backends),
            *model_series(seen.outcomes, seen.members),
            *team_series(seen.team),
            *process_series(read_all(seen.pids)),
            *gpu_series([load for load in loads if load.uuid in seen.quarantines]),
            quarantine_series(seen.quarantines),
            disk_series(seen.trouble),
            build_series(self._version),
        ]
        registry = CollectorRegistry()
        registry.register(_Snapshot(own))
        lag = self.lag.keyed(LAG, ("supervisor",))  # the relays' are in the same family
        return self._counters.render(lag) + generate_latest(registry)


class _Snapshot(Collector):
    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return iter(self._metrics)
