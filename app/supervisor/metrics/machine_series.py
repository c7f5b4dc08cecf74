"""The series of our processes and of the machine's GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from app.supervisor.capacity.devices import GpuLoad
from app.supervisor.metrics.processes import ProcessFigures


def process_series(processes: Mapping[str, ProcessFigures]) -> Iterator[Metric]:
    """Files, memory, processor time and start of each process by its name."""
    files = GaugeMetricFamily("modelport_open_files", "Files that a process has open.", labels=["process"])
    limit = GaugeMetricFamily(
        "modelport_open_files_limit", "The most files that a process may have open.", labels=["process"]
    )
    memory = GaugeMetricFamily(
        "modelport_resident_memory_bytes", "Memory of a process that is not swapped out.", labels=["process"]
    )
    cpu = CounterMetricFamily(
        "modelport_cpu_seconds_total", "Processor time that a process has taken, user and system.", labels=["process"]
    )
    started = GaugeMetricFamily(
        "modelport_process_start_time_seconds", "When a process was started, since 1970.", labels=["process"]
    )
    for name, figures in processes.items():
        files.add_metric([name], figures.open_files)
        limit.add_metric([name], figures.open_files_limit)
        memory.add_metric([name], figures.resident_bytes)
        cpu.add_metric([name], figures.cpu_s)
        started.add_metric([name], figures.started_at)
    yield from (files, limit, memory, cpu, started)


def gpu_series(loads: Sequence[GpuLoad]) -> Iterator[Metric]:
    """Memory and utilization of each GPU, as far as NVML says it."""
    used = GaugeMetricFamily("modelport_gpu_memory_used_bytes", "Memory of a GPU that is taken.", labels=["device"])
    total = GaugeMetricFamily("modelport_gpu_memory_total_bytes", "Memory of a GPU.", labels=["device"])
    busy = GaugeMetricFamily(
        "modelport_gpu_utilization_ratio", "Part of the time that a GPU was busy, 0 to 1.", labels=["device"]
    )
    for load in loads:
        used.add_metric([load.uuid], load.used_bytes)
        total.add_metric([load.uuid], load.total_bytes)
        if load.utilization is not None:
            busy.add_metric([load.uuid], load.utilization)
    yield from (used, total, busy)


def quarantine_series(quarantines: Mapping[str, bool]) -> Metric:
    """Every GPU, and whether it is in quarantine."""
    gauge = GaugeMetricFamily(
        "modelport_gpu_quarantined",
        "1 for a GPU that nothing is placed on because its memory did not come back.",
        labels=["device"],
    )
    for device, is_quarantined in quarantines.items():
        gauge.add_metric([device], float(is_quarantined))
    return gauge


def disk_series(trouble: str | None) -> Metric:
    """Whether the state folder can be written."""
    gauge = GaugeMetricFamily(
        "modelport_state_folder_full",
        "1 while nothing can be written into the state folder, because its disk is full, for example.",
    )
    gauge.add_metric([], float(trouble is not None))
    return gauge


def build_series(version: str) -> Metric:
    """Which version runs."""
    build = GaugeMetricFamily("modelport_build_info", "The version that runs.", labels=["version"])
    build.add_metric([version], 1.0)
    return build
