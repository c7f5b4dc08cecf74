"""A real relay in front of the fake Ollama daemon, with the table that its own probe makes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

from app.table import Backend, Limits, Wildcard
from backends.endpoint import State
from backends.ollama.config import OllamaConfig
from backends.ollama.engine import Ollama
from tests.fakes.ollama import FakeOllama
from tests.rigs.relay import Rig, running


async def row(daemon: FakeOllama, **config: Any) -> Backend:
    """The daemon's row of the table, after one probe."""
    settings = OllamaConfig(kind="ollama", url=daemon.url, **config)
    engine = Ollama("ollama", settings)
    endpoint = engine.endpoint(1, 0, "")
    probe = await engine.probe(endpoint)
    assert probe.is_up, probe.reason
    return Backend(
        name="ollama",
        kind="ollama",
        state=State.READY,
        endpoint=endpoint,
        models=probe.models,
        is_strict=True,
        facts=dict(probe.facts),
    )


@contextlib.asynccontextmanager
async def gateway(daemon: FakeOllama, limits: Limits | None = None, **config: Any) -> AsyncIterator[Rig]:
    """A relay with every model of the daemon, under its own name and under `ollama/NAME`."""
    backend = await row(daemon, **config)
    async with running({"ollama": backend}, {}, limits) as rig:
        await rig.published(wildcards=(Wildcard("ollama/", "ollama"), Wildcard("", "ollama")))
        yield rig


class Threaded:
    """The fake daemon in a loop and a thread of its own, beside a gateway that is a process."""

    def __init__(self, make: Callable[[FakeOllama], None]) -> None:
        self.daemon: FakeOllama
        self._make = make
        self._loop: asyncio.AbstractEventLoop
        self._stopped: asyncio.Event
        self._ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self._stopped.set)
        self._thread.join(20)

    def call(self, what: Callable[[], object]) -> None:
        """Run this in the fake daemon's loop."""
        self._loop.call_soon_threadsafe(what)

    async def _serve(self) -> None:
        async with FakeOllama() as daemon:
            self.daemon, self._loop, self._stopped = daemon, asyncio.get_running_loop(), asyncio.Event()
            self._make(daemon)
            self._ready.set()
            await self._stopped.wait()
