"""`/metrics` over real processes that count."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.shared_counters import FIRST_BYTES, Family, SharedCounters
from app.supervisor.metrics.backend_series import BackendCounts
from app.supervisor.metrics.page import MetricsPage
from app.supervisor.metrics.relay_counters import RelayCounters
from app.supervisor.metrics.snapshot import GatewaySnapshot
from app.supervisor.replicas.adapters import AdapterCounts
from backends.endpoint import State
from tests import ROOT

RELAY = """
import os, sys
from app.shared_counters import Family, SharedCounters
counters = SharedCounters(int(sys.argv[1]))
counters.counters(Family("counter", "requests_total", "r", ("model",)))["m",].inc(int(sys.argv[2]))
counters.gauges(Family("gauge", "in_flight", "g"))[()].inc(int(sys.argv[2]))
counters.histograms(Family("histogram", "took_seconds", "h", (), (1.0, 2.0)))[()].observe(1.5)
print(os.getpid(), flush=True)
sys.stdin.read()
"""


ENTRY = b'["counter","done_total","d",{},[]]'


def _words(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(8, sys.byteorder) for number in numbers)


class Relay:
    """A process that has counted `count` and lives until it is ended."""

    def __init__(self, counters: RelayCounters, count: int) -> None:
        self._counters = counters
        self._ledger = counters.open()
        self._process = subprocess.Popen(
            [sys.executable, "-c", RELAY, str(self._ledger), str(count)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self._ledger],
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def end(self) -> None:
        """Kill it; what it counted stays."""
        self._process.kill()
        self._process.communicate()
        self._counters.close(self._ledger)


def _values(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def _page_of(*backends: BackendCounts) -> MetricsPage:
    return MetricsPage(RelayCounters(), lambda: GatewaySnapshot(backends), "1.2.3")


async def test_the_relays_are_added_up_also_the_dead_ones() -> None:
    counters = RelayCounters()
    metrics = MetricsPage(counters, GatewaySnapshot, "1.2.3")
    relays = [Relay(counters, count) for count in (3, 4)]
    try:
        before = _values(await metrics.render())
        relays[0].end()
        after = _values(await metrics.render())
    finally:
        for relay in relays:
            relay.end()

    assert before[("requests_total", (("model", "m"),))] == 7
    assert before[("in_flight", ())] == 7
    assert after[("requests_total", (("model", "m"),))] == 7
    assert after[("in_flight", ())] == 4
    assert after[("took_seconds_count", ())] == 2
    assert after[("took_seconds_bucket", (("le", "2.0"),))] == 2
    assert after[("took_seconds_bucket", (("le", "1.0"),))] == 0
    assert after[("took_seconds_bucket", (("le", "+Inf"),))] == 2
    assert after[("took_seconds_sum", ())] == 3


async def test_relays_that_die_again_and_again_take_no_more_room() -> None:
    counters = RelayCounters()
    for _ in range(3):
        Relay(counters, 2).end()

    page = _values(await MetricsPage(counters, GatewaySnapshot, "1.2.3").render())

    assert page[("requests_total", (("model", "m"),))] == 6
    assert repr(counters) == "<RelayCounters relays=0 ended=2>"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(8),
        bytes(65_536),
        b"\xff" * 64,
        b"\x40" + bytes(30),
        _words(8, 9),
        _words(40, 8, 1, 0, 0, 0),
        _words(24 + 56, len(ENTRY), 2) + ENTRY.ljust(56) + bytes(8),
        _words(20, 0, 0, 0),
    ],
    ids=[
        "empty",
        "header only",
        "fresh",
        "negative",
        "cut",
        "entry beyond the end",
        "no key",
        "another length",
        "half a number",
    ],
)
async def test_a_ledger_that_is_empty_or_spoilt_is_no_error(content: bytes) -> None:
    counters = RelayCounters()
    ledger = counters.open()
    os.pwrite(ledger, content, 0)

    page = await MetricsPage(counters, GatewaySnapshot, "1.2.3").render()
    counters.close(ledger)

    assert b"modelport_build_info" in page
    assert repr(counters) == "<RelayCounters relays=0 ended=0>"


def test_every_byte_of_a_ledger_is_there_before_it_is_mapped() -> None:
    """A mapped file with holes in it ends the process by SIGBUS when the disk is full."""
    counters = RelayCounters()
    descriptor = counters.open()
    ledger = SharedCounters(descriptor)
    many = ledger.counters(Family("counter", "many_total", "m", ("n",)))
    for number in range(2_000):
        many[str(number),].inc(number)
    for number in range(2_000):
        many[str(number),].inc()

    status = os.fstat(descriptor)
    page = {dict(labels)["n"]: value for (_, labels), value in _values(counters.render()).items()}
    counters.close(descriptor)

    assert status.st_size > FIRST_BYTES
    assert status.st_blocks * 512 >= status.st_size
    assert page == {str(number): number + 1 for number in range(2_000)}


def test_without_memory_for_it_a_number_waits_in_its_process() -> None:
    counters = RelayCounters()
    descriptor = counters.open()
    ledger = SharedCounters(descriptor)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        done = ledger.counters(Family("counter", "done_total", "d"))[()]
        done.inc(2)
        ledger.settle()
        without = counters.render()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    done.inc(3)
    ledger.settle()
    done.inc(4)
    numbers = _values(counters.render())
    counters.close(descriptor)

    assert without == b""
    assert numbers == {("done_total", ()): 9}


async def test_a_state_folder_that_cannot_be_written_is_a_number_too() -> None:
    troubles = [None, "No space left on device"]
    metrics = MetricsPage(RelayCounters(), lambda: GatewaySnapshot(trouble=troubles.pop()), "1.2.3")

    full, well = _values(await metrics.render()), _values(await metrics.render())

    assert full[("modelport_state_folder_full", ())] == 1
    assert well[("modelport_state_folder_full", ())] == 0


async def test_every_gpu_is_in_quarantine_or_not() -> None:
    seen = GatewaySnapshot(quarantines={"GPU-a": True, "GPU-b": False})
    metrics = MetricsPage(RelayCounters(), lambda: seen, "1.2.3")

    page = _values(await metrics.render())

    assert page[("modelport_gpu_quarantined", (("device", "GPU-a"),))] == 1
    assert page[("modelport_gpu_quarantined", (("device", "GPU-b"),))] == 0


async def test_loads_of_adapters_are_counted_by_what_their_proof_has_shown() -> None:
    counts = AdapterCounts({"proved": 3, "failed": 1}, missing=1)
    metrics = _page_of(BackendCounts("gpu", State.READY, 0, adapters=counts), BackendCounts("demo", State.READY, 0))

    page = _values(await metrics.render())

    loads = {labels: value for (name, labels), value in page.items() if name == "modelport_adapter_loads_total"}
    assert loads == {
        (("modelport_backend", "gpu"), ("verdict", "proved")): 3,
        (("modelport_backend", "gpu"), ("verdict", "failed")): 1,
    }
    assert page[("modelport_adapters_missing", (("modelport_backend", "gpu"),))] == 1
    assert page[("modelport_adapters_missing", (("modelport_backend", "demo"),))] == 0


async def test_every_backend_is_in_exactly_one_state() -> None:
    metrics = _page_of(BackendCounts("gpu", State.READY, 2), BackendCounts("demo", State.STARTING, 0))

    page = _values(await metrics.render())

    ones = {labels for (name, labels), value in page.items() if name == "modelport_backend_state" and value == 1}
    assert ones == {
        (("modelport_backend", "gpu"), ("state", "ready")),
        (("modelport_backend", "demo"), ("state", "starting")),
    }
    assert sum(name == "modelport_backend_state" for name, _ in page) == 2 * len(State)
    assert page[("modelport_backend_restarts_total", (("modelport_backend", "gpu"),))] == 2
    assert page[("modelport_backend_swaps_total", (("modelport_backend", "gpu"),))] == 0
    assert page[("modelport_build_info", (("version", "1.2.3"),))] == 1
