"""Usage records on their way into the store: each once, whatever becomes of the store, the disk and the supervisor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.config.team import UsageConfig
from app.store.database import Database
from app.store.postgresql import PostgresDatabase
from app.store.sqlite import SqliteDatabase
from app.store.tables import usage
from app.store.tables.usage import UsageQuestion
from app.supervisor.metrics.team_series import KeyCounts
from app.supervisor.team.identity import Identity
from app.supervisor.team.team_store import TeamStore
from app.supervisor.team.usage.collector import JOURNAL, UsageCollector
from app.supervisor.team.usage.journal import UsageJournal
from app.usage.record import encoded_record
from app.usage.segment_reader import SegmentReader
from app.usage.segments import SegmentWriter
from tests.rigs.postgres import PostgresServer
from tests.unit.store.test_usage import made

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Database]:
    """Makes the connection of one life of the gateway."""
    if request.param == "sqlite":
        return lambda: SqliteDatabase(tmp_path / "store.db", 20.0)
    url = request.getfixturevalue("server").database()
    return lambda: PostgresDatabase(url, 5.0)


@asynccontextmanager
async def collecting(
    database: Database, folder: Path, settings: UsageConfig | None = None
) -> AsyncIterator[tuple[UsageCollector, TeamStore]]:
    """One life of a gateway."""
    store = TeamStore(database, Identity(folder / "identity.json", "a"), "1.2.3", 3600.0, time.time)
    await store.open()
    collector = UsageCollector(store, folder / "usage", settings or UsageConfig())
    tasks = [asyncio.create_task(store.run()), asyncio.create_task(collector.run())]
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield collector, store
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await collector.aclose()
        await store.aclose()


def write(folder: Path, *keys: str, number: int = 7, ends: bool = True) -> SegmentWriter:
    writer = SegmentWriter(folder / "usage", number)
    for key in keys:
        writer.write(encoded_record(made(key=key, key_name=key)))
    if ends:
        writer.close()
    return writer


async def stored(store: TeamStore, count: int) -> None:
    """So many are there, and then no more."""
    while not store.is_up or await usage.count(store) < count:  # noqa: ASYNC110  # nobody tells of it
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)
    assert await usage.count(store) == count


async def emptied(folder: Path) -> None:
    while list((folder / "usage").glob("*.segment")):  # noqa: ASYNC110  # nobody tells of it
        await asyncio.sleep(0.05)


async def test_what_relays_write_is_in_the_store_and_their_files_are_gone(
    database: Callable[[], Database], tmp_path: Path
) -> None:
    async with collecting(database(), tmp_path) as (collector, store):
        write(tmp_path, "office", "office", "lab")
        write(tmp_path, "office", number=8)

        await stored(store, 4)
        await emptied(tmp_path)

        assert collector.totals.shown()["office"] == KeyCounts(3, 300, 30, 0.75)
        assert (collector.pending, collector.lost, collector.trouble) == (0, 0, None)


async def test_what_waited_for_a_server_comes_into_the_file_that_takes_its_place(tmp_path: Path) -> None:
    """It used to stay in the journal, where nobody looked."""
    write(tmp_path, "office", "office", "lab")
    segment = next((tmp_path / "usage").glob("*.segment"))
    journal = UsageJournal(tmp_path / "usage" / JOURNAL, 64 << 20)
    reader = SegmentReader(tmp_path / "usage")
    batch = reader.take(2)
    journal.add(batch.records, {segment.name: batch.read[segment]})
    reader.close()
    journal.close()

    async with collecting(SqliteDatabase(tmp_path / "store.db", 20.0), tmp_path) as (collector, store):
        await stored(store, 3)
        await emptied(tmp_path)

        assert (collector.pending, collector.waiting("office")) == (0, (0, 0.0))


async def test_what_dead_relays_left_is_taken_in_at_the_next_start(
    database: Callable[[], Database], tmp_path: Path
) -> None:
    write(tmp_path, *["office"] * 3000)
    (tmp_path / "usage" / "0000000000000009-000001.new").write_bytes(b"")

    async with collecting(database(), tmp_path) as (_, store):
        await stored(store, 3000)
        await emptied(tmp_path)

        assert list((tmp_path / "usage").glob("*.new")) == []


async def test_a_relay_of_an_earlier_life_that_still_ends_is_read_to_its_end(
    database: Callable[[], Database], tmp_path: Path
) -> None:
    writer = write(tmp_path, "office", ends=False)
    async with collecting(database(), tmp_path) as (_, store):
        await stored(store, 1)
    writer.write(encoded_record(made()))

    async with collecting(database(), tmp_path) as (collector, store):
        writer.write(encoded_record(made()))
        writer.close()
        await stored(store, 3)
        await emptied(tmp_path)

        assert sum(each.requests for each in collector.totals.shown().values()) <= 3


async def test_what_is_written_last_is_brought_in_at_the_end(database: Callable[[], Database], tmp_path: Path) -> None:
    async with collecting(database(), tmp_path):
        await asyncio.sleep(0.1)
        write(tmp_path, *["office"] * 1500)

    async with collecting(database(), tmp_path / "other") as (_, store):
        assert await usage.count(store) == 1500


async def test_while_the_store_is_away_records_wait_in_the_journal(tmp_path: Path) -> None:
    with PostgresServer() as server:
        url = server.database()
        async with collecting(PostgresDatabase(url, 1.0), tmp_path) as (collector, store):
            write(tmp_path, "office")
            await stored(store, 1)
            server.kill()
            write(tmp_path, *["office"] * 2000, number=8)
            await emptied(tmp_path)
            while store.is_up:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            waiting = collector.pending
            await asyncio.to_thread(server.start)
            await stored(store, 2001)

            assert waiting == 2000
            assert collector.pending == 0


async def test_a_journal_outlives_its_gateway(tmp_path: Path) -> None:
    with PostgresServer() as server:
        url = server.database()
        server.kill()
        async with collecting(PostgresDatabase(url, 1.0), tmp_path) as (collector, _):
            write(tmp_path, *["office"] * 10)
            await emptied(tmp_path)
            assert collector.pending == 10
        await asyncio.to_thread(server.start)

        async with collecting(PostgresDatabase(url, 5.0), tmp_path) as (_, store):
            await stored(store, 10)


async def test_a_full_journal_leaves_records_where_relays_have_written_them(tmp_path: Path) -> None:
    with PostgresServer() as server:
        url = server.database()
        server.kill()
        settings = UsageConfig(journal_mb=16)
        async with collecting(PostgresDatabase(url, 1.0), tmp_path, settings) as (collector, store):
            collector.follow(settings.model_copy(update={"journal_mb": 0}))
            write(tmp_path, "office")
            while collector.trouble is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await asyncio.to_thread(server.start)
            await stored(store, 1)

            assert collector.lost == 0


async def test_a_store_that_refuses_for_good_is_said_and_costs_no_record(tmp_path: Path) -> None:
    with PostgresServer() as server:
        url = server.database()
        async with collecting(PostgresDatabase(url, 5.0), tmp_path) as (collector, store):
            await store.execute("ALTER TABLE usage_days RENAME TO elsewhere")
            write(tmp_path, "office")
            while collector.trouble is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            assert collector.pending == 1
            await store.execute("ALTER TABLE elsewhere RENAME TO usage_days")

            await stored(store, 1)


async def test_what_relays_lost_is_told(database: Callable[[], Database], tmp_path: Path) -> None:
    async with collecting(database(), tmp_path) as (collector, store):
        writer = write(tmp_path, "office", ends=False)
        writer._lose(3)
        writer.close()

        await stored(store, 1)

        assert collector.lost == 3


async def test_a_request_without_a_key_is_counted_under_none(database: Callable[[], Database], tmp_path: Path) -> None:
    async with collecting(database(), tmp_path) as (collector, store):
        write(tmp_path, "")
        await stored(store, 1)

        assert list(collector.totals.shown()) == ["none"]
        assert [each.name for each in await usage.report(store, UsageQuestion("key"))] == [""]
