"""The server of `relay.sock`: tells the relays the table, hears their leases, answers what they want."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from app.ipc import (
    Applied,
    DrainRelay,
    EngineWanted,
    Failing,
    FromRelay,
    FromSupervisor,
    Hello,
    InFlight,
    Publish,
    Unwanted,
    WantedReply,
    frame,
    from_relay,
    read_frame,
)
from app.supervisor.relays.leases import Leases
from app.supervisor.state_folder import bind_private
from app.table import Table

log = structlog.get_logger()

MAX_UNREAD_BYTES = 64 * 1024 * 1024


class OutcomePort(Protocol):
    """The end of a wish for an engine."""

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
    """The request may be at the engine."""

    def release(self) -> None:
        """It is over."""
        ...


class FleetPort(Protocol):
    """What the relays ask of it."""

    async def wanted(self, backend: str) -> OutcomePort:
        """Make it serve, and admit one request; returns when it is so or when it is known that it won't be. Publishes
        before it says yes."""
        ...

    def failing(self, backend: str, generation: int) -> None:
        """A relay could not reach this start of it."""
        ...

    def leases_changed(self) -> None:
        """What is held or applied is different now."""
        ...


class Processes(Protocol):
    """The relays as processes."""

    def lost(self, pid: int, is_at_fault: bool) -> None:
        """Its connection is gone: it must end; at once when the connection was ended because of what it did."""
        ...


class _Relay:
    """One connection. `asked` is every wish it has open, `permits` what its requests hold."""

    def __init__(self, number: int, pid: int, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.pid = pid
        self.writer = writer
        self.asked: dict[int, asyncio.Task[None]] = {}
        self.permits: dict[int, PermitPort] = {}
        self.late: asyncio.TimerHandle | None = None
        self.is_at_fault = False

    def __repr__(self) -> str:
        return f"<_Relay {self.pid} asked={len(self.asked)}>"

    def send(self, message: FromSupervisor) -> None:
        """Never waits; a relay that does not read fills a buffer up to the limit and is then cut off."""
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
    """All relays' connections. Owns the table they have been told, and writes `leases`.

    A relay that has not applied a table `patience_s` after it was told (half as long again where it was told another
    shortly before) is cut off: everything that stops or reloads an engine waits for it.
    """

    def __init__(self, leases: Leases, processes: Processes, patience_s: float = 10.0) -> None:
        self._leases = leases
        self._processes = processes
        self._patience_s = patience_s
        self._numbers = itertools.count(1)
        self._relays: dict[int, _Relay] = {}
        self._conversations: set[asyncio.Task[None]] = set()
        self._table: Table | None = None
        self._drain: DrainRelay | None = None
        self._server: asyncio.Server | None = None
        self._fleet: FleetPort | None = None

    def __repr__(self) -> str:
        return f"<Hub relays={[relay.pid for relay in self._relays.values()]}>"

    @property
    def pids(self) -> tuple[int, ...]:
        """The relays that are connected."""
        return tuple(relay.pid for relay in self._relays.values())

    async def open(self, path: Path, fleet: FleetPort) -> None:
        """Listen."""
        self._fleet = fleet
        self._server = await asyncio.start_unix_server(self._accept, sock=bind_private(path))

    async def close(self) -> None:
        """End every connection; the relays end with theirs."""
        if self._server is not None:
            self._server.close()
        for relay in self._relays.values():
            relay.writer.transport.abort()
        for task in self._conversations:
            task.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    def publish(self, table: Table) -> None:
        """Tell every relay, and every one that comes later."""
        self._table = table
        for relay in list(self._relays.values()):
            self._tell(relay, table)

    def drain(self, seconds: float) -> None:
        """Every relay, and every one that comes later, finishes what it has and ends."""
        self._drain = DrainRelay(seconds)
        for relay in list(self._relays.values()):
            relay.send(self._drain)

    def _tell(self, relay: _Relay, table: Table) -> None:
        relay.send(Publish(table))
        if relay.late is None:
            self._expect(relay, table.version, is_last=False)

    def _expect(self, relay: _Relay, version: int, is_last: bool) -> None:
        # Two looks: when this process itself was stopped for a while (Ctrl-Z), the first one comes too late to blame
        # the relay, whose answer lies unread in our socket.
        loop = asyncio.get_running_loop()
        relay.late = loop.call_later(self._patience_s / 2, self._look, relay, version, is_last)

    def _look(self, relay: _Relay, version: int, is_last: bool) -> None:
        relay.late = None
        told = self._table.version if self._table is not None else 0
        if self._leases.has_applied(relay.number, told):
            return
        if self._leases.has_applied(relay.number, version):
            # Newer tables were told meanwhile; they get their own time.
            self._expect(relay, told, is_last=False)
        elif not is_last:
            self._expect(relay, version, is_last=True)
        else:
            relay.cut(f"it has not applied table {version} for {self._patience_s:g} s")

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._conversations.add(task)
        relay: _Relay | None = None
        try:
            relay = await self._greet(reader, writer)
            while True:
                self._hear(relay, from_relay.decode(await read_frame(reader)))
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
            # Only close() cancels; asyncio's streams log a cancelled conversation as an error.
            pass
        finally:
            self._conversations.discard(task)
            writer.transport.abort()
            if relay is not None:
                await self._forget(relay)

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Relay:
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
            self._tell(relay, self._table)
        if self._drain is not None:
            relay.send(self._drain)
        return relay

    def _hear(self, relay: _Relay, message: FromRelay) -> None:
        match message:
            case InFlight(counts, returned):
                self._leases.counted(relay.number, counts, returned)
                self._of_fleet().leases_changed()
            case Applied(version):
                self._leases.applied(relay.number, version)
                self._of_fleet().leases_changed()
            case EngineWanted(seq, backend):
                if seq in relay.asked or seq in relay.permits:
                    raise ValueError(f"Wanted {seq} twice")
                relay.asked[seq] = asyncio.create_task(self._answer(relay, seq, backend))
            case Unwanted(seq):
                asked = relay.asked.pop(seq, None)
                if asked is not None:
                    asked.cancel()
                permit = relay.permits.pop(seq, None)
                if permit is not None:
                    permit.release()
            case Failing(backend, generation):
                self._of_fleet().failing(backend, generation)
            case Hello():
                raise ValueError("Hello twice")

    async def _answer(self, relay: _Relay, seq: int, backend: str) -> None:
        try:
            outcome = await self._of_fleet().wanted(backend)
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
            log.exception("a wish for a backend failed", backend=backend)
            answer = WantedReply(seq, is_ready=False, reason="the supervisor failed; see its log")
        relay.asked.pop(seq, None)
        relay.send(answer)

    async def _forget(self, relay: _Relay) -> None:
        self._relays.pop(relay.number, None)
        if relay.late is not None:
            relay.late.cancel()
        self._processes.lost(relay.pid, relay.is_at_fault)
        self._leases.left(relay.number)
        self._of_fleet().leases_changed()
        asked = list(relay.asked.values())
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        for permit in relay.permits.values():
            permit.release()  # its connections to engines ended with it

    def _of_fleet(self) -> FleetPort:
        assert self._fleet is not None
        return self._fleet
