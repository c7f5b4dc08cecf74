"""The store's file: private, shared with other processes, damaged, held by somebody else."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from app.store import schema
from app.store.database import StoreDown
from app.store.sqlite import SqliteDatabase

ROW = "INSERT INTO gateways (id, life, name, version, started, seen) VALUES ($1, '', '', '', 0, 0)"
PATIENCE_S = 60.0


@asynccontextmanager
async def opened(path: Path, timeout_s: float = 20.0) -> AsyncIterator[SqliteDatabase]:
    database = SqliteDatabase(path, timeout_s)
    try:
        yield database
    finally:
        await database.aclose()


async def test_every_table_has_its_place_in_the_order_of_locks_with_its_key(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as database:
        await schema.migrate(database)
        made = await database.fetch("SELECT name FROM sqlite_master WHERE type = 'table'")
        keys = {
            table.name: [
                row["name"]
                for row in sorted(await database.fetch(f"PRAGMA table_info({table.name})"), key=lambda row: row["pk"])
                if row["pk"]
            ]
            for table in schema.LOCK_ORDER
        }

    assert {row["name"] for row in made} - {"schema_version"} == {table.name for table in schema.LOCK_ORDER}
    assert keys == {table.name: list(table.key) for table in schema.LOCK_ORDER}


async def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as database:
        await schema.migrate(database)
        modes = modes_in(tmp_path)

    assert modes.keys() >= {"store.db", "store.db-wal"}
    assert set(modes.values()) == {0o600}


async def test_who_comes_while_another_process_makes_the_file_waits(tmp_path: Path) -> None:
    """SQLite itself refuses at once to have a file written ahead that somebody is about to write."""
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as maker:
        maker.execute("CREATE TABLE early (a)")
        maker.execute("BEGIN IMMEDIATE")
        async with opened(path) as database:
            coming = asyncio.create_task(schema.migrate(database))
            await asyncio.sleep(0.2)
            was_waiting = not coming.done()
            maker.execute("COMMIT")
            before, after = await coming

    assert was_waiting
    assert (before, after) == (0, schema.VERSION)


async def test_who_comes_while_a_file_stays_held_is_told(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as maker:
        maker.execute("CREATE TABLE early (a)")
        maker.execute("BEGIN IMMEDIATE")
        async with opened(path, 0.3) as database:
            with pytest.raises(StoreDown, match=r"locked|did not answer|was busy"):
                await schema.migrate(database)


def modes_in(folder: Path) -> dict[str, int]:
    """The permissions of each file."""
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


async def test_what_another_process_changes_is_told(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as database, opened(path) as other, asyncio.timeout(PATIENCE_S):
        await schema.migrate(database)
        told = asyncio.Event()
        database.listen(lambda _topic: told.set())
        number = 0
        while not told.is_set():
            number += 1
            await other.execute(ROW, str(number))
            await asyncio.sleep(0.05)

        assert len(await database.fetch("SELECT id FROM gateways")) == number


async def test_a_file_that_somebody_holds_is_given_up_in_time(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as database:
        await schema.migrate(database)
    async with opened(path, 0.2) as database, asyncio.timeout(PATIENCE_S):
        with closing(sqlite3.connect(path)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreDown):
                await database.execute(ROW, "a")
            holder.rollback()
        while True:
            try:
                await database.execute(ROW, "b")
                break
            except StoreDown:
                await asyncio.sleep(0.02)

        assert [row["id"] for row in await database.fetch("SELECT id FROM gateways")] == ["b"]


async def test_a_damaged_file_is_said_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"not a database, but somebody's work" * 100)
    async with opened(path) as database:
        with pytest.raises(StoreDown, match=r"store.db is damaged \(.*\): put a copy of it in its place"):
            await schema.migrate(database)

    assert path.read_bytes().startswith(b"not a database")


async def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    async with opened(tmp_path / "gone" / "store.db") as database:
        with pytest.raises(StoreDown, match="No such file or directory"):
            await database.fetch("SELECT 1")


async def test_a_statement_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"
    async with opened(tmp_path / "store.db", 0.2) as database, asyncio.timeout(PATIENCE_S):
        with pytest.raises(StoreDown, match=r"did not answer within 0.2 s"):
            await database.fetch(endless)
        while True:
            try:
                rows = await database.fetch("SELECT 1 AS one")
                break
            except StoreDown:
                await asyncio.sleep(0.02)

    assert rows == [{"one": 1}]
