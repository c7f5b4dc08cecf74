"""`/metrics` over real processes that count with prometheus_client's multiprocess mode."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.supervisor.scrape import Counters, Life, Scrape
from backends.base import State

RELAY = """
import os, sys
from prometheus_client import Counter, Gauge, Histogram
Counter("requests", "r", ["model"]).labels("m").inc(int(sys.argv[1]))
Gauge("in_flight", "g", multiprocess_mode="livesum").inc(int(sys.argv[1]))
Histogram("took_seconds", "h", buckets=[1, 2]).observe(1.5)
print(os.getpid(), flush=True)
sys.stdin.read()
"""


class Relay:
    """A process that has counted `count` and lives until it is ended."""

    def __init__(self, folder: Path, count: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", RELAY, str(count)],
            env={"PROMETHEUS_MULTIPROC_DIR": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.pid = int(self._process.stdout.readline())

    def end(self) -> None:
        """Kill it; what it counted is on disk."""
        self._process.kill()
        self._process.communicate()


def _values(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def _files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def _scrape(folder: Path, *lives: Life) -> Scrape:
    return Scrape(Counters(folder), lambda: lives, "1.2.3")


async def test_the_relays_are_added_up_also_the_dead_ones(tmp_path: Path) -> None:
    counters = Counters(tmp_path)
    scrape = Scrape(counters, list, "1.2.3")
    relays = [Relay(tmp_path, count) for count in (3, 4)]
    try:
        before = _values(await scrape.render())
        relays[0].end()
        counters.bury(relays[0].pid)
        after = _values(await scrape.render())
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
    assert after[("took_seconds_sum", ())] == 3


async def test_relays_that_die_again_and_again_do_not_fill_the_folder(tmp_path: Path) -> None:
    counters = Counters(tmp_path)
    for _ in range(3):
        relay = Relay(tmp_path, 2)
        relay.end()
        counters.bury(relay.pid)

    page = _values(await Scrape(counters, list, "1.2.3").render())

    assert page[("requests_total", (("model", "m"),))] == 6
    assert _files(tmp_path) == ["counter_buried.db", "histogram_buried.db"]


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\0" * 65_536], ids=["empty", "header only", "fresh"])
async def test_a_file_that_was_made_this_moment_is_no_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "counter_77.db").write_bytes(content)
    counters = Counters(tmp_path)

    page = await Scrape(counters, list, "1.2.3").render()
    counters.bury(77)

    assert b"modelport_build_info" in page
    assert not (tmp_path / "counter_77.db").exists()


async def test_every_gpu_is_in_quarantine_or_not(tmp_path: Path) -> None:
    scrape = Scrape(Counters(tmp_path), list, "1.2.3", lambda: {"GPU-a": True, "GPU-b": False})

    page = _values(await scrape.render())

    assert page[("modelport_gpu_quarantined", (("device", "GPU-a"),))] == 1
    assert page[("modelport_gpu_quarantined", (("device", "GPU-b"),))] == 0


async def test_every_backend_is_in_exactly_one_state(tmp_path: Path) -> None:
    scrape = _scrape(tmp_path, Life("gpu", State.READY, 2), Life("demo", State.STARTING, 0))

    page = _values(await scrape.render())

    ones = {labels for (name, labels), value in page.items() if name == "modelport_backend_state" and value == 1}
    assert ones == {
        (("modelport_backend", "gpu"), ("state", "ready")),
        (("modelport_backend", "demo"), ("state", "starting")),
    }
    assert sum(name == "modelport_backend_state" for name, _ in page) == 2 * len(State)
    assert page[("modelport_backend_restarts_total", (("modelport_backend", "gpu"),))] == 2
    assert page[("modelport_backend_swaps_total", (("modelport_backend", "gpu"),))] == 0
    assert page[("modelport_build_info", (("version", "1.2.3"),))] == 1
