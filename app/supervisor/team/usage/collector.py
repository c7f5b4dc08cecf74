"""Brings usage records from the relays' segments into the store.

Where the store is a file in the same state folder, they go there at once. Where it is a server they go into the
journal, and from there to the server whenever it is up; so that segments stay few however long it is away.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import structlog

from app.config.team import UsageConfig
from app.store.database import StoreDown, StoreError
from app.store.tables import usage
from app.supervisor.metrics.team_series import KeyCounts, KeyTotals
from app.supervisor.team.team_store import TeamStore
from app.supervisor.team.usage.journal import JournalFull, UsageJournal
from app.usage.record import UsageRecord
from app.usage.segment_reader import Batch, SegmentReader

log = structlog.get_logger()
T = TypeVar("T")

LOOK_S: Final = 0.2
# After something went wrong.
AGAIN_S: Final = 1.0
# Of one transaction at the store.
MOST_RECORDS: Final = 1000
UPKEEP_S: Final = 600.0
# How long the end of the gateway waits for what is left.
LAST_S: Final = 5.0
JOURNAL: Final = "journal.db"
# In place of a name, for requests without a key.
NO_KEY: Final = "none"


class UsageCollector:
    """The one reader of the segments in `folder`, and owner of the journal there. `totals`: what each key has used
    since the gateway's start.
    """

    def __init__(self, store: TeamStore, folder: Path, settings: UsageConfig) -> None:
        self.totals = KeyTotals()
        self._store = store
        self._settings = settings
        self._reader = SegmentReader(folder)
        # One that is there may have what a server did not get before the store was changed to a file.
        has_journal = store.is_shared or (folder / JOURNAL).exists()
        self._journal = UsageJournal(folder / JOURNAL, settings.journal_mb << 20) if has_journal else None
        # One thread for all of it: what hangs on a disk hangs here, and nowhere else.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="usage")
        self._lost: dict[int, int] = {}  # by relay, as it counts them
        self._unstored = 0
        self._waiting: dict[str, tuple[int, float]] = {}  # by key's id: tokens and money of what is in the journal
        self._troubles: dict[str, str] = {}  # of taking records in, and of bringing them to a server
        self._news = asyncio.Event()  # the journal has records

    def __repr__(self) -> str:
        return f"<UsageCollector pending={self.pending} lost={self.lost}>"

    @property
    def pending(self) -> int:
        """How many records the store does not have yet, as far as they have been read."""
        return self._unstored + (self._journal.count if self._journal is not None else 0)

    def waiting(self, key: str) -> tuple[int, float]:
        """Tokens and money of the key's records that the store does not have yet, by the key's id."""
        return self._waiting.get(key, (0, 0.0))

    @property
    def lost(self) -> int:
        """How many records could be kept nowhere. A damaged file counts as one, where nobody knows how many it had."""
        damaged = self._journal.lost if self._journal is not None else 0
        return sum(self._lost.values()) + self._reader.damaged + damaged

    @property
    def trouble(self) -> str | None:
        """Why records stay on this machine; None while they do not, or while the store is away."""
        return next(iter(self._troubles.values()), None)

    @property
    def retention_days(self) -> int:
        """For how many days records are kept."""
        return self._settings.retention_days

    def follow(self, settings: UsageConfig) -> None:
        """The configuration has been read again."""
        self._settings = settings
        if self._journal is not None:
            self._journal.most_bytes = settings.journal_mb << 20

    async def run(self) -> None:
        """Work until cancelled."""
        await self._begin()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._collect_always(), name="usage collection")
            tasks.create_task(self._keep_up(), name="usage retention")
            if self._journal is not None:
                tasks.create_task(self._deliver_always(self._journal), name="usage delivery")

    async def aclose(self) -> None:
        """Bring in what the relays have written last, as far as that takes seconds."""
        with contextlib.suppress(TimeoutError, OSError, StoreError, JournalFull):
            async with asyncio.timeout(LAST_S):
                while await self._collect():
                    pass
                if self._journal is not None:
                    while await self._deliver(self._journal):
                        pass
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_S):
                await self._blocking(self._close)
        self._thread.shutdown(wait=False)

    # -- from the relays

    async def _begin(self) -> None:
        await self._blocking(self._reader.sweep)
        while self._journal is not None:
            try:
                self._reader.resume(await self._blocking(self._journal.open))
                self._waiting = await self._blocking(self._journal.by_key)
            except (OSError, JournalFull) as exc:
                self._say("take", str(exc))
                await asyncio.sleep(AGAIN_S)
            else:
                self._news.set()
                return

    async def _collect_always(self) -> None:
        while True:
            try:
                has_more = await self._collect()
            except (OSError, StoreError, JournalFull) as exc:
                self._say("take", str(exc))
                await asyncio.sleep(AGAIN_S)
                continue
            self._say("take", None)
            if not has_more:
                await asyncio.sleep(LOOK_S)

    async def _collect(self) -> bool:
        """Take what the relays have written, once; whether there is more."""
        batch = await self._blocking(lambda: self._reader.take(MOST_RECORDS))
        self._lost.update(batch.lost)
        self._unstored = len(batch.records)
        if batch.records:
            await self._keep(batch)
        if batch.records or batch.over or batch.damaged:
            await self._blocking(lambda: self._release(batch))
        self._unstored = 0
        return len(batch.records) >= MOST_RECORDS

    async def _keep(self, batch: Batch) -> None:
        """Have these records outlive the segments."""
        journal = self._journal
        if journal is None or not self._store.is_shared:
            fresh = await usage.insert(self._store, self._store.id, batch.records)
            self._count(record for id, record in batch.records if id in fresh)
            return
        read = {path.name: place for path, place in batch.read.items()}
        try:
            await self._blocking(lambda: journal.add(batch.records, read))
        except JournalFull:
            # There may be room elsewhere.
            await usage.insert(self._store, self._store.id, batch.records)
        else:
            self._wait(batch.records, 1)
        self._count(record for _, record in batch.records)
        self._news.set()

    def _release(self, batch: Batch) -> None:
        self._reader.release(batch)
        gone = [path.name for path in (*batch.over, *batch.damaged)]
        if gone and self._journal is not None:
            with contextlib.suppress(OSError, JournalFull):  # names of files that are gone do no harm
                self._journal.forget(gone)

    def _count(self, records: Iterable[UsageRecord]) -> None:
        for record in records:
            more = KeyCounts(1, record.input_tokens, record.output_tokens, record.money)
            self.totals.add(record.key_name or NO_KEY, more)

    def _say(self, what: str, trouble: str | None) -> None:
        if trouble is not None and what not in self._troubles:
            log.error("usage records wait in the state folder", reason=trouble)
        elif trouble is None and what in self._troubles:
            log.info("usage records are taken in again")
        self._troubles.pop(what, None)
        if trouble is not None:
            self._troubles[what] = trouble

    # -- to the server

    async def _deliver_always(self, journal: UsageJournal) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S):
                    await self._news.wait()
            self._news.clear()
            if not self._store.is_up:
                continue
            try:
                while await self._deliver(journal):
                    pass
            except StoreDown:  # which is said by itself
                await asyncio.sleep(AGAIN_S)
            except (OSError, StoreError, JournalFull) as exc:
                self._say("bring", str(exc))
                await asyncio.sleep(AGAIN_S)
            else:
                self._say("bring", None)

    async def _deliver(self, journal: UsageJournal) -> bool:
        """Bring the oldest records into the store; whether there were any."""
        records = await self._blocking(lambda: journal.first(MOST_RECORDS))
        if not records:
            return False
        await usage.insert(self._store, self._store.id, records)
        await self._blocking(lambda: journal.remove([id for id, _ in records]))
        self._wait(records, -1)
        if not journal.count:
            self._waiting.clear()
        return True

    def _wait(self, records: Sequence[tuple[str, UsageRecord]], sign: int) -> None:
        for _, record in records:
            tokens, money = self._waiting.get(record.key, (0, 0.0))
            more = record.input_tokens + record.output_tokens
            self._waiting[record.key] = (max(0, tokens + sign * more), max(0.0, money + sign * record.money))

    # -- within

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(UPKEEP_S)
            with contextlib.suppress(StoreError):
                removed = await usage.forget(self._store, self._settings.retention_days, self._settings.totals_days)
                if removed:
                    log.info("old usage records removed", count=removed)

    async def _blocking(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _close(self) -> None:
        self._reader.close()
        if self._journal is not None:
            self._journal.close()
