"""The store as both databases: every test that takes `database` runs on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.store import schema
from app.store.database import Database
from app.store.postgresql import PostgresDatabase
from app.store.sqlite import SqliteDatabase
from tests.rigs.postgres import PostgresServer


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for the whole session; whoever kills or stops it has one of his own."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
async def empty(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """A database with nothing in it."""
    made: Database
    if request.param == "sqlite":
        made = SqliteDatabase(tmp_path / "store.db", timeout_s=20.0)
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        made = PostgresDatabase(server.database(), timeout_s=20.0)
    try:
        yield made
    finally:
        await made.aclose()


@pytest.fixture
async def others(empty: Database, postgres: PostgresServer) -> AsyncIterator[list[Database]]:
    """The same store as `empty`, as three other processes have it."""
    others: list[Database] = (
        [SqliteDatabase(Path(empty.place), timeout_s=20.0) for _ in range(3)]
        if empty.dialect == "sqlite"
        else [PostgresDatabase(postgres.url(empty.place.rpartition("/")[2]), timeout_s=20.0) for _ in range(3)]
    )
    yield others
    for each in others:
        await each.aclose()


@pytest.fixture
async def database(empty: Database) -> Database:
    """A database with the tables of this version."""
    await schema.migrate(empty)
    return empty
