"""The store in PostgreSQL: a few connections for what is short, one for what takes long, one that listens.

A connection on which anything but a refusal by the server has happened is thrown away at once: nobody waits for a
server that hangs to agree to that. The server, for its part, ends what we gave up (`statement_timeout`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, Literal, TypeAlias, TypeVar

import asyncpg
from asyncpg import PostgresError

from app.store import postgresql_url
from app.store.database import LONG_S, TIMEOUT_S, Row, Statements, StoreDown, StoreError, Value, storable

Result = TypeVar("Result")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

# Of one gateway; with the two others it has five, so twenty gateways fit into the hundred that a server allows.
MOST_CONNECTIONS: Final = 3
CHANNEL: Final = "modelport"
SCHEMA: Final = "modelport"
# Held while the schema changes: the bytes of "modelpor".
_LOCK_ALL: Final = int.from_bytes(b"modelpor", "big", signed=True)
# How long the connection that listens may be gone before it is tried again, and how often it is asked for life.
LISTEN_AGAIN_S: Final = 0.5
LISTEN_CHECK_S: Final = 1.0
_FAILURES: Final = (
    OSError,
    TimeoutError,
    ValueError,
    OverflowError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    PostgresError,
)
# Of PostgreSQL's classes of errors those that pass: no connection, no room, ended by the server, a lock lost to
# another; also a password or a database that somebody has yet to put right.
_PASSING: Final = ("08", "53", "57", "58", "40", "55P03", "25P03", "25006", "28", "3D", "0A000")
# Of these nobody knows whether a commit came through.
_UNKNOWN: Final = ("08", "57")


class PostgresDatabase:
    """A `Database` on a server. `url`: as `postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…`; what it does not
    say comes from PostgreSQL's own environment variables and password file.
    """

    dialect: Final[Literal["postgresql"]] = "postgresql"

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S, application: str = "modelport") -> None:
        self.place = postgresql_url.place(url)
        self._url = url
        self._lookup = _Lookup(postgresql_url.names(url, os.environ) if postgresql_url.trouble(url) is None else ())
        self._timeout_s = timeout_s
        self._application = application
        self._idle: list[Connection] = []
        self._places = asyncio.Semaphore(MOST_CONNECTIONS)
        self._long_place = asyncio.Semaphore(1)
        self._callbacks: list[Callable[[str], object]] = []
        self._listening: asyncio.Task[None] | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<PostgresDatabase {self.place} idle={len(self._idle)}>"

    async def fetch(self, sql: str, *args: Value) -> Sequence[Row]:
        """As the port says."""
        async with self._connection(self._places) as statements:
            return await statements.fetch(sql, *args)

    async def fetch_long(self, sql: str, *args: Value) -> Sequence[Row]:
        """As the port says."""
        async with self._connection(self._long_place, LONG_S) as statements:
            return await statements.fetch(sql, *args)

    async def execute(self, sql: str, *args: Value) -> int:
        """As the port says."""
        async with self._connection(self._places) as statements:
            statements.commits = True
            return await statements.execute(sql, *args)

    async def many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """As the port says."""
        async with self.transaction() as statements:
            await statements.many(sql, rows)

    async def notify(self, topic: str) -> None:
        """As the port says."""
        async with self._connection(self._places) as statements:
            await statements.notify(topic)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Statements]:
        """As the port says."""
        async with self._connection(self._places) as statements, self._in_transaction(statements):
            yield statements

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[Statements]:
        """As the port says. The first one makes the schema that all tables are in."""
        async with self._connection(self._long_place, LONG_S) as statements, self._in_transaction(statements):
            await statements.fetch("SELECT pg_advisory_xact_lock($1)", _LOCK_ALL)
            await _prepare(statements)
            yield statements

    @contextlib.asynccontextmanager
    async def _in_transaction(self, statements: _Statements) -> AsyncIterator[None]:
        await statements.script("BEGIN")
        try:
            yield
        except BaseException:
            # Not worth a wait where the connection is gone or we are being cancelled.
            with contextlib.suppress(StoreError):
                await statements.script("ROLLBACK")
            raise
        statements.commits = True
        await statements.script("COMMIT")

    @contextlib.asynccontextmanager
    async def _connection(
        self, places: asyncio.Semaphore, timeout_s: float | None = None
    ) -> AsyncIterator[_Statements]:
        """A connection with a place among those of its sort. `timeout_s`: for each statement, where it is not ours."""
        if self._is_closed:
            raise StoreDown(f"{self.place}: this process has ended its connections")
        try:
            async with asyncio.timeout(timeout_s or self._timeout_s):
                await places.acquire()
        except TimeoutError:
            raise StoreDown(f"{self.place} was busy for {timeout_s or self._timeout_s:g} s") from None
        connection: Connection | None = None
        try:
            is_short = timeout_s is None
            while is_short and self._idle and connection is None:
                idle = self._idle.pop()
                connection = idle if not idle.is_closed() else None
            connection = connection or await self._connect(timeout_s or self._timeout_s)
            statements = _Statements(connection, self.place, timeout_s or self._timeout_s)
            yield statements
            if is_short and not connection.is_closed() and not connection.is_in_transaction() and not self._is_closed:
                self._idle.append(connection)
                connection = None
        finally:
            if connection is not None:
                connection.terminate()
            places.release()

    async def _connect(self, statement_s: float) -> Connection:
        try:
            await self._lookup.known(self._timeout_s)
            connection: Connection = await asyncpg.connect(
                self._url,
                timeout=self._timeout_s,
                server_settings={
                    "application_name": self._application,
                    "search_path": SCHEMA,
                    "statement_timeout": str(int(statement_s * 1000)),
                    "idle_in_transaction_session_timeout": str(int(max(statement_s, 5.0) * 2000)),
                },
            )
        except _FAILURES as exc:
            raise _translated(self.place, exc) from exc
        try:
            # Sums of whole numbers are whole numbers.
            await connection.set_type_codec("numeric", schema="pg_catalog", encoder=str, decoder=_number, format="text")
        except BaseException as exc:
            connection.terminate()
            if isinstance(exc, _FAILURES):
                raise _translated(self.place, exc) from exc
            raise
        return connection

    def listen(self, callback: Callable[[str], object]) -> None:
        """As the port says."""
        self._callbacks.append(callback)
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen(), name="store notifications")

    def _tell(self, topic: str) -> None:
        for callback in self._callbacks:
            callback(topic)

    async def _listen(self) -> None:
        while True:
            connection: Connection | None = None
            try:
                connection = await self._connect(self._timeout_s)
                await connection.add_listener(CHANNEL, lambda _con, _pid, _channel, topic: self._tell(str(topic)))
                is_lost = asyncio.Event()
                connection.add_termination_listener(lambda _con, is_lost=is_lost: is_lost.set())
                self._tell("")  # what was told before is lost
                statements = _Statements(connection, self.place, self._timeout_s)
                while not is_lost.is_set():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(LISTEN_CHECK_S):
                            await is_lost.wait()
                    await statements.fetch("SELECT 1")
            except (StoreError, *_FAILURES):
                await asyncio.sleep(LISTEN_AGAIN_S)
            finally:
                if connection is not None:
                    connection.terminate()

    async def aclose(self) -> None:
        """As the port says."""
        self._is_closed = True
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        idle, self._idle = self._idle, []
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.gather(*(connection.close() for connection in idle), return_exceptions=True)
        except TimeoutError:
            pass
        finally:
            for connection in idle:
                connection.terminate()


class _Lookup:
    """Looks up the server's names before asyncpg does so, in a thread of its own and never two at a time: where a name
    server hangs, the threads of the event loop, which asyncpg uses, are left to those who wait for them.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._running: asyncio.Future[OSError | None] | None = None

    async def known(self, timeout_s: float) -> None:
        """Return once one of the names is known. OSError where none is, TimeoutError where that takes longer."""
        if not self._names:
            return
        loop = asyncio.get_running_loop()
        if self._running is None or self._running.done():
            self._running = loop.create_future()
            threading.Thread(target=self._look, args=(loop, self._running), name="store name", daemon=True).start()
        async with asyncio.timeout(timeout_s):
            error = await asyncio.shield(self._running)
        if error is not None:
            raise error

    def _look(self, loop: asyncio.AbstractEventLoop, done: asyncio.Future[OSError | None]) -> None:
        error: OSError | None = None
        for name in self._names:
            try:
                socket.getaddrinfo(name, None)
            except (OSError, UnicodeError) as exc:
                error = exc if isinstance(exc, OSError) else OSError(f"{name!r} is no name of a host")
            else:
                error = None
                break
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_settle, done, error)


