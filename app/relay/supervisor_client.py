"""The relay's connection to its supervisor: the table comes in; leases and requests for engines go out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from app.ipc import (
    ADAPTER,
    Allowance,
    AllowanceWanted,
    Applied,
    Claim,
    DrainRelay,
    EngineWanted,
    Failing,
    FromRelay,
    Hello,
    InFlight,
    Publish,
    Spent,
    Suspicion,
    Unwanted,
    WantedReply,
    adapter_key,
    frame,
    from_supervisor,
    read_frame,
)
from app.table import Backend, Table, Target
from backends.endpoint import Endpoint, State
from backends.errors import NotReady, Saturated
from backends.http.carrying import in_task

# Lease counts may reach the supervisor this late: it never acts on them before every relay has applied the table that
# took the engine out of routing, and `Applied` flushes them (app/ipc.py).
FLUSH_S = 0.05


class Lease:
    """One request's hold on one start of a backend, from before it waits until its exchange is closed.

    `generation` 0: of none yet, until `bind` says which. `adapter`: the request uses it, so it stays loaded meanwhile.
    """

    def __init__(
        self, supervisor: SupervisorClient, backend: str, generation: int = 0, adapter: str | None = None
    ) -> None:
        self._supervisor = supervisor
        self._adapter = adapter_key(backend, adapter) if adapter is not None else None
        self._backend = backend
        self._generation: int | None = generation
        self._permit: int | None = None
        supervisor.count(backend, generation, 1)
        if self._adapter is not None:
            supervisor.count(self._adapter, ADAPTER, 1)

    @classmethod
    def on(cls, supervisor: SupervisorClient, row: Backend, model: str) -> Lease:
        """For a request for this model of that backend: on the start that serves now, where it need not wait for it,
        nor for a place."""
        endpoint = None if row.is_limited else row.endpoint
        generation = endpoint.generation if endpoint is not None else 0
        return cls(supervisor, row.name, generation, model if model in row.adapters else None)

    def bind(self, generation: int) -> None:
        """From now on it is held on this start of the engine."""
        if self._generation is not None and self._generation != generation:
            self._supervisor.count(self._backend, self._generation, -1)
            self._supervisor.count(self._backend, generation, 1)
            self._generation = generation

    async def admitted(self, wait_s: float, claim: Claim) -> None:
        """Wait until the backend serves and may have the request; raises as `SupervisorClient.wanted` does."""
        self._permit = await self._supervisor.wanted(self._backend, wait_s, claim)

    def release(self) -> None:
        """The request is over: gives back lease and permit. May be called again."""
        if self._permit is not None:
            self._supervisor.unwanted(self._permit)
            self._permit = None
        if self._generation is not None:
            self._supervisor.count(self._backend, self._generation, -1)
            if self._adapter is not None:
                self._supervisor.count(self._adapter, ADAPTER, -1)
            self._generation = None


class SupervisorClient:
    """Holds the current table; one per relay. It is also the `BackendView` by which targets are put in order."""

    table: Table

    def __init__(self, dice: Callable[[], float] = random.random) -> None:
        self.dice = dice
        self.lost = asyncio.Event()  # the supervisor is gone
        self.on_table: Callable[[Table], None] = lambda _: None
        self.on_allowance: Callable[[Allowance], None] = lambda _: None
        self._news = asyncio.Event()  # another table has come
        self.drain_s: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._counts: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._of_backend: defaultdict[str, int] = defaultdict(int)
        self._changed: set[tuple[str, int]] = set()
        self._returned: set[tuple[str, int]] = set()
        self._flush: asyncio.TimerHandle | None = None
        self._served_since: dict[str, float] = {}
        self._waiting: dict[int, asyncio.Future[WantedReply]] = {}
        self._seq = 0
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def connect(self, path: Path) -> None:
        """Say hello and wait for the first table; OSError or IncompleteReadError when there is no supervisor."""
        reader, self._writer = await asyncio.open_unix_connection(path)
        self._send(Hello(pid=os.getpid()))
        first = asyncio.Event()
        self._reading = asyncio.create_task(self._read(reader, first))
        lost = asyncio.create_task(self.lost.wait())
        came = asyncio.create_task(first.wait())
        _, pending = await asyncio.wait({lost, came}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        if self.lost.is_set():
            raise ConnectionError("the supervisor closed relay.sock before it published a table")

    async def aclose(self) -> None:
        """Close the connection."""
        if self._flush is not None:
            self._flush.cancel()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()

    def is_ending(self) -> bool:
        """Whether the gateway ends: connections are not kept for another request."""
        return self.table.draining or self.drain_s.done()

    # -- for requests

    def row(self, backend: str) -> Backend:
        """The backend as the table has it now."""
        row = self.table.backends.get(backend)
        return row or Backend(backend, "", State.STOPPED, reason="it is no longer configured")

    def in_flight(self, backend: str) -> int:
        """Requests of this relay that hold or wait for that backend."""
        return self._of_backend[backend]

    def is_ejected(self, target: Target) -> bool:
        """Whether the supervisor has it passed over for what it did to requests."""
        row = self.table.backends.get(target.backend)
        return row is not None and target.model in row.ejected

    def served_since(self, backend: str) -> float:
        """time.perf_counter() when it became known that the backend serves; 0 where it never has."""
        return self._served_since.get(backend, 0.0)

    async def wanted(self, backend: str, wait_s: float, claim: Claim) -> int | None:
        """Wait until the backend serves (the table says so then) and may have one more request.

        Returns the permit's number, for `unwanted` when the request is over; None where the backend has no limit.
        NotReady when it will not serve, or not within `wait_s`; Saturated when it has no place for the request.
        """
        await in_task()
        self._seq += 1
        seq, future = self._seq, asyncio.get_running_loop().create_future()
        self._waiting[seq] = future
        self._send(EngineWanted(seq=seq, backend=backend, claim=claim))
        try:
            async with asyncio.timeout(wait_s):
                answer = await future
        except TimeoutError as exc:
            self.unwanted(seq)
            raise NotReady(
                backend, f"it is not ready after {wait_s:g} s{self._why(backend)}", self._advice(backend)
            ) from exc
        except asyncio.CancelledError:
            self.unwanted(seq)
            raise
        finally:
            del self._waiting[seq]
        if answer.is_full:
            raise Saturated(backend, answer.reason or "it has no place for the request", answer.retry_after_s)
        if not answer.is_ready:
            row = self.table.backends.get(backend) or Backend(backend, "", State.STOPPED)
            raise row.not_ready(time.time(), answer.reason or "it is not running", answer.retry_after_s)
        return seq if answer.is_admitted else None

    async def is_over(self, backend: str, generation: int, wait_s: float) -> bool:
        """Whether it becomes known within `wait_s` that this start of the backend does not serve any more."""
        await in_task()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while self._serves(backend, generation):
                    await self._news.wait()
        return not self._serves(backend, generation)

    def _serves(self, backend: str, generation: int) -> bool:
        row = self.table.backends.get(backend)
        return row is not None and row.endpoint is not None and row.endpoint.generation == generation

    def unwanted(self, seq: int) -> None:
        """Nobody waits for that number any more, or its request is over."""
        self._send(Unwanted(seq=seq))

    def failing(self, endpoint: Endpoint, *, is_not_finite: bool = False) -> None:
        """Tell the supervisor that this start of an engine refuses connections, or answers what are no numbers."""
        self._send(Failing(endpoint.engine, endpoint.generation, is_not_finite))

    def of_limits(self, *messages: AllowanceWanted | Spent) -> None:
        """Ask for more of keys' limits, and tell what became of what was granted."""
        self._send(*messages)

    def suspect(self, suspicion: Suspicion) -> None:
        """A target does worse than its siblings."""
        self._send(suspicion)

    def count(self, backend: str, generation: int, change: int) -> None:
        """Leases of one start of one backend, plus or minus one."""
        key = (backend, generation)
        self._counts[key] += change
        self._of_backend[backend] += change
        self._changed.add(key)
        if change < 0 and generation > 0:
            self._returned.add(key)
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_S, self._report)

    # -- within

    def _advice(self, backend: str) -> float | None:
        row = self.table.backends.get(backend)
        return row.retry_after_s if row is not None else None

    def _why(self, backend: str) -> str:
        row = self.table.backends.get(backend)
        reason = row.reason or row.waits_for if row is not None else None
        return f" ({reason})" if reason else ""

    def _report(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if self._changed:
            counts = tuple((backend, gen, self._counts[backend, gen]) for backend, gen in self._changed)
            for backend, gen, held in counts:
                if held == 0:
                    del self._counts[backend, gen]
            self._send(InFlight(counts=counts, returned=tuple(self._returned)))
            self._changed.clear()
            self._returned.clear()

    def _send(self, *messages: FromRelay) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(b"".join(map(frame, messages)))

    def _note_starts(self, table: Table) -> None:
        before = self.table.backends if hasattr(self, "table") else {}
        for name, row in table.backends.items():
            last = before.get(name)
            if row.endpoint is not None and (last is None or last.endpoint is None):
                self._served_since[name] = time.perf_counter()

    async def _read(self, reader: asyncio.StreamReader, first: asyncio.Event) -> None:
        try:
            while True:
                match from_supervisor.decode(await read_frame(reader)):
                    case Publish(table=table):
                        self._note_starts(table)
                        self.table = table
                        news, self._news = self._news, asyncio.Event()
                        news.set()
                        self.on_table(table)
                        self._report()
                        self._send(Applied(version=table.version))
                        first.set()
                    case WantedReply(seq=seq) as answer:
                        future = self._waiting.get(seq)
                        if future is not None and not future.done():
                            future.set_result(answer)
                    case Allowance() as allowance:
                        self.on_allowance(allowance)
                    case DrainRelay(seconds=seconds):
                        if not self.drain_s.done():
                            self.drain_s.set_result(seconds)
        except (asyncio.IncompleteReadError, OSError):
            pass  # said by `lost`
        finally:
            self.lost.set()
