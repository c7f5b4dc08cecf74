"""The server of `relay.sock`: publishes the table to the relays, takes their reports, makes engines ready for them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from app.ipc import (
    Allowance,
    AllowanceWanted,
    Applied,
    Claim,
    DrainRelay,
    EngineWanted,
    Failing,
    FromRelay,
    FromSupervisor,
    Hello,
    InFlight,
    Publish,
    Spent,
    Suspicion,
    Unwanted,
    WantedReply,
    frame,
    from_relay,
    read_frame,
)
from app.supervisor.relays.leases import Leases
from app.supervisor.state_folder import bind_private
from app.table import Key, Table

log = structlog.get_logger()

MAX_UNREAD_BYTES = 64 * 1024 * 1024


class OutcomePort(Protocol):
    """What became of a request's wait for an engine; the members are those of app/ipc.py's `WantedReply`."""

    @property
    def is_ready(self) -> bool: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def retry_after_s(self) -> float: ...
    @property
    def is_full(self) -> bool: ...
    @property
    def permit(self) -> PermitPort | None: ...


class PermitPort(Protocol):
    """One request's place at an engine that takes only so many at a time."""

    def release(self) -> None:
        """The request is over; another may have its place."""
        ...


class FleetPort(Protocol):
    """What relays ask of the fleet."""

    async def wanted(self, backend: str, claim: Claim) -> OutcomePort:
        """Make the backend serve, and admit one request. Returns when that is so, with the table published that says
        it, or when it is known that it will not be."""
        ...

    def failing(self, backend: str, generation: int, *, is_not_finite: bool = False) -> None:
        """A relay could not connect to this start of the backend, or got no numbers from it."""
        ...

    def leases_changed(self) -> None:
        """Other leases are held now, or another table is applied."""
        ...


class LimitsPort(Protocol):
    """What relays ask and tell of keys' limits; the messages are those of app/ipc.py. `relay`: a number of its own for
    each connection. Nothing here waits: `reply` may be called later, as long as that relay has not left.
    """

    def follow(self, keys: tuple[Key, ...]) -> None:
        """The keys as relays are going to know them."""
        ...

    def wanted(self, relay: int, asked: AllowanceWanted, reply: Callable[[Allowance], None]) -> None:
        """A relay wants to spend more of a key's limits."""
        ...

    def spent(self, relay: int, told: Spent) -> None:
        """What became of what a relay may spend."""
        ...

    def left(self, relay: int) -> None:
        """This relay is gone: what it had may be spent, and is not returned."""
        ...


class Processes(Protocol):
    """The relays as processes."""

    def lost(self, pid: int, is_at_fault: bool) -> None:
        """This relay's connection is gone, so it must end; at once where we ended the connection for what it did."""
        ...


