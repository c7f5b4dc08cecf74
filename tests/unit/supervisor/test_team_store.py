"""The store as a gateway sees it: away or there, with how many others, and who this gateway is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.store import schema
from app.store.database import Database, StoreDown
from app.store.postgresql import PostgresDatabase
from app.store.sqlite import SqliteDatabase
from app.store.tables import gateways
from app.supervisor.team.identity import Identity
from app.supervisor.team.team_store import TeamStore
from tests.rigs.postgres import PostgresServer

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that the tests of this file stop and kill."""
    with PostgresServer() as server:
        yield server


def identity(folder: Path, name: str = "a") -> Identity:
    """Of a gateway whose state folder that is."""
    return Identity(folder / f"{name}.json", name)


@asynccontextmanager
async def living(database: Database, who: Identity, forget_after_s: float = 3600.0) -> AsyncIterator[TeamStore]:
    """A gateway's store, looked after."""
    store = TeamStore(database, who, "1.2.3", forget_after_s, time.time)
    await store.open()
    task = asyncio.create_task(store.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield store
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.aclose()


async def until(store: TeamStore, *, is_up: bool) -> None:
    """It is seen to be there, or away."""
    changed = asyncio.Event()
    store.on_change(lambda _is_up: changed.set())
    while store.is_up is not is_up:
        await changed.wait()
        changed.clear()


async def counted(count: int, *stores: TeamStore) -> None:
    """Each of them knows of so many gateways."""
    while {store.gateways for store in stores} != {count}:  # noqa: ASYNC110  # heartbeats of others come by the clock
        await asyncio.sleep(0.05)


async def test_gateways_count_each_other_and_sign_off(server: PostgresServer, tmp_path: Path) -> None:
    url = server.database()
    async with living(PostgresDatabase(url), identity(tmp_path)) as first:
        async with living(PostgresDatabase(url), identity(tmp_path, "b")) as second:
            await until(second, is_up=True)
            await counted(2, first)
            names = first.census.names if first.census is not None else {}
            assert names == {first.id: "a", second.id: "b"}
        await counted(1, first)

    assert await asyncio.to_thread(server.sql, "SELECT count(*) FROM modelport.gateways", url.rpartition("/")[2]) == "0"
    assert identity(tmp_path, "b").gateways == 2
    assert identity(tmp_path).id == first.id


async def test_a_start_goes_on_without_a_store_and_takes_it_when_it_comes(
    server: PostgresServer, tmp_path: Path
) -> None:
    url = server.database()
    await asyncio.to_thread(server.stop)
    try:
        async with living(PostgresDatabase(url), identity(tmp_path)) as store:
            assert not store.is_up
            assert store.gateways is None
            with pytest.raises(StoreDown, match=r"refused|Connect"):
                await store.fetch("SELECT 1")
            assert "failed" in str(store.trouble) or "refused" in str(store.trouble)
            await asyncio.to_thread(server.start)
            await until(store, is_up=True)
            assert await store.fetch("SELECT 1 AS one") == [{"one": 1}]
            assert store.trouble is None
            assert store.gateways == 1
    finally:
        if not server.is_running:
            await asyncio.to_thread(server.start)


async def test_a_store_that_goes_away_fails_at_once_and_the_number_of_gateways_is_kept(
    server: PostgresServer, tmp_path: Path
) -> None:
    url = server.database()
    async with living(PostgresDatabase(url), identity(tmp_path)) as store:
        await until(store, is_up=True)
        told: list[bool] = []
        store.on_change(told.append)
        await asyncio.to_thread(server.kill)
        try:
            await until(store, is_up=False)
            with pytest.raises(StoreDown) as told_why:
                await store.execute("UPDATE gateways SET seen = 0")
            assert str(told_why.value).count(store.place) == 1
            assert store.gateways == 1
            assert store.down_since is not None
        finally:
            await asyncio.to_thread(server.start)
        await until(store, is_up=True)

        assert told == [False, True]
        assert "heartbeat" in store.seconds


async def test_a_copied_state_folder_becomes_a_gateway_of_its_own(server: PostgresServer, tmp_path: Path) -> None:
    url = server.database()
    original = identity(tmp_path)
    copied = identity(tmp_path)
    assert original.id == copied.id
    async with living(PostgresDatabase(url), original) as first, living(PostgresDatabase(url), copied) as second:
        await until(second, is_up=True)
        await counted(2, first, second)

        assert first.id != second.id


async def test_who_has_been_silent_for_long_is_forgotten_and_who_is_silent_is_told(
    server: PostgresServer,
) -> None:
    database = PostgresDatabase(server.database())
    await schema.migrate(database)
    for name, ago_s in (("now", 0), ("silent", 10), ("gone", 5000)):
        await gateways.beat(database, name, "1", name, "1.2.3")
        await database.execute("UPDATE gateways SET seen = store_time() - $1 WHERE id = $2", float(ago_s), name)

    before = await gateways.beat(database, "now", "1", "now", "1.2.3")
    after = await gateways.beat(database, "now", "1", "now", "1.2.3", forget_after_s=3600.0)
    await database.aclose()

    assert before is not None
    assert after is not None
    assert (before.count, before.silent) == (3, 2)
    assert (after.count, after.silent, set(after.names)) == (2, 1, {"now", "silent"})


async def test_the_embedded_store_is_one_gateways_own(tmp_path: Path) -> None:
    async with living(SqliteDatabase(tmp_path / "store.db"), identity(tmp_path)) as store:
        await until(store, is_up=True)

        assert (store.gateways, store.silent, store.is_shared) == (1, 0, False)
        assert abs(store.store_now() - time.time()) < 60


async def test_a_store_of_a_newer_gateway_ends_the_start(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "store.db")
    await schema.migrate(database)
    await database.execute("INSERT INTO schema_version (version, name) VALUES ($1, $2)", 999, "later")
    store = TeamStore(database, identity(tmp_path), "1.2.3", 3600.0, time.time)

    with pytest.raises(schema.TooNew, match="update the gateway"):
        await store.open()
    await store.aclose()


async def test_a_database_that_lost_its_tables_gets_them_again(server: PostgresServer, tmp_path: Path) -> None:
    url = server.database()
    async with living(PostgresDatabase(url), identity(tmp_path)) as store:
        await until(store, is_up=True)
        back = asyncio.Event()
        store.on_change(lambda is_up: back.set() if is_up else None)
        await asyncio.to_thread(server.sql, "DROP SCHEMA modelport CASCADE", url.rpartition("/")[2])
        await back.wait()

        assert (await store.fetch("SELECT COUNT(*) AS n FROM gateways"))[0]["n"] == 1
