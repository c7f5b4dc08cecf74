"""The audit of this gateway: each order a line of the log, a line of a file in the state folder, then a row in the
store.

An order is answered once the file has it; the store is told a moment later, or when it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from app.store.database import StoreDown, StoreError
from app.store.tables.audit import AuditQuery, AuditTable
from app.store.tables.audit_entry import AuditEntry

log = structlog.get_logger()

BATCH: Final = 200
AGAIN_S: Final = 2.0  # after the store could not be reached
REFUSED_S: Final = 60.0  # after it refused for good, until somebody has done something about it
SWEEP_S: Final = 3600.0
MOST_WAITING: Final = 50_000  # entries that the store does not have yet; of more only the log tells
DAY_S: Final = 86_400.0
_lines: Final = msgspec.json.Decoder(AuditEntry)


class AuditJournal:
    """The entries that the store does not have yet, one line each. All methods block; OSError where the disk fails."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<AuditJournal {self._path}>"

    def read(self) -> list[AuditEntry]:
        """What it holds, oldest first; a line that is not whole is left out."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return []
        entries = []
        for line in data.splitlines():
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                entries.append(_lines.decode(line))
        return entries

    def append(self, entry: AuditEntry) -> None:
        """Write one, so that a failure of the power leaves it there."""
        line = msgspec.json.encode(entry) + b"\n"
        with self._lock:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._path, flags, 0o600)
            try:
                end = os.fstat(descriptor).st_size
                # A line that a full disk has cut must not swallow the next one.
                is_cut = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
                whole = b"\n" + line if is_cut else line
                if os.write(descriptor, whole) < len(whole):
                    raise OSError("the disk is full")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def keep(self, entries: list[AuditEntry]) -> None:
        """Make it hold these only."""
        with self._lock:
            if not entries:
                self._path.unlink(missing_ok=True)
                return
            fresh = self._path.with_suffix(".new")
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(msgspec.json.encode(entry) + b"\n" for entry in entries)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)


class Audit:
    """Takes entries at any time, also while the store is down; `run` brings them there. `table`: where they go;
    `gateway`: the name of this one; `retention_days`: how long the store keeps them, 0: for ever.
    """

    def __init__(
        self,
        path: Path,
        table: AuditTable,
        now: Callable[[], float],
        gateway: str,
        retention_days: Callable[[], float],
    ) -> None:
        self._journal = AuditJournal(path)
        self._table = table
        self._now = now
        self._gateway = gateway
        self._retention_days = retention_days
        self._waiting: deque[AuditEntry] = deque()
        self._has_more = asyncio.Event()
        self._filing = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Audit waiting={len(self._waiting)}>"

    @property
    def pending(self) -> int:
        """How many entries the store does not have yet."""
        return len(self._waiting)

    async def record(self, entry: AuditEntry) -> None:
        """Write it down: the log at once, the file before this returns. A disk that does not take it is logged."""
        entry = msgspec.structs.replace(entry, gateway=entry.gateway or self._gateway)
        log.info(
            "audit",
            actor=entry.actor,
            via=entry.via,
            action=entry.action,
            target=entry.target or None,
            status=entry.status,
            details=entry.details or None,
            request_id=entry.request_id or None,
            address=entry.address or None,
        )
        if len(self._waiting) >= MOST_WAITING:
            log.error("the audit is full: the store has been away for too long; only this log tells of further orders")
            return
        async with self._filing:
            try:
                await asyncio.to_thread(self._journal.append, entry)
            except OSError as exc:
                log.error("the audit's file cannot be written; the entry is in memory", reason=exc.strerror or str(exc))
            finally:
                self._waiting.append(entry)
                self._has_more.set()

    async def read(self, query: AuditQuery) -> list[AuditEntry]:
        """What is wanted of the store's, newest first, with what it does not have yet. StoreDown."""
        stored = await self._table.read(query)
        if query.before is not None:
            return stored
        known = {entry.id for entry in stored}
        waiting = [entry for entry in reversed(self._waiting) if entry.id not in known and query.wants(entry)]
        return sorted([*waiting, *stored], key=lambda entry: (entry.at, entry.id), reverse=True)[: query.limit]

    async def run(self) -> None:
        """Bring what waits into the store, and remove there what is too old, until cancelled."""
        await self._take_over()
        swept_at = 0.0
        while True:
            try:
                while self._waiting:
                    await self._bring()
                if self._now() - swept_at >= SWEEP_S:
                    swept_at = self._now()
                    await self._sweep()
            except StoreDown:
                await asyncio.sleep(AGAIN_S)
                continue
            except StoreError as exc:
                log.error("the store does not take the audit", reason=str(exc))
                await asyncio.sleep(REFUSED_S)
                continue
            self._has_more.clear()
            if not self._waiting:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SWEEP_S):
                        await self._has_more.wait()

    async def aclose(self) -> None:
        """Bring what waits into the store now, as far as it is there."""
        with contextlib.suppress(StoreDown, StoreError):
            while self._waiting:
                await self._bring()

    async def _take_over(self) -> None:
        """What an earlier gateway on this state folder could not bring into the store."""
        try:
            left = await asyncio.to_thread(self._journal.read)
        except OSError as exc:
            log.error("the audit's file cannot be read", reason=exc.strerror or str(exc))
            return
        known = {entry.id for entry in self._waiting}
        self._waiting.extendleft(reversed([entry for entry in left if entry.id not in known]))

    async def _bring(self) -> None:
        batch = [self._waiting[index] for index in range(min(BATCH, len(self._waiting)))]
        await self._table.add(batch)
        for _ in batch:
            self._waiting.popleft()
        async with self._filing:  # nothing is appended meanwhile that the file would then not hold
            try:
                await asyncio.to_thread(self._journal.keep, list(self._waiting))
            except OSError as exc:  # what the store has already it takes no second time
                log.warning("the audit's file cannot be written", reason=exc.strerror or str(exc))

    async def _sweep(self) -> None:
        days = self._retention_days()
        if days > 0:
            await self._table.forget(self._now() - days * DAY_S)
