"""Our own processes and the GPUs on the page, and what a snapshot makes of the gateway."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from app.certificate.certificate import Outcome
from app.supervisor.capacity.devices import GpuLoad
from app.supervisor.capacity.gpu_quarantine import Quarantine
from app.supervisor.metrics.backend_series import BackendCounts
from app.supervisor.metrics.bucket_counts import BucketCounts
from app.supervisor.metrics.gpu_watch import GpuWatch
from app.supervisor.metrics.model_series import PairMember
from app.supervisor.metrics.page import MetricsPage
from app.supervisor.metrics.processes import read, read_all
from app.supervisor.metrics.relay_counters import RelayCounters
from app.supervisor.metrics.snapshot import GatewaySnapshot, pair_members, quarantines
from app.table import Backend, PublicModel, Table, Target, Wildcard
from backends.endpoint import State

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def page_of(seen: GatewaySnapshot, loads: Sequence[GpuLoad] = (), lag: Sequence[float] = ()) -> Samples:
    page = MetricsPage(RelayCounters(), lambda: seen, "1.2.3", gpus=lambda: loads)
    for seconds in lag:
        page.lag.observe(seconds)
    families = text_string_to_metric_families((await page.render()).decode())
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def labels(**values: str) -> frozenset[tuple[str, str]]:
    return frozenset(values.items())


async def test_our_own_process_is_measured() -> None:
    page = await page_of(GatewaySnapshot(pids={"supervisor": os.getpid(), "relay-0": 2**22 + 1}))

    ours = labels(process="supervisor")
    assert page["modelport_open_files", ours] >= 3
    assert page["modelport_open_files_limit", ours] >= page["modelport_open_files", ours]
    assert page["modelport_resident_memory_bytes", ours] > 10_000_000
    assert page["modelport_cpu_seconds_total", ours] > 0
    assert ("modelport_open_files", labels(process="relay-0")) not in page  # it has ended


def test_a_process_is_read_whatever_its_name_and_limit(tmp_path: Path) -> None:
    folder = tmp_path / "7"
    (folder / "fd").mkdir(parents=True)
    for number in range(4):
        (folder / "fd" / str(number)).touch()
    (folder / "stat").write_text("7 (a) b (c) S " + " ".join(["0"] * 10 + ["250", "150"] + ["0"] * 20))
    (folder / "statm").write_text("100 25 0 0 0 0 0")
    (folder / "limits").write_text("Limit Soft Hard Units\nMax open files            unlimited   unlimited   files\n")

    (tmp_path / "stat").write_text("cpu 1 2\nbtime 1700000000\n")

    figures = read(folder)

    assert figures is not None
    assert (figures.open_files, figures.open_files_limit) == (4, math.inf)
    assert figures.resident_bytes == 25 * os.sysconf("SC_PAGE_SIZE")
    assert figures.cpu_s == 400 / os.sysconf("SC_CLK_TCK")
    assert read_all({"gone": 8, "there": 7}, tmp_path) == {"there": figures}


async def test_gpus_that_we_may_use_are_on_the_page() -> None:
    seen = GatewaySnapshot(quarantines={"GPU-a": False, "MIG-b": True})
    loads = (GpuLoad("GPU-a", 3, 80, 0.37), GpuLoad("MIG-b", 1, 10), GpuLoad("GPU-c", 1, 80, 0.0))

    page = await page_of(seen, loads)

    assert page["modelport_gpu_memory_used_bytes", labels(device="GPU-a")] == 3
    assert page["modelport_gpu_memory_total_bytes", labels(device="MIG-b")] == 10
    assert page["modelport_gpu_utilization_ratio", labels(device="GPU-a")] == 0.37
    assert ("modelport_gpu_utilization_ratio", labels(device="MIG-b")) not in page
    assert not [each for _, each in page if each == labels(device="GPU-c")]


async def test_a_driver_that_hangs_is_asked_by_one_thread_only_and_delays_nobody() -> None:
    asked, released = [], threading.Event()

    def loads() -> Sequence[GpuLoad]:
        asked.append(threading.get_ident())
        released.wait(20)
        return (GpuLoad("GPU-a", 1, 2),)

    watch = GpuWatch(loads, answer_s=0.05)
    with capture_logs() as logs:
        assert [await watch.read() for _ in range(3)] == [()] * 3
    assert len(asked) == 1
    assert [entry["event"] for entry in logs] == ["loads of GPUs not readable: the driver does not respond"]

    released.set()
    async with asyncio.timeout(20):
        while not await watch.read():  # noqa: ASYNC110  # a thread has no Event for us
            await asyncio.sleep(0.01)


async def test_a_driver_that_fails_leaves_the_page_whole() -> None:
    def loads() -> Sequence[GpuLoad]:
        raise RuntimeError("a mistake of our own")

    with capture_logs() as logs:
        assert await GpuWatch(loads).read() == ()

    assert [entry["log_level"] for entry in logs] == ["error"]


async def test_lag_and_starts_are_histograms() -> None:
    starts = BucketCounts((1.0, 5.0))
    for seconds in (0.5, 1.0, 3.0, 60.0):
        starts.observe(seconds)
    counts = BackendCounts("gpu", State.READY, 0, waiting=2, waiting_limit=256, starts={"wake": starts})
    counts = replace(counts, refused={"full": 0, "late": 3}, waits={"batch": starts})

    page = await page_of(GatewaySnapshot([counts, BackendCounts("cloud", State.READY, 0)]), lag=(0.0005, 20.0))

    gpu = {"modelport_backend": "gpu", "how": "wake"}
    name = "modelport_backend_start_seconds"
    assert [page[f"{name}_bucket", labels(**gpu, le=bound)] for bound in ("1.0", "5.0", "+Inf")] == [2, 3, 4]
    assert (page[f"{name}_count", labels(**gpu)], page[f"{name}_sum", labels(**gpu)]) == (4, 64.5)
    assert page["modelport_backend_waiting_limit", labels(modelport_backend="gpu")] == 256
    assert ("modelport_backend_waiting_limit", labels(modelport_backend="cloud")) not in page
    refused = "modelport_queue_refused_total"
    assert [page[refused, labels(modelport_backend="gpu", reason=each)] for each in ("full", "late")] == [0, 3]
    batch = labels(modelport_backend="gpu", priority="batch")
    assert page["modelport_queue_wait_seconds_count", batch] == 4
    lag = "modelport_event_loop_lag_seconds"
    assert page[f"{lag}_bucket", labels(process="supervisor", le="0.001")] == 1
    assert page[f"{lag}_count", labels(process="supervisor")] == 2
    assert page[f"{lag}_sum", labels(process="supervisor")] == 20.0005


async def test_certificates_and_pairs_are_there_to_be_joined() -> None:
    members = [PairMember("law", "base", "qwen"), PairMember("law", "tuned", 'qwen "law"')]
    seen = GatewaySnapshot(outcomes=[("qwen", "gpu", Outcome.OUTDATED)], members=members)

    page = await page_of(seen)

    certificate = labels(gen_ai_request_model="qwen", modelport_backend="gpu", verdict="outdated")
    assert page["modelport_certificate", certificate] == 1
    tuned = labels(pair="law", role="tuned", gen_ai_request_model='qwen "law"')
    assert page["modelport_pair_info", tuned] == 1


def test_the_models_of_pairs_have_the_names_that_requests_are_counted_under() -> None:
    model = PublicModel("qwen", (Target("gpu", "qwen"),))
    table = Table(
        1, {"qwen": model}, {"q": "qwen"}, (Wildcard("o/", "gpu"),), {"gpu": Backend("gpu", "vllm", State.READY)}
    )

    members = pair_members({"p": {"before": "q", "after": "o/m"}, "gone": {"a": "nobody", "b": "qwen"}}, table)

    assert members == [
        PairMember("p", "base", "qwen"),
        PairMember("p", "tuned", "o/*"),
        PairMember("gone", "base", "nobody"),
        PairMember("gone", "tuned", "qwen"),
    ]


def test_a_gpu_that_is_gone_from_the_list_stays_in_quarantine() -> None:
    lost = Quarantine("GPU-x", "gpu", 3.5)

    assert quarantines(["GPU-a"], [lost]) == {"GPU-a": False, "GPU-x": True}
