"""The store in a SQLite file: one thread and one connection for what is short, another pair for what takes long.

In the thread a statement may hang, on a disk that does not answer: whoever asked is told after the time limit, and the
thread is left to itself, as a daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import queue
import re
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Literal, TypeVar

from app.store.database import LONG_S, TIMEOUT_S, Row, Statements, StoreDown, StoreError, Value, storable

Result = TypeVar("Result")

# Other processes (the command line) change the file, too: so often it is looked at.
LOOK_S: Final = 0.5
_BUSY: Final = ("locked", "busy", "interrupted")


class SqliteDatabase:
    """A `Database` in a file, which is made, private to this user, when it is first used."""

    dialect: Final[Literal["sqlite"]] = "sqlite"

    def __init__(self, path: Path, timeout_s: float = TIMEOUT_S) -> None:
        self.place = str(path)
        self._timeout_s = timeout_s
        self._short = _Worker(path, timeout_s)
        self._long = _Worker(path, timeout_s)
        self._turn = asyncio.Lock()  # a transaction has the connection to itself
        self._callbacks: list[Callable[[str], object]] = []
        self._watching: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<SqliteDatabase {self.place}>"

    async def fetch(self, sql: str, *args: Value) -> Sequence[Row]:
        """As the port says."""
        async with self._its_turn():
            return await self._short.run(_fetch(sql, args), self._timeout_s)

    async def fetch_long(self, sql: str, *args: Value) -> Sequence[Row]:
        """As the port says."""
        return await self._long.run(_fetch(sql, args), LONG_S)

    async def execute(self, sql: str, *args: Value) -> int:
        """As the port says."""
        async with self._its_turn():
            return await self._short.run(_execute(sql, args), self._timeout_s, commits=True)

    async def many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """As the port says."""
        async with self.transaction() as statements:
            await statements.many(sql, rows)

    async def notify(self, topic: str) -> None:
        """Tells this process at once; others see that the file has changed."""
        self._tell(topic)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Statements]:
        """As the port says."""
        async with self._transaction(self._timeout_s) as statements:
            yield statements

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[Statements]:
        """As the port says: a transaction that writes is always alone here."""
        async with self._transaction(LONG_S) as statements:
            yield statements

    @contextlib.asynccontextmanager
    async def _transaction(self, timeout_s: float) -> AsyncIterator[Statements]:
        async with self._its_turn():
            statements = _Transaction(self._short, timeout_s)
            try:
                await self._short.run(_begin, self._timeout_s)
                yield statements
                await self._short.run(_commit, timeout_s, commits=True)
            except BaseException:
                # It waits behind whatever still hangs, and nobody waits for it.
                self._short.later(_roll_back)
                raise
        for topic in statements.topics:
            self._tell(topic)

    @contextlib.asynccontextmanager
    async def _its_turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._turn.acquire()
        except TimeoutError:
            raise StoreDown(f"{self.place} was busy for {self._timeout_s:g} s") from None
        try:
            yield
        finally:
            self._turn.release()

    def listen(self, callback: Callable[[str], object]) -> None:
        """As the port says; a change by another process is told as ""."""
        self._callbacks.append(callback)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="store file")

    def _tell(self, topic: str) -> None:
        for callback in self._callbacks:
            callback(topic)

    async def _watch(self) -> None:
        last: int | None = None
        while True:
            with contextlib.suppress(StoreError):
                # Changes by our own connection do not count here, those of all others do.
                version = (await self.fetch("PRAGMA data_version"))[0]["data_version"]
                if last is not None and version != last:
                    self._tell("")
                last = version
            await asyncio.sleep(LOOK_S)

    async def aclose(self) -> None:
        """As the port says."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        for worker in (self._short, self._long):
            await worker.aclose(self._timeout_s)


class _Transaction:
    """The statements of one transaction. `topics`: what is told once it is committed."""

    def __init__(self, worker: _Worker, timeout_s: float) -> None:
        self._worker = worker
        self._timeout_s = timeout_s
        self.topics: list[str] = []

    async def fetch(self, sql: str, *args: Value) -> Sequence[Row]:
        return await self._worker.run(_fetch(sql, args), self._timeout_s)

    async def execute(self, sql: str, *args: Value) -> int:
        return await self._worker.run(_execute(sql, args), self._timeout_s)

    async def many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        listed, text = [tuple(map(storable, row)) for row in rows], rewritten(sql)

        def insert(connection: sqlite3.Connection) -> None:
            connection.executemany(text, listed)

        await self._worker.run(insert, self._timeout_s)

    async def notify(self, topic: str) -> None:
        self.topics.append(topic)


Work = Callable[[sqlite3.Connection], Result]


