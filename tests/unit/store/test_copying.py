"""One store's content in another: whole, again, after a run that was ended, and of both kinds of store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.store import checkup, copying, schema
from app.store.database import Database, StoreError
from app.store.postgresql import PostgresDatabase
from app.store.schema import TableOf
from app.store.sqlite import SqliteDatabase
from app.store.tables import keys, usage
from app.store.tables.keys import KeyTerms
from app.store.tables.usage import DAY_S
from tests.rigs.postgres import PostgresServer
from tests.unit.store.test_usage import NOON, made, numbered

TABLES = (
    TableOf("people", ("id",)),
    TableOf("visits", ("person", "at")),
    TableOf("notes", ("word",)),
    TableOf("gateways", ("id",), is_copied=False),
)
COUNT = 530


class _EndedHereError(Exception):
    pass


async def make(database: Database) -> None:
    await schema.migrate(database)
    for sql in (
        "CREATE TABLE people (id TEXT PRIMARY KEY, name TEXT, born BIGINT NOT NULL, worth DOUBLE PRECISION)",
        "CREATE TABLE visits (person TEXT NOT NULL, at DOUBLE PRECISION NOT NULL, n BIGINT, PRIMARY KEY (person, at))",
        "CREATE TABLE notes (word TEXT PRIMARY KEY)",
    ):
        await database.execute(sql)


async def fill(database: Database) -> None:
    people = [(f"P{at:04}ä" if at % 2 else f"p-{at:04}", None if at % 7 else "x", at, at / 8) for at in range(COUNT)]
    await database.many("INSERT INTO people (id, name, born, worth) VALUES ($1, $2, $3, $4)", people)
    await database.many(
        "INSERT INTO visits (person, at, n) VALUES ($1, $2, $3)",
        [(f"p{at % 9}", 1.0e9 + at / 3, 2**40 + at) for at in range(COUNT)],
    )
    await database.many("INSERT INTO notes (word) VALUES ($1)", [(f"w{at}",) for at in range(7)])


@pytest.fixture
async def other(database: Database, postgres: PostgresServer, tmp_path: Path) -> AsyncIterator[Database]:
    """A store of the other kind."""
    made: Database
    if database.dialect == "sqlite":
        made = PostgresDatabase(postgres.database(), timeout_s=20.0)
    else:
        made = SqliteDatabase(tmp_path / "other.db", timeout_s=20.0)
    await make(database)
    await make(made)
    yield made
    await made.aclose()


async def content(database: Database, table: str) -> list[tuple[object, ...]]:
    return sorted((tuple(row.values()) for row in await database.fetch(f"SELECT * FROM {table}")), key=repr)


def nothing(_table: str, _done: int, _total: int, _is_comparing: bool) -> None:
    """Nobody looks."""


async def test_everything_is_in_the_other_store(database: Database, other: Database) -> None:
    await fill(database)
    told: list[tuple[str, int, int, bool]] = []

    copied = await copying.copy(database, other, lambda *at: told.append(at), 100, TABLES)

    assert [(each.name, each.rows, each.resumed, each.mended) for each in copied] == [
        ("people", COUNT, 0, 0),
        ("visits", COUNT, 0, 0),
        ("notes", 7, 0, 0),
    ]
    for table in ("people", "visits", "notes"):
        assert await content(other, table) == await content(database, table)
    assert [at for at in told if at[0] == "people"][:3] == [
        ("people", 0, COUNT, False),
        ("people", 100, COUNT, False),
        ("people", 200, COUNT, False),
    ]
    assert told[-1] == ("notes", 7, 7, True)


@pytest.mark.parametrize("ended_at", [("people", 200, False), ("visits", 300, False), ("people", 400, True)])
async def test_a_run_that_was_ended_goes_on_where_it_was(
    database: Database, other: Database, ended_at: tuple[str, int, bool]
) -> None:
    await fill(database)

    def ending(table: str, done: int, _total: int, is_comparing: bool) -> None:
        if (table, done, is_comparing) == ended_at:
            raise _EndedHereError

    with pytest.raises(_EndedHereError):
        await copying.copy(database, other, ending, 100, TABLES)
    first: list[tuple[str, int]] = []
    copied = await copying.copy(
        database,
        other,
        lambda table, done, _total, late: first.append((table, done)) if not late else None,
        100,
        TABLES,
    )

    table, done, is_comparing = ended_at
    begun = dict(reversed(first))
    assert begun[table] == (COUNT if is_comparing else done)
    assert {each.name: each.resumed for each in copied}[table] == begun[table]
    for name in ("people", "visits", "notes"):
        assert await content(other, name) == await content(database, name)


async def test_what_changed_since_an_ended_run_is_found_when_it_is_compared(
    database: Database, other: Database
) -> None:
    await fill(database)

    def ending(_table: str, done: int, _total: int, _is_comparing: bool) -> None:
        if done == 300:
            raise _EndedHereError

    with pytest.raises(_EndedHereError):
        await copying.copy(database, other, ending, 100, TABLES)
    await database.execute("UPDATE people SET name = 'changed' WHERE born < 3")
    copied = await copying.copy(database, other, nothing, 100, TABLES)

    assert [each.mended for each in copied] == [3, 0, 0]
    assert await content(other, "people") == await content(database, "people")


async def test_it_may_be_run_again_and_brings_what_is_new(database: Database, other: Database) -> None:
    await fill(database)
    await other.execute("INSERT INTO notes (word) VALUES ('its own')")
    await copying.copy(database, other, nothing, 100, TABLES)
    await database.execute("INSERT INTO notes (word) VALUES ('new')")
    copied = await copying.copy(database, other, nothing, 100, TABLES)

    assert copied[2] == copying.CopiedTable("notes", 8)
    assert {("its own",), ("new",)} <= set(await content(other, "notes"))


async def test_usage_of_two_stores_in_one_is_added_up_once(database: Database, other: Database) -> None:
    """One store's sums used to take the place of the other's."""

    await usage.insert(database, "a", numbered([made()] * 30, "a"))
    await usage.insert(other, "b", numbered([made()] * 12, "b"))
    # Of a day whose records are gone only the sums are left.
    await usage.insert(database, "a", numbered([made(NOON - 500 * DAY_S)], "old"))
    await database.execute("DELETE FROM usage_records WHERE id = 'old-0'")

    for _ in range(2):
        await copying.copy(database, other, nothing)
        days = await other.fetch("SELECT day, requests, input_tokens FROM usage_days ORDER BY day")
        assert [(row["requests"], row["input_tokens"]) for row in days] == [(1, 100), (42, 4200)]
    assert await usage.count(other) == 42


async def test_two_keys_of_one_name_are_told_before_one_of_them_is_gone(database: Database, other: Database) -> None:
    for store, id in ((database, "a"), (other, "b")):
        await store.execute(
            "INSERT INTO keys (id, name, role, priority, created, changed) VALUES ($1, 'office', 'user', '', 0, 0)", id
        )

    with pytest.raises(
        StoreError, match=r"keys: what is in .* cannot be beside what is in .*, as two keys of one name"
    ):
        await copying.copy(database, other, nothing)

    assert [row["id"] for row in await other.fetch("SELECT id FROM keys")] == ["b"]


async def opening(database: Database) -> dict[str, list[tuple[str, float | None]]]:
    """The secrets of each key that opens something."""
    live = await keys.live(database)
    return {key.terms.name: sorted((each.sha256[0], each.ends) for each in key.secrets) for key in live}


async def test_a_key_that_was_revoked_or_changed_later_in_the_target_stays_so(
    database: Database, other: Database
) -> None:
    for name, digest in (("gone", "a"), ("rotated", "b"), ("edited", "c"), ("same", "d")):
        await keys.add(database, KeyTerms(name), digest * 64, 1000.0)
    await copying.copy(database, other, nothing)
    await keys.revoke(other, "gone", 2000.0)
    await keys.rotate(other, "rotated", "e" * 64, 2000.0, 0)
    await keys.edit(other, "edited", {"rpm": 7}, 2000.0)
    there = await keys.listed(other)

    await copying.copy(database, other, nothing)

    assert await keys.listed(other) == there
    assert await opening(other) == {"edited": [("c", None)], "rotated": [("e", None)], "same": [("d", None)]}


async def test_a_secret_that_was_replaced_in_the_source_opens_nothing_in_the_target(
    database: Database, other: Database
) -> None:
    await keys.add(other, KeyTerms("its own"), "f" * 64, 1000.0)
    for name, digest in (("gone", "a"), ("rotated", "b")):
        await keys.add(database, KeyTerms(name), digest * 64, 1000.0)
    await copying.copy(database, other, nothing)
    await keys.revoke(database, "gone", 2000.0)
    await keys.rotate(database, "rotated", "c" * 64, 2000.0, 0)

    await copying.copy(database, other, nothing)

    assert await opening(other) == {"its own": [("f", None)], "rotated": [("c", None)]}
    assert len(await other.fetch("SELECT sha256 FROM key_secrets")) == 2


async def test_whoever_keeps_keys_of_the_target_looks_them_up_again(database: Database, other: Database) -> None:
    await database.execute("UPDATE key_changes SET version = 3")
    await other.execute("UPDATE key_changes SET version = 7")

    await copying.copy(database, other, nothing)

    assert await other.fetch("SELECT version FROM key_changes") == [{"version": 8}]


async def test_what_gateways_are_running_is_not_copied(database: Database, other: Database) -> None:
    await database.execute(
        "INSERT INTO gateways (id, life, name, version, started, seen) VALUES ('a', '', '', '', 0, store_time())"
    )

    await copying.copy(database, other, nothing, 100, TABLES)
    report = await checkup.look(database)

    assert await content(other, "gateways") == []
    assert (report.trouble, report.gateways, report.silent, report.schema) == (None, 1, 0, schema.VERSION)


async def test_a_store_that_no_gateway_has_used_is_looked_at_and_not_changed(empty: Database) -> None:
    report = await checkup.look(empty)

    assert (report.trouble, report.schema, report.rows) == (None, 0, {})
    assert await schema.version(empty, empty.dialect) == 0


async def test_a_clock_that_is_off_is_measured(database: Database) -> None:
    told = (await database.fetch("SELECT store_time() AS now"))[0]["now"]

    report = await checkup.look(database, now=lambda: told - 100.0)

    assert report.ahead_s is not None
    assert 99 < report.ahead_s < 160


async def test_texts_that_no_database_can_keep_are_kept_as_well_as_can_be(database: Database) -> None:
    """A client chooses what it calls a model, and a record that cannot be written must not hold up all others."""
    await make(database)

    await database.execute("INSERT INTO notes (word) VALUES ($1)", "a\x00b\ud800c\U0001f600")

    assert await content(database, "notes") == [("a\ufffdb\ufffdc\U0001f600",)]
