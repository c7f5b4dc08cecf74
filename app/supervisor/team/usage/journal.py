"""The usage journal: a SQLite file in the state folder with the records that the store does not have yet.

A record is in it for good once `add` has returned, also when the machine loses power. All methods block.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from app.usage.record import UsageRecord, decoded, encoded_record

log = structlog.get_logger()

DAMAGED: Final = ".damaged"
MOST_DAMAGED: Final = 2
BUSY_S: Final = 2.0
# How large the file may stay once it is empty.
SMALL_BYTES: Final = 4 * 1024 * 1024
_SIDE_FILES: Final = ("-wal", "-shm")


class JournalFull(Exception):
    """It takes no more: its own bound is reached, or there is no room on the disk. The message says which."""


class UsageJournal:
    """`most_bytes`: how large it may become. `count`: the records in it. `lost`: how many were in a file that was
    damaged, as far as that is known.
    """

    def __init__(self, path: Path, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.count = 0
        self.lost = 0
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<UsageJournal {self.count} records>"

    def open(self) -> dict[str, tuple[int, int]]:
        """Open the file, or make it. Returns how far the segments of relays were read into it, by their names. OSError
        where there is no place for it.
        """
        with self._used() as connection:
            return {row[0]: (row[1], row[2]) for row in connection.execute("SELECT name, at, number FROM segments")}

    def add(self, records: Sequence[tuple[str, UsageRecord]], read: Mapping[str, tuple[int, int]]) -> None:
        """Take these records, given with their ids, and how far the segments are read with them. JournalFull or OSError
        where that is not possible; then nothing was taken.
        """
        with self._used() as connection:
            if self._size(connection) >= self.most_bytes:
                raise JournalFull(f"{self._path} has {self.most_bytes >> 20} MB, which is as much as it may have")
            with _transaction(connection):
                before = connection.total_changes
                connection.executemany(
                    "INSERT INTO records (id, record) VALUES (?, ?) ON CONFLICT (id) DO NOTHING",
                    ((id, encoded_record(record)) for id, record in records),
                )
                added = connection.total_changes - before
                connection.executemany(
                    "INSERT INTO segments (name, at, number) VALUES (?, ?, ?) "
                    "ON CONFLICT (name) DO UPDATE SET at = excluded.at, number = excluded.number",
                    ((name, *place) for name, place in read.items()),
                )
            self.count += added

    def first(self, most: int) -> list[tuple[str, UsageRecord]]:
        """The oldest records, with their ids; `most` at most."""
        with self._used() as connection:
            rows = connection.execute("SELECT id, record FROM records ORDER BY number LIMIT ?", (most,)).fetchall()
            return [(id, decoded(data)) for id, data in rows]

    def by_key(self) -> dict[str, tuple[int, float]]:
        """Tokens and money of all that it has, by the key's id."""
        sums: dict[str, tuple[int, float]] = {}
        with self._used() as connection:
            for (data,) in connection.execute("SELECT record FROM records"):
                record = decoded(data)
                tokens, money = sums.get(record.key, (0, 0.0))
                more = record.input_tokens + record.output_tokens
                sums[record.key] = (tokens + more, money + record.money)
        return sums

    def remove(self, ids: Iterable[str]) -> None:
        """The store has these."""
        with self._used() as connection:
            with _transaction(connection):
                before = connection.total_changes
                connection.executemany("DELETE FROM records WHERE id = ?", ((id,) for id in ids))
                self.count -= connection.total_changes - before
            if self.count == 0 and self._pages(connection) * self._page_bytes(connection) > SMALL_BYTES:
                connection.executescript("PRAGMA incremental_vacuum")  # `execute` would free one page of them
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def forget(self, names: Iterable[str]) -> None:
        """These segments are gone."""
        with self._used() as connection, _transaction(connection):
            connection.executemany("DELETE FROM segments WHERE name = ?", ((name,) for name in names))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._drop()

    # -- within

    @contextlib.contextmanager
    def _used(self) -> Iterator[sqlite3.Connection]:
        """The connection. What goes wrong with it is said as OSError or JournalFull; a file that is damaged is put
        aside, and there is a new one the next time.
        """
        with self._lock:
            try:
                yield self._opened()
            except sqlite3.OperationalError as exc:
                self._drop()
                if "full" in str(exc):
                    raise JournalFull(f"{self._path}: there is no room on its disk") from exc
                raise OSError(f"{self._path}: {exc}") from exc
            except (sqlite3.DatabaseError, ValueError) as exc:
                self._put_aside(str(exc))
                raise OSError(f"{self._path} was damaged: {exc}") from exc

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            self._path.touch(mode=0o600)
            connection = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute(f"PRAGMA journal_size_limit = {SMALL_BYTES}")
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS records "
                    "(number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, record BLOB NOT NULL)"
                )
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS segments "
                    "(name TEXT PRIMARY KEY, at INTEGER NOT NULL, number INTEGER NOT NULL)"
                )
                self.count = connection.execute("SELECT COUNT(*) FROM records").fetchone()[0]
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _size(self, connection: sqlite3.Connection) -> int:
        free: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
        return (self._pages(connection) - free) * self._page_bytes(connection)

    def _pages(self, connection: sqlite3.Connection) -> int:
        pages: int = connection.execute("PRAGMA page_count").fetchone()[0]
        return pages

    def _page_bytes(self, connection: sqlite3.Connection) -> int:
        size: int = connection.execute("PRAGMA page_size").fetchone()[0]
        return size

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _put_aside(self, reason: str) -> None:
        self._drop()
        aside = self._path.with_name(f"{self._path.name}.{int(time.time())}{DAMAGED}")
        log.error(
            "usage records lost", reason=f"the journal is damaged, and was put aside: {reason}", records=self.count
        )
        self.lost += self.count or 1  # nobody knows what was in one that could not be opened
        self.count = 0
        with contextlib.suppress(OSError):
            self._path.rename(aside)
        for end in _SIDE_FILES:
            with contextlib.suppress(OSError):
                self._path.with_name(self._path.name + end).rename(aside.with_name(aside.name + end))
        kept = sorted(self._path.parent.glob(f"{self._path.name}.*{DAMAGED}"))
        for old in kept[:-MOST_DAMAGED]:
            for end in ("", *_SIDE_FILES):
                with contextlib.suppress(OSError):
                    old.with_name(old.name + end).unlink()


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
