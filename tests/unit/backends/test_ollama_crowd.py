"""Fifty clients at once on a daemon with two slots: our own limit holds, and the others get a time to retry."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.fakes.ollama import FakeOllama
from tests.rigs.ollama import Threaded
from tests.rigs.raw_client import ask, chat
from tests.rigs.serving import running, until

CONFIG = """
backends:
  ollama: {kind: ollama, url: "URL", num_parallel: 2, max_in_flight: 2, max_waiting: 8, max_wait_s: 60}
models:
  small: {backend: ollama, model: "smollm2:135m"}
"""
CLIENTS, SLOTS, WAITING = 50, 2, 8


def slow(daemon: FakeOllama) -> None:
    daemon.num_parallel = SLOTS
    daemon.hold = asyncio.Event()


async def crowd(url: str, threaded: Threaded) -> None:
    daemon, hold = threaded.daemon, threaded.daemon.hold
    assert hold is not None
    asking = {
        asyncio.create_task(
            ask(url, "POST", "/v1/chat/completions", chat("small", stream=number % 2 == 0), within_s=60)
        )
        for number in range(CLIENTS)
    }
    refused: set[asyncio.Task[object]] = set()
    left = set(asking)
    while len(refused) < CLIENTS - SLOTS - WAITING:
        done, left = await asyncio.wait(left, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        assert done
        refused |= done
    threaded.call(hold.set)
    await asyncio.wait(left, timeout=60)

    replies = [task.result() for task in asking if task in refused]
    served = [task.result() for task in left]
    assert {(reply.status, reply.error["code"]) for reply in replies} == {(429, "engine_saturated")}
    assert all(1 <= int(reply.headers["retry-after"]) <= 120 for reply in replies)
    assert all(reply.headers["x-should-retry"] == "true" for reply in replies)
    assert [reply.status for reply in served] == [200] * (SLOTS + WAITING)
    assert all(reply.is_whole and reply.text for reply in served)
    assert daemon.most_running == SLOTS
    assert len(daemon.asked) == SLOTS + WAITING
    assert daemon.loads == [("smollm2:135m", 8192)]


def test_fifty_clients_on_two_slots_are_served_or_get_a_time_to_retry(tmp_path: Path) -> None:
    config = tmp_path / "crowd.yaml"
    with Threaded(slow) as threaded:
        config.write_text(CONFIG.replace("URL", threaded.daemon.url))
        with running(tmp_path, "--config", str(config)) as gateway:
            assert gateway.url
            until(lambda: gateway.status()["health"]["backends"][0]["state"] == "ready")

            asyncio.run(crowd(gateway.url, threaded))