def _settle(done: asyncio.Future[OSError | None], error: OSError | None) -> None:
    if not done.done():
        done.set_result(error)


class _Statements:
    """Statements on one connection. `commits`: the next one makes lasting what was done."""

    def __init__(self, connection: Connection, place: str, timeout_s: float) -> None:
        self._connection = connection
        self._place = place
        self._timeout_s = timeout_s
        self.commits = False

    async def fetch(self, sql: str, *args: Value) -> Sequence[Row]:
        values = tuple(map(storable, args))
        return [dict(row) for row in await self._run(lambda: self._connection.fetch(sql, *values))]

    async def execute(self, sql: str, *args: Value) -> int:
        # Without arguments it would be sent as a script, whose last word is told; with them it is one statement.
        values = tuple(map(storable, args))
        done = await self._run(lambda: self._connection.execute(sql, *values))
        last = str(done).rpartition(" ")[2]
        return int(last) if last.isdecimal() else 0

    async def many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        listed = [tuple(map(storable, row)) for row in rows]
        await self._run(lambda: self._connection.executemany(sql, listed))

    async def notify(self, topic: str) -> None:
        await self._run(lambda: self._connection.fetch("SELECT pg_notify($1, $2)", CHANNEL, topic))

    async def script(self, sql: str) -> None:
        await self._run(lambda: self._connection.execute(sql))

    async def _run(self, call: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """What the call returns. Where it is late or cancelled the connection is thrown away: asyncpg would otherwise
        open another one, without a time limit, to have the server stop.
        """
        connection, is_late = self._connection, False

        def late() -> None:
            nonlocal is_late
            is_late = True
            connection.terminate()

        timer = asyncio.get_running_loop().call_later(self._timeout_s, late)
        work = asyncio.ensure_future(call())
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            connection.terminate()
            await asyncio.gather(work, return_exceptions=True)
            raise
        except _FAILURES as exc:
            if is_late:
                text = f"{self._place} did not answer within {self._timeout_s:g} s"
                raise StoreDown(text, may_be_done=self.commits) from exc
            raise _translated(self._place, exc, commits=self.commits) from exc
        finally:
            timer.cancel()


async def _prepare(statements: Statements) -> None:
    """What every store has before its first table: the schema that they are in, and its clock."""
    if not await statements.fetch("SELECT 1 AS one FROM pg_catalog.pg_namespace WHERE nspname = $1", SCHEMA):
        await statements.execute(f"CREATE SCHEMA {SCHEMA}")
    if not await statements.fetch("SELECT 1 AS one WHERE to_regproc('store_time') IS NOT NULL"):
        await statements.execute(
            "CREATE FUNCTION store_time() RETURNS DOUBLE PRECISION LANGUAGE SQL VOLATILE AS "
            "'SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)'"
        )


def _number(text: str) -> int | float:
    return float(text) if "." in text or not text.lstrip("-").isdecimal() else int(text)


def _translated(place: str, exc: BaseException, *, commits: bool = False) -> StoreError:
    """asyncpg's errors as the port's. `commits`: it was being made lasting."""
    state = str(getattr(exc, "sqlstate", None) or "")
    reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else " ".join(str(exc).split())
    text = f"{place}: {reason or 'it did not answer in time'}"
    if isinstance(exc, PostgresError):
        is_passing, may_be_done = state.startswith(_PASSING), commits and state.startswith(_UNKNOWN)
    else:
        # What the client itself refuses, such as an argument of a wrong type, is a mistake of ours.
        is_mistake = isinstance(exc, asyncpg.InterfaceError | ValueError) and "closed" not in reason
        is_passing, may_be_done = not is_mistake, commits and not is_mistake
    return StoreDown(text, may_be_done=may_be_done) if is_passing else StoreError(text)
