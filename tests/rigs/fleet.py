"""A fleet with fake engines in real processes, and the rest of the gateway as the fleet sees it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from app.supervisor.capacity.gpu_quarantine import GpuQuarantine
from app.supervisor.capacity.schedule import Capacity
from app.supervisor.capacity.sizes import Sizes
from app.supervisor.fleet.fleet import Fleet
from app.supervisor.fleet.status import BackendStatus
from app.table import Backend
from backends import kinds
from backends.config.base import BackendConfig
from backends.endpoint import Endpoint, State
from backends.engine import Adapters, Engine, Fetcher, Launch, Probe, Sleeper
from backends.errors import BackendError, EngineFailed
from backends.http.probe_client import ProbeClient
from backends.llama_cpp.config import LlamaCppConfig
from backends.llama_cpp.gguf import BadModel
from backends.process import ownership


class FakeManaged:
    """An engine that we run and that loads at once: `config.model` holds the options of tests.fakes.engine."""

    is_strict = False
    fetcher: Fetcher | None = None
    sleeper: Sleeper | None = None
    adapters: Adapters | None = None

    def __init__(self, name: str, config: LlamaCppConfig) -> None:
        self.name = name
        self._config = config
        self._client = ProbeClient(name)

    def launch(self, port: int, devices: Sequence[str], key: str) -> Launch:
        if self._config.model == "missing":
            raise BadModel(self.name, "the model is missing", Path("/models/secret.gguf"))
        if self._config.model == "bug":
            raise ZeroDivisionError
        if self._config.model.startswith("/"):
            Path(self._config.model).read_bytes()  # a pipe: until somebody writes
        options = () if self._config.model == "plain" else self._config.model.split()
        argv = (sys.executable, "-m", "tests.fakes.engine", "--port", str(port), *options)
        return Launch(argv, {**os.environ, "FAKE_ENGINE_KEY": key})

    def inputs(self) -> Sequence[Path]:
        return [Path(self._config.model)] if self._config.model.startswith("/") else []

    def endpoint(self, generation: int, port: int, key: str) -> Endpoint:
        return Endpoint(self.name, generation, f"http://127.0.0.1:{port}/v1", {"authorization": f"Bearer {key}"})

    async def probe(self, endpoint: Endpoint) -> Probe:
        if "--model bug" in self._config.model:
            raise ZeroDivisionError
        try:
            reply = await self._client.ask(f"{endpoint.address}/models", endpoint.headers, timeout_s=10)
        except BackendError as exc:
            return Probe(False, exc.message)
        return Probe(reply.status == 200, f"status {reply.status}", ("fake",))

    async def warm_up(self, endpoint: Endpoint) -> None:
        body = {"model": "fake", "prompt": "a"}
        reply = await self._client.ask(f"{endpoint.address}/completions", endpoint.headers, timeout_s=10, body=body)
        if reply.status != 200:
            raise EngineFailed(self.name, f"status {reply.status}")


def engine(name: str, config: BackendConfig) -> Engine:
    return FakeManaged(name, config) if isinstance(config, LlamaCppConfig) else kinds.engine(name, config)


def managed(options: str = "plain", **values: object) -> LlamaCppConfig:
    return LlamaCppConfig.model_validate({"kind": "llama_cpp", "model": options, **values})


class Relays:
    """The rest of the gateway as the fleet sees it: takes tables, holds leases."""

    def __init__(self) -> None:
        self.published: list[Mapping[str, Backend]] = []
        self.leases: dict[tuple[str, int], int] = {}
        self.returned: set[tuple[str, int]] = set()
        self.is_behind = False
        self._changed = asyncio.Condition()
        self._notices: set[asyncio.Task[None]] = set()

    def publish(self, rows: Mapping[str, Backend]) -> int:
        self.published.append(dict(rows))
        notice = asyncio.create_task(self._notify())
        self._notices.add(notice)
        notice.add_done_callback(self._notices.discard)
        return len(self.published)

    def held(self, backend: str, generation: int) -> int:
        return self.leases.get((backend, generation), 0)

    def has_returned(self, backend: str, generation: int) -> bool:
        return (backend, generation) in self.returned

    def is_applied(self, version: int) -> bool:
        return not self.is_behind

    def row(self, name: str) -> Backend:
        return self.published[-1][name]

    def states(self, name: str) -> list[State]:
        """The states in which it was published, repetitions left out."""
        states = [rows[name].state for rows in self.published if name in rows]
        return [state for at, state in enumerate(states) if at == 0 or states[at - 1] is not state]

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(is_so)

    async def until_state(self, name: str, state: State, generation: int = 0) -> Backend:
        def is_so() -> bool:
            row = self.published[-1].get(name) if self.published else None
            if row is None or row.state is not state:
                return False
            return row.endpoint is None or row.endpoint.generation >= generation

        await self.until(is_so)
        return self.row(name)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@asynccontextmanager
async def running(
    relays: Relays,
    capacity: Capacity | None = None,
    make: Callable[[str, BackendConfig], Engine] = engine,
    /,
    implicit: Collection[str] = (),
    quarantine: GpuQuarantine | None = None,
    sizes: Sizes | None = None,
    **backends: BackendConfig,
) -> AsyncIterator[Fleet]:
    fleet = Fleet(
        backends,
        state_id=f"fleet-{os.getpid()}",
        publish=relays.publish,
        leases=relays,
        random=lambda: 0.0,
        engine=make,
        capacity=capacity,
        implicit=implicit,
        quarantine=quarantine,
        sizes=sizes,
    )
    task = asyncio.create_task(fleet.run())
    try:
        yield fleet
    finally:
        async with asyncio.timeout(60):
            await fleet.close(0)
            await task
        assert ownership.tagged(f"fleet-{os.getpid()}:") == []


def one(fleet: Fleet, name: str) -> BackendStatus:
    return next(status for status in fleet.status() if status.name == name)


def only(fleet: Fleet) -> BackendStatus:
    [status] = fleet.status()
    return status


def pid_of(fleet: Fleet) -> int:
    pid = only(fleet).pid
    assert pid is not None
    return pid


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
