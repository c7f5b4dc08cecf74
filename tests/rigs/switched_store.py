"""A store in a file that can be taken away and brought back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Literal

from app.store import schema
from app.store.database import Row, Statements, StoreDown, Value
from app.store.sqlite import SqliteDatabase


class SwitchedDatabase:
    """A `Database`. While `is_down` every call raises StoreDown, as a gateway has it whose store is away."""

    dialect: Literal["sqlite", "postgresql"] = "sqlite"

    def __init__(self, path: Path) -> None:
        self.is_down = False
        self.place = str(path)
        self._database = SqliteDatabase(path, timeout_s=20.0)

    async def make_ready(self) -> None:
        """Make the tables."""
        await schema.migrate(self._database)

    def _there(self) -> SqliteDatabase:
        if self.is_down:
            raise StoreDown("it was taken away")
        return self._database

    async def fetch(self, sql: str, *args: Value) -> Sequence[Row]:
        return await self._there().fetch(sql, *args)

    async def fetch_long(self, sql: str, *args: Value) -> Sequence[Row]:
        return await self._there().fetch_long(sql, *args)

    async def execute(self, sql: str, *args: Value) -> int:
        return await self._there().execute(sql, *args)

    async def many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        await self._there().many(sql, rows)

    async def notify(self, topic: str) -> None:
        await self._there().notify(topic)

    def transaction(self) -> AbstractAsyncContextManager[Statements]:
        return self._there().transaction()

    def alone(self) -> AbstractAsyncContextManager[Statements]:
        return self._there().alone()

    def listen(self, callback: Callable[[str], object]) -> None:
        self._database.listen(callback)

    async def aclose(self) -> None:
        await self._database.aclose()
