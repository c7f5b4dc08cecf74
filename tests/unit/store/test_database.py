"""What every store does, whichever database it is in."""

from __future__ import annotations

import asyncio
import time

import pytest

from app.store import schema
from app.store.database import Database, StoreDown, StoreError

ROW = "INSERT INTO gateways (id, life, name, version, started, seen) VALUES ($1, $2, $3, $4, $5, $6)"


async def test_what_is_written_is_read_by_the_names_of_its_columns(database: Database) -> None:
    count = await database.execute(ROW, "a", "1", "höst", "0.1", 1.5, 2)

    rows = await database.fetch("SELECT id, name, started, seen FROM gateways WHERE id = $1", "a")

    assert count == 1
    assert rows == [{"id": "a", "name": "höst", "started": 1.5, "seen": 2.0}]


async def test_a_placeholder_may_be_used_twice(database: Database) -> None:
    await database.execute(ROW, "a", "1", "a", "0.1", 1.5, 2)

    rows = await database.fetch("SELECT id FROM gateways WHERE id = $1 AND name = $1 AND started > $2", "a", 1)

    assert [row["id"] for row in rows] == ["a"]


async def test_a_transaction_is_all_or_nothing(database: Database) -> None:
    async def fail() -> None:
        async with database.transaction() as statements:
            await statements.many(ROW, [(name, "1", "", "", 0.0, 0.0) for name in "abc"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    nothing = await database.fetch("SELECT id FROM gateways")
    async with database.transaction() as statements:
        await statements.many(ROW, [(name, "1", "", "", 0.0, 0.0) for name in "abc"])
        inside = await statements.fetch("SELECT id FROM gateways")

    assert nothing == []
    assert len(inside) == 3
    assert len(await database.fetch("SELECT id FROM gateways")) == 3


async def test_sums_of_whole_numbers_are_whole_numbers(database: Database) -> None:
    await database.execute("CREATE TABLE numbers (n BIGINT NOT NULL)")
    await database.many("INSERT INTO numbers (n) VALUES ($1)", [(2**40,), (1,)])

    rows = await database.fetch("SELECT SUM(n) AS total, AVG(n) AS mean, COUNT(*) AS count FROM numbers")

    assert rows == [{"total": 2**40 + 1, "mean": (2**40 + 1) / 2, "count": 2}]
    assert type(rows[0]["total"]) is int


async def test_increments_of_many_tasks_are_all_counted(database: Database) -> None:
    await database.execute(ROW, "a", "1", "", "", 0.0, 0.0)

    async def increment() -> None:
        async with database.transaction() as statements:
            await statements.execute("UPDATE gateways SET seen = seen WHERE id = $1", "a")
            seen = (await statements.fetch("SELECT seen FROM gateways WHERE id = $1", "a"))[0]["seen"]
            await statements.execute("UPDATE gateways SET seen = $1 WHERE id = $2", seen + 1, "a")

    await asyncio.gather(*(increment() for _ in range(20)))

    assert (await database.fetch("SELECT seen FROM gateways"))[0]["seen"] == 20


async def test_increments_of_many_processes_are_all_counted(empty: Database, others: list[Database]) -> None:
    await schema.migrate(empty)
    await empty.execute(ROW, "a", "1", "", "", 0.0, 0.0)

    async def increment(database: Database) -> None:
        for _ in range(10):
            async with database.transaction() as statements:
                await statements.execute("UPDATE gateways SET seen = seen WHERE id = $1", "a")
                seen = (await statements.fetch("SELECT seen FROM gateways WHERE id = $1", "a"))[0]["seen"]
                await statements.execute("UPDATE gateways SET seen = $1 WHERE id = $2", seen + 1, "a")

    await asyncio.gather(*(increment(each) for each in (empty, *others)))

    assert (await empty.fetch("SELECT seen FROM gateways"))[0]["seen"] == 40


async def test_a_row_that_is_there_can_be_updated_instead(database: Database) -> None:
    upsert = f"{ROW} ON CONFLICT (id) DO UPDATE SET seen = excluded.seen"

    await database.execute(upsert, "a", "1", "", "", 0.0, 1.0)
    count = await database.execute(upsert, "a", "1", "", "", 0.0, 2.0)

    assert count == 1
    assert (await database.fetch("SELECT seen FROM gateways"))[0]["seen"] == 2.0


async def test_the_store_has_a_clock(database: Database) -> None:
    told = (await database.fetch("SELECT store_time() AS now"))[0]["now"]

    assert isinstance(told, float)
    assert abs(told - time.time()) < 3600


async def test_a_wrong_statement_is_refused_and_the_next_one_works(database: Database) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        await database.fetch("SELECT * FROM nowhere")
    with pytest.raises(StoreError):
        async with database.transaction() as statements:
            await statements.fetch("SELECT * FROM nowhere")

    assert await database.fetch("SELECT 1 AS one") == [{"one": 1}]


async def test_whoever_listens_is_told(database: Database) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    database.listen(told.put_nowait)
    heard: list[str] = []
    async with asyncio.timeout(60):
        while "keys" not in heard:
            await database.notify("keys")
            async with asyncio.timeout(60):
                heard.append(await told.get())
        async with database.transaction() as statements:
            await statements.notify("limits")
        while "limits" not in heard:
            heard.append(await told.get())

    assert set(heard) <= {"", "keys", "limits"}


async def test_several_that_start_at_once_make_the_tables_once(empty: Database, others: list[Database]) -> None:
    results = await asyncio.gather(*(schema.migrate(each) for each in (empty, *others)))

    assert {after for _, after in results} == {schema.VERSION}
    assert min(before for before, _ in results) == 0
    steps = await empty.fetch("SELECT version FROM schema_version ORDER BY version")
    assert [row["version"] for row in steps] == [step.number for step in schema.STEPS]


async def test_a_store_of_a_newer_gateway_is_refused_in_a_sentence(database: Database) -> None:
    await database.execute("INSERT INTO schema_version (version, name) VALUES ($1, $2)", schema.VERSION + 1, "later")

    with pytest.raises(schema.TooNew, match=f"schema {schema.VERSION + 1}, and this gateway knows .* update the gate"):
        await schema.migrate(database)


async def test_a_long_read_is_in_nobodys_way(database: Database) -> None:
    await database.execute(ROW, "a", "1", "", "", 0.0, 0.0)

    async with database.transaction() as statements:
        await statements.execute("UPDATE gateways SET seen = $1", 7.0)
        rows = await database.fetch_long("SELECT seen FROM gateways")

    assert rows == [{"seen": 0.0}]
    assert await database.fetch_long("SELECT seen FROM gateways") == [{"seen": 7.0}]


def test_whoever_ordered_something_is_told_that_it_may_have_been_done() -> None:
    assert str(StoreDown("db:5432 did not answer", may_be_done=True)) == (
        "db:5432 did not answer; it may have been done all the same"
    )
    assert StoreDown("db:5432 did not answer", may_be_done=True).reason == str(StoreDown("db:5432 did not answer"))
