"""One real relay on a real socket, in the test's own loop, with a supervisor whose table the test writes."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import uvicorn.server
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from app.ipc import Claim, Suspicion
from app.relay.server import relay
from app.shared_counters import SharedCounters
from app.supervisor.ejection.ejections import Ejections
from app.supervisor.fleet.waiters import WaitOutcome
from app.supervisor.metrics.relay_counters import RelayCounters
from app.supervisor.relays.leases import Leases
from app.supervisor.relays.server import RelayServer
from app.table import Backend, Limits, PublicModel, Table, Target
from backends.endpoint import Endpoint, State, Timeouts, UsageMode
from tests.rigs.limits import FakeLimits
from tests.rigs.raw_client import Reply, ask


@dataclass
class FakeFleet:
    """The fleet as a relay asks for it: the test decides how each request's wait ends."""

    asked: dict[str, asyncio.Future[WaitOutcome]] = field(default_factory=dict)
    failed: list[tuple[str, int]] = field(default_factory=list)
    suspected: list[tuple[str, int]] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    notes: set[asyncio.Task[None]] = field(default_factory=set)
    suspicions: list[Suspicion] = field(default_factory=list)
    ejections: Ejections | None = None

    async def wanted(self, backend: str, claim: Claim) -> WaitOutcome:
        self.claims.append(claim)
        wait: asyncio.Future[WaitOutcome] = asyncio.get_running_loop().create_future()
        self.asked[backend] = wait
        self.leases_changed()
        return await wait

    def failing(self, backend: str, generation: int, *, is_not_finite: bool = False) -> None:
        (self.suspected if is_not_finite else self.failed).append((backend, generation))
        self.leases_changed()

    def lost(self, pid: int, is_at_fault: bool) -> None:
        """There is no process to end: the relay is in this one."""

    def suspect(self, suspicion: Suspicion) -> None:
        self.suspicions.append(suspicion)
        if self.ejections is not None:
            self.ejections.suspect(suspicion)
        self.leases_changed()

    def leases_changed(self) -> None:
        note = asyncio.create_task(self._note())
        self.notes.add(note)
        note.add_done_callback(self.notes.discard)

    async def _note(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(is_so)


class Rig:
    """The gateway's address, and its table."""

    def __init__(
        self, url: str, state: Path, server: RelayServer, leases: Leases, fleet: FakeFleet, counters: RelayCounters
    ) -> None:
        self.url = url
        self.state = state
        self.leases = leases
        self.fleet = fleet
        self.counters = counters
        self.table = Table(0, {}, {}, (), {})
        self._server = server

    def publish(self, **changes: object) -> None:
        """A new version of the table with these fields changed."""
        self.table = msgspec.structs.replace(self.table, version=self.table.version + 1, **changes)
        self._server.publish(self.table)

    async def published(self, **changes: object) -> None:
        """The same, applied by the relay when this returns."""
        self.publish(**changes)
        await self.fleet.until(lambda: self.leases.is_applied(self.table.version))

    def drain(self, seconds: float) -> None:
        """Take no new connection, finish what runs."""
        self._server.drain(seconds)

    async def ask(self, path: str = "/v1/chat/completions", body: object = b"", **more: object) -> Reply:
        """POST when there is a body, else GET."""
        return await ask(self.url, "POST" if body else "GET", path, body, **more)  # type: ignore[arg-type]

    def sample(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        return sum(
            sample.value for sample in self.samples() if sample.name == name and labels.items() <= sample.labels.items()
        )

    def samples(self) -> list[Sample]:
        """All that the relay has counted, as a scrape would show it."""
        families = text_string_to_metric_families(self.counters.render().decode())
        return [sample for family in families for sample in family.samples]


def backend(
    url: str | None,
    name: str = "engine",
    *,
    generation: int = 1,
    timeouts: Timeouts | None = None,
    is_ours: bool = True,
    usage: UsageMode = UsageMode.ASK,
    gathers: bool = False,
    headers: dict[str, str] | None = None,
    **fields: object,
) -> Backend:
    """A backend that serves at `url`, or does not when that is None."""
    waits = timeouts or Timeouts(connect_s=2, first_byte_s=20, between_events_s=20)
    endpoint = url and Endpoint(
        name, generation, url, headers or {}, waits, is_ours=is_ours, usage=usage, gathers=gathers
    )
    state = State.READY if url else State.STOPPED
    known = {"kind": "vllm", "state": state, "endpoint": endpoint or None, **fields}
    return Backend(name=name, **known)  # type: ignore[arg-type]


def models(*names: str, backend: str = "engine", engine_name: str | None = None) -> dict[str, PublicModel]:
    """Public names, each served by one backend under the same or another name."""
    return {name: PublicModel(name, (Target(backend, engine_name or name),)) for name in names}


class _Hurried:
    """asyncio as uvicorn sees it, whose naps are short: it looks every tenth of a second whether it is to end, and
    rests as long before it does, which is more than most tests take.
    """

    nap_s = 0.01

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, self.nap_s))


@contextlib.asynccontextmanager
async def running(
    backends: Mapping[str, Backend],
    served: Mapping[str, PublicModel],
    limits: Limits | None = None,
    granting: FakeLimits | None = None,
) -> AsyncIterator[Rig]:
    """A relay that serves these backends and models."""
    vars(uvicorn.server)["asyncio"] = _Hurried()
    state = Path(tempfile.mkdtemp(prefix="mp-"))
    leases, fleet, counters = Leases(), FakeFleet(), RelayCounters()
    if granting is not None:
        granting.changed = fleet.leases_changed
    server = RelayServer(leases, fleet, suspect=fleet.suspect, limits=granting)
    await server.open(state / "relay.sock", fleet)
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        rig = Rig(f"http://127.0.0.1:{listener.getsockname()[1]}", state, server, leases, fleet, counters)
        rig.publish(models=dict(served), backends=dict(backends), limits=limits or Limits())
        descriptor = counters.open()
        serving = asyncio.create_task(relay(listener, state, SharedCounters(descriptor)))
        try:
            await fleet.until(lambda: leases.is_applied(rig.table.version) and bool(server.pids))
            yield rig
        finally:
            await server.close()
            await serving
            counters.close(descriptor)
            await asyncio.gather(*fleet.notes, return_exceptions=True)
            shutil.rmtree(state)
