"""A store that several gateways of one process share, with a clock that the test moves, and that fails when it says so.

It is SQLite in memory, so that every statement is the real one; nothing waits, so that hours take a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal

from app.store import schema
from app.store.database import Row, Statements, StoreDown, Value
from app.store.sqlite import rewritten


@dataclass
class Clock:
    """Unix seconds, as the test says."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class ClockedDatabase:
    """The database itself. `fails`: asked before each commit; "before": it fails, and nothing has happened; "after": it
    fails, and everything has."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.fails: Callable[[str], Literal["before", "after"] | None] = lambda _gateway: None
        self._connection = sqlite3.connect(":memory:", isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.create_function("store_time", 0, clock)
        self._turn = asyncio.Lock()
        for step in schema.STEPS:
            for sql in step.statements:
                self._connection.execute(sql)

    def run(self, sql: str, args: Sequence[Value] = ()) -> list[Row]:
        """One statement."""
        return [dict(row) for row in self._connection.execute(rewritten(sql), list(args)).fetchall()]

    @contextlib.asynccontextmanager
    async def transaction(self, gateway: str) -> AsyncIterator[Statements]:
        """One of a gateway's."""
        async with self._turn:
            self.run("BEGIN IMMEDIATE")
            try:
                yield _Running(self)
                failure = self.fails(gateway)
                if failure == "before":
                    raise StoreDown("it is down")
            except BaseException:
                self.run("ROLLBACK")
                raise
            self.run("COMMIT")
            if failure == "after":
                raise StoreDown("it is down", may_be_done=True)

    def close(self) -> None:
        """Forget everything."""
        self._connection.close()


@dataclass
class _Running:
    database: ClockedDatabase

    async def fetch(self, sql: str, *args: Value) -> Sequence[Row]:
        await asyncio.sleep(0)
        return self.database.run(sql, args)

    async def execute(self, sql: str, *args: Value) -> int:
        await asyncio.sleep(0)
        self.database.run(sql, args)
        return int(self.database.run("SELECT changes() AS n")[0]["n"])

    async def many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        await asyncio.sleep(0)
        for row in rows:
            self.database.run(sql, row)

    async def notify(self, topic: str) -> None:
        raise NotImplementedError(topic)


@dataclass
class ClockedStore:
    """The store as one gateway, `id`, sees it. `is_up`, `is_shared` and `known`, how many gateways there are, as the
    test says."""

    database: ClockedDatabase
    id: str
    is_shared: bool = True
    is_up: bool = True
    known: int | None = None
    callbacks: list[Callable[[bool], object]] = field(default_factory=list)
    dialect: Literal["sqlite", "postgresql"] = "sqlite"
    place: str = "memory"

    @property
    def gateways(self) -> int | None:
        return self.known if self.is_shared else 1

    def sign_on(self) -> None:
        """There is one gateway more."""
        self.database.run(
            "INSERT INTO gateways (id, life, name, version, started, seen) VALUES ($1, 'l', $1, '1', 0, 0)", [self.id]
        )

    def store_now(self) -> float:
        return self.database.clock()

    def on_change(self, callback: Callable[[bool], object]) -> None:
        self.callbacks.append(callback)

    def transaction(self) -> AbstractAsyncContextManager[Statements]:
        if not self.is_up:
            raise StoreDown("it is down")
        return self.database.transaction(self.id)

    def alone(self) -> AbstractAsyncContextManager[Statements]:
        return self.transaction()

    async def fetch(self, sql: str, *args: Value) -> Sequence[Row]:
        async with self.transaction() as statements:
            return await statements.fetch(sql, *args)

    async def fetch_long(self, sql: str, *args: Value) -> Sequence[Row]:
        return await self.fetch(sql, *args)

    async def execute(self, sql: str, *args: Value) -> int:
        async with self.transaction() as statements:
            return await statements.execute(sql, *args)

    async def many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        async with self.transaction() as statements:
            await statements.many(sql, rows)

    async def notify(self, topic: str) -> None:
        raise NotImplementedError(topic)

    def listen(self, callback: Callable[[str], object]) -> None:
        raise NotImplementedError(callback)

    async def aclose(self) -> None:
        """It stays."""