class _Relay:
    """One connection. `waiting`: by number, its requests that wait for an engine; `permits`: those of its requests."""

    def __init__(self, number: int, pid: int, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.pid = pid
        self.writer = writer
        self.waiting: dict[int, asyncio.Task[None]] = {}
        self.permits: dict[int, PermitPort] = {}
        self.late: asyncio.TimerHandle | None = None
        self.is_at_fault = False

    def __repr__(self) -> str:
        return f"<_Relay {self.pid} waiting={len(self.waiting)}>"

    def send(self, message: FromSupervisor) -> None:
        """Never waits: for a relay that does not read, messages are kept up to a limit, then it is cut off."""
        if self.writer.is_closing():
            return
        self.writer.write(frame(message))
        if self.writer.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            self.cut("it does not read")

    def cut(self, reason: str) -> None:
        """End the connection because of what the relay did or did not do."""
        if not self.is_at_fault:
            log.error("relay dropped", pid=self.pid, reason=reason)
        self.is_at_fault = True
        self.writer.transport.abort()


class RelayServer:
    """All relays' connections. Keeps the table that was published last, and writes `leases`.

    A relay that has not applied a table within `patience_s` (half as long again where another table was published
    shortly before) is cut off: everything that stops or reloads an engine waits for it. `suspect` is told whom a relay
    has seen do worse than others. `limits`: without them, keys with limits get nothing.
    """

    def __init__(
        self,
        leases: Leases,
        processes: Processes,
        patience_s: float = 10.0,
        suspect: Callable[[Suspicion], object] = repr,
        limits: LimitsPort | None = None,
    ) -> None:
        self._leases = leases
        self._processes = processes
        self._patience_s = patience_s
        self._suspect = suspect
        self._limits = limits
        self._numbers = itertools.count(1)
        self._relays: dict[int, _Relay] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._table: Table | None = None
        self._drain: DrainRelay | None = None
        self._server: asyncio.Server | None = None
        self._fleet: FleetPort | None = None

    def __repr__(self) -> str:
        return f"<RelayServer relays={[relay.pid for relay in self._relays.values()]}>"

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes of the relays that are connected."""
        return tuple(relay.pid for relay in self._relays.values())

    async def open(self, path: Path, fleet: FleetPort) -> None:
        """Listen on a socket at `path` that only this user may open."""
        self._fleet = fleet
        self._server = await asyncio.start_unix_server(self._accept, sock=bind_private(path))

    async def close(self) -> None:
        """End every connection; the relays end with theirs."""
        if self._server is not None:
            self._server.close()
        for relay in self._relays.values():
            relay.writer.transport.abort()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def publish(self, table: Table) -> None:
        """Send the table to every relay, also to each that connects later."""
        self._table = table
        if self._limits is not None:
            self._limits.follow(table.keys)
        for relay in list(self._relays.values()):
            self._send_table(relay, table)

    def drain(self, seconds: float) -> None:
        """Have every relay, also each that connects later, finish what it has within so many seconds, and end."""
        self._drain = DrainRelay(seconds)
        for relay in list(self._relays.values()):
            relay.send(self._drain)

    def _send_table(self, relay: _Relay, table: Table) -> None:
        relay.send(Publish(table))
        if relay.late is None:
            self._expect_applied(relay, table.version, is_last=False)

    def _expect_applied(self, relay: _Relay, version: int, is_last: bool) -> None:
        # Two looks: when this process itself was stopped for a while (Ctrl-Z), the first one comes too late to blame
        # the relay, whose answer lies unread in our socket.
        loop = asyncio.get_running_loop()
        relay.late = loop.call_later(self._patience_s / 2, self._check_applied, relay, version, is_last)

    def _check_applied(self, relay: _Relay, version: int, is_last: bool) -> None:
        relay.late = None
        newest = self._table.version if self._table is not None else 0
        if self._leases.has_applied(relay.number, newest):
            return
        if self._leases.has_applied(relay.number, version):
            # Newer tables were published meanwhile; they get their own time.
            self._expect_applied(relay, newest, is_last=False)
        elif not is_last:
            self._expect_applied(relay, version, is_last=True)
        else:
            relay.cut(f"it has not applied table {version} for {self._patience_s:g} s")

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        relay: _Relay | None = None
        try:
            relay = await self._await_hello(reader, writer)
            while True:
                self._handle(relay, from_relay.decode(await read_frame(reader)))
        except TimeoutError:
            log.error("connection to relay.sock dropped", reason=f"no Hello for {self._patience_s:g} s")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except (ValueError, msgspec.MsgspecError) as exc:
            if relay is not None:
                relay.cut(f"a malformed message: {exc}")
            else:
                log.error("connection to relay.sock dropped", reason=f"a malformed message: {exc}")
        except asyncio.CancelledError:
            # Only close() cancels; asyncio's streams log a cancelled connection as an error.
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()
            if relay is not None:
                await self._forget(relay)

    async def _await_hello(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Relay:
        async with asyncio.timeout(self._patience_s):
            hello = from_relay.decode(await read_frame(reader))
        if not isinstance(hello, Hello):
            raise ValueError(f"{type(hello).__name__} before Hello")
        relay = _Relay(next(self._numbers), hello.pid, writer)
        self._relays[relay.number] = relay
        self._leases.joined(relay.number)
        self._of_fleet().leases_changed()
        log.debug("relay connected", pid=relay.pid)
        if self._table is not None:
            self._send_table(relay, self._table)
        if self._drain is not None:
            relay.send(self._drain)
        return relay

    def _handle(self, relay: _Relay, message: FromRelay) -> None:
        match message:
            case InFlight(counts, returned):
                self._leases.counted(relay.number, counts, returned)
                self._of_fleet().leases_changed()
            case Applied(version):
                self._leases.applied(relay.number, version)
                self._of_fleet().leases_changed()
            case EngineWanted(seq, backend, claim):
                if seq in relay.waiting or seq in relay.permits:
                    raise ValueError(f"Wanted {seq} twice")
                relay.waiting[seq] = asyncio.create_task(self._answer(relay, seq, backend, claim))
            case Unwanted(seq):
                wait = relay.waiting.pop(seq, None)
                if wait is not None:
                    wait.cancel()
                permit = relay.permits.pop(seq, None)
                if permit is not None:
                    permit.release()
            case Failing(backend, generation, is_not_finite):
                self._of_fleet().failing(backend, generation, is_not_finite=is_not_finite)
            case Suspicion():
                self._suspect(message)
            case AllowanceWanted():
                if self._limits is not None:
                    self._limits.wanted(relay.number, message, relay.send)
            case Spent():
                if self._limits is not None:
                    self._limits.spent(relay.number, message)
            case Hello():
                raise ValueError("Hello twice")

    async def _answer(self, relay: _Relay, seq: int, backend: str, claim: Claim) -> None:
        try:
            outcome = await self._of_fleet().wanted(backend, claim)
            if outcome.permit is not None:
                relay.permits[seq] = outcome.permit
            answer = WantedReply(
                seq,
                outcome.is_ready,
                is_admitted=outcome.permit is not None,
                is_full=outcome.is_full,
                reason=outcome.reason,
                retry_after_s=outcome.retry_after_s,
            )
        except Exception:
            log.exception("making a backend ready for a relay failed", backend=backend)
            answer = WantedReply(seq, is_ready=False, reason="the supervisor failed; see its log")
        relay.waiting.pop(seq, None)
        relay.send(answer)

    async def _forget(self, relay: _Relay) -> None:
        self._relays.pop(relay.number, None)
        if relay.late is not None:
            relay.late.cancel()
        self._processes.lost(relay.pid, relay.is_at_fault)
        self._leases.left(relay.number)
        if self._limits is not None:
            self._limits.left(relay.number)
        self._of_fleet().leases_changed()
        waits = list(relay.waiting.values())
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        for permit in relay.permits.values():
            permit.release()  # its connections to engines ended with it

    def _of_fleet(self) -> FleetPort:
        assert self._fleet is not None
        return self._fleet