class _Worker:
    """One thread with one connection, both made when they are first needed."""

    def __init__(self, path: Path, busy_s: float) -> None:
        self._path = path
        self._busy_s = busy_s  # that another process may hold the file
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._connection: sqlite3.Connection | None = None

    async def run(self, work: Work[Result], timeout_s: float, *, commits: bool = False) -> Result:
        """Have the thread do it. StoreDown after `timeout_s`; by then it is interrupted, or was never begun."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Result] = loop.create_future()
        state = _Job()

        def job() -> None:
            if not state.begin():
                return
            try:
                result = work(self._connected())
            except Exception as exc:  # noqa: BLE001  # it is raised where it is awaited
                _deliver(loop, done, None, exc)
            else:
                _deliver(loop, done, result, None)

        self._put(job)
        try:
            async with asyncio.timeout(timeout_s):
                return await done
        except TimeoutError:
            was_begun = not state.give_up()
            if was_begun and (connection := self._connection) is not None:
                connection.interrupt()
            raise StoreDown(
                f"{self._path} did not answer within {timeout_s:g} s", may_be_done=was_begun and commits
            ) from None
        except (sqlite3.Error, OSError, OverflowError) as exc:
            raise _translated(self._path, exc) from exc

    def later(self, work: Work[object]) -> None:
        """Have the thread do it after what it does now, without anybody waiting."""

        def job() -> None:
            with contextlib.suppress(sqlite3.Error, OSError):
                if self._connection is not None:
                    work(self._connection)

        self._put(job)

    async def aclose(self, timeout_s: float) -> None:
        if self._thread is None:
            return
        with contextlib.suppress(StoreError):
            await self.run(self._close, timeout_s)
        self._jobs.put(None)

    def _put(self, job: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="store", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            # Readable by nobody else from the first byte on; SQLite's other files take after it.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(
                self._path, timeout=self._busy_s, isolation_level=None, check_same_thread=False
            )
            try:
                connection.row_factory = _row
                _write_ahead(connection, self._busy_s)
                connection.execute("PRAGMA synchronous = FULL")  # what is committed outlives a power cut
                connection.execute("PRAGMA journal_size_limit = 67108864")
                connection.create_function("store_time", 0, time.time)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _close(self, connection: sqlite3.Connection) -> None:
        self._connection = None
        connection.close()


class _Job:
    """Whether a piece of work was begun or given up: one of both, whichever thread comes first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def begin(self) -> bool:
        return self._lock.acquire(blocking=False)

    def give_up(self) -> bool:
        return self._lock.acquire(blocking=False)


def _deliver(
    loop: asyncio.AbstractEventLoop, done: asyncio.Future[Result], result: Result | None, error: BaseException | None
) -> None:
    def set_it() -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
        loop.call_soon_threadsafe(set_it)


@functools.lru_cache(maxsize=512)
def rewritten(sql: str) -> str:
    """The text with SQLite's placeholders: `$1` as `?1`."""
    return re.sub(r"\$(\d+)", r"?\1", sql)


def _row(cursor: sqlite3.Cursor, values: tuple[object, ...]) -> Row:
    return {column[0]: value for column, value in zip(cursor.description, values, strict=True)}


def _fetch(sql: str, args: Sequence[Value]) -> Work[Sequence[Row]]:
    values = tuple(map(storable, args))
    return lambda connection: connection.execute(rewritten(sql), values).fetchall()


def _execute(sql: str, args: Sequence[Value]) -> Work[int]:
    values = tuple(map(storable, args))
    return lambda connection: max(0, connection.execute(rewritten(sql), values).rowcount)


def _write_ahead(connection: sqlite3.Connection, busy_s: float) -> None:
    """Have the file written ahead. Whoever does so while another process makes it is refused at once, whatever the
    connection's own patience.
    """
    ends = time.monotonic() + busy_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as exc:
            if "locked" not in str(exc) or time.monotonic() >= ends:
                raise
        time.sleep(0.01)


def _begin(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:  # of one that nobody could wait for
        connection.execute("ROLLBACK")
    connection.execute("BEGIN IMMEDIATE")


def _commit(connection: sqlite3.Connection) -> None:
    connection.execute("COMMIT")


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _translated(path: Path, exc: sqlite3.Error | OSError | OverflowError) -> StoreError:
    reason = exc.strerror or str(exc) if isinstance(exc, OSError) else str(exc)
    if isinstance(exc, OSError) or any(word in reason for word in (*_BUSY, "unable to open", "full", "disk I/O")):
        return StoreDown(f"{path}: {reason}")
    if "not a database" in reason or "malformed" in reason:
        return StoreDown(f"{path} is damaged ({reason}): put a copy of it in its place, or move it away")
    return StoreError(f"{path}: {reason}")
