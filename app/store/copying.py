"""One store's content into another, table by table: shown while it runs, going on where a killed run was, and compared
row by row at the end.

How far it is stands in the target, written together with the rows. What is there already is overwritten, but for keys
that were changed there later: so it may be run again at any time, and stores of several gateways can be brought
together in one.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence, Set
from dataclasses import dataclass

from app.store.database import Database, Row, Statements, StoreDown, StoreError
from app.store.schema import LOCK_ORDER, TableOf

# Told of each batch: the table, how many of its rows are done, how many there are, whether they are being compared.
Progress = Callable[[str, int, int, bool], object]


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """`rows`: of the table in the source, each of which the target has now. `resumed`: that an earlier run had copied;
    `mended`: that were not the same when they were compared, since they changed meanwhile.
    """

    name: str
    rows: int
    resumed: int = 0
    mended: int = 0


async def copy(
    source: Database,
    target: Database,
    progress: Progress,
    batch: int | None = None,
    tables: Sequence[TableOf] = LOCK_ORDER,
) -> list[CopiedTable]:
    """Copy every table that belongs to no running gateway. Both have the tables of this version. StoreError where the
    two differ in the end. `batch`: rows at a time, where it is not each table's own.
    """
    copied = []
    kept = await _changed_later(source, target) if any(table.of_key for table in tables) else frozenset()
    for table in tables:
        if table.is_copied:
            at_once = batch or table.at_once
            resumed = await _copy(source, target, table, kept, progress, at_once)
            rows, mended = await _compare(source, target, table, kept, progress, at_once)
            if table.of_key:
                await _remove_gone(source, target, table, kept)
            copied.append(CopiedTable(table.name, rows, resumed, mended))
    for table in tables:
        if table.completed_by:
            async with target.alone() as statements:
                if target.dialect == "postgresql":
                    # What gateways add meanwhile comes before or after it, whole.
                    await statements.execute(f"LOCK TABLE {table.name} IN EXCLUSIVE MODE")
                await statements.execute(table.completed_by)
    # From here on another run begins anew.
    await target.execute("DELETE FROM copies WHERE source = $1", source.place)
    return copied


async def _changed_later(source: Database, target: Database) -> frozenset[str]:
    """The keys, by their ids, that were changed in the target after they were in the source, or revoked there."""
    before, now = [
        {row["id"]: row["changed"] for row in await database.fetch_long("SELECT id, changed FROM keys")}
        for database in (source, target)
    ]
    return frozenset(id for id, changed in now.items() if changed > before.get(id, changed))


async def _remove_gone(source: Database, target: Database, table: TableOf, kept: Set[str]) -> None:
    """Remove rows of the source's keys that it has no longer: a secret that was replaced opens nothing there either."""
    columns = ", ".join(dict.fromkeys((table.of_key, *table.key)))
    sql = f"SELECT {columns} FROM {table.name}"  # noqa: S608  # names of the schema
    there = {tuple(row[column] for column in table.key) for row in await source.fetch_long(sql)}
    keys = {row["id"] for row in await source.fetch_long("SELECT id FROM keys")} - kept
    rows = [row for row in await target.fetch_long(sql) if row[table.of_key] in keys]
    places = " AND ".join(f"{column} = ${number}" for number, column in enumerate(table.key, 1))
    await target.many(
        f"DELETE FROM {table.name} WHERE {places}",  # noqa: S608  # names of the schema
        sorted({tuple(row[column] for column in table.key) for row in rows} - there),
    )


def _to_copy(table: TableOf, rows: list[Row], kept: Set[str]) -> list[Row]:
    return [row for row in rows if row[table.of_key] not in kept] if table.of_key and kept else rows


async def _copy(
    source: Database, target: Database, table: TableOf, kept: Set[str], progress: Progress, batch: int
) -> int:
    total = await count(source, table.name)
    done, after = await _position(source, target, table)
    resumed = done
    progress(table.name, done, total, False)
    async for rows in _batches(source, table, batch, after):
        done += len(rows)
        async with target.transaction() as statements:
            await statements.execute(
                "INSERT INTO copies (source, name, position, rows) VALUES ($1, $2, $3, $4) "
                "ON CONFLICT (source, name) DO UPDATE SET position = excluded.position, rows = excluded.rows",
                *(source.place, table.name, json.dumps([rows[-1][column] for column in table.key]), done),
            )
            try:
                await _put(statements, table, _to_copy(table, rows, kept))
            except StoreDown:
                raise
            except StoreError as exc:
                raise StoreError(
                    f"{table.name}: what is in {source.place} cannot be beside what is in {target.place}, as two keys "
                    f"of one name: {exc}"
                ) from exc
        progress(table.name, done, max(done, total), False)
    return resumed


async def _position(source: Database, target: Database, table: TableOf) -> tuple[int, list[object] | None]:
    """How many rows a run that was ended has copied, and the key of the last of them."""
    rows = await target.fetch(
        "SELECT position, rows FROM copies WHERE source = $1 AND name = $2", source.place, table.name
    )
    return (int(rows[0]["rows"]), json.loads(rows[0]["position"])) if rows else (0, None)


async def _compare(
    source: Database, target: Database, table: TableOf, kept: Set[str], progress: Progress, batch: int
) -> tuple[int, int]:
    """How many rows there are, each now the same in both; and how many had to be copied once more."""
    total, done, mended = await count(source, table.name), 0, 0
    progress(table.name, done, total, True)
    async for rows in _batches(source, table, batch, None):
        if different := await _different(target, table, _to_copy(table, rows, kept)):
            mended += len(different)
            async with target.transaction() as statements:
                await _put(statements, table, different)
            if await _different(target, table, different):
                raise StoreError(f"{table.name}: rows differ in {target.place} although they were just written")
        done += len(rows)
        progress(table.name, done, max(done, total), True)
    return done, mended


async def _batches(
    source: Database, table: TableOf, batch: int, after: Sequence[object] | None
) -> AsyncIterator[list[Row]]:
    """The rows in the order of their keys, as the source orders them; `after`: the key that they begin behind."""
    key = ", ".join(table.key)
    places = ", ".join(f"${number}" for number in range(1, len(table.key) + 1))
    while True:
        where = f"WHERE ({key}) > ({places}) " if after is not None else ""
        rows = await source.fetch_long(
            f"SELECT * FROM {table.name} {where}ORDER BY {key} LIMIT {batch}",  # noqa: S608  # names of the schema
            *(after or ()),  # type: ignore[arg-type]  # a key's columns hold what a store can hold
        )
        if rows:
            yield list(rows)
        if len(rows) < batch:
            return
        after = [rows[-1][column] for column in table.key]


async def _put(statements: Statements, table: TableOf, rows: Sequence[Row]) -> None:
    if not rows:
        return
    columns = list(rows[0])
    others = [column for column in columns if column not in table.key]
    update = ", ".join(f"{column} = {_newer(table, column)}" for column in others)
    await statements.many(
        f"INSERT INTO {table.name} ({', '.join(columns)}) "  # noqa: S608  # names of the schema
        f"VALUES ({', '.join(f'${number}' for number in range(1, len(columns) + 1))}) "
        f"ON CONFLICT ({', '.join(table.key)}) DO {f'UPDATE SET {update}' if others else 'NOTHING'}",
        [tuple(row[column] for column in columns) for row in rows],
    )


def _newer(table: TableOf, column: str) -> str:
    """What a column of a row is to be where the target has the row already."""
    new, old = f"excluded.{column}", f"{table.name}.{column}"
    return f"CASE WHEN {new} > {old} THEN {new} ELSE {old} END" if column in table.sums else new


def _holds(table: TableOf, held: Row | None, row: Row) -> bool:
    """Whether the target's row says what the source's does."""
    if held is None or held.keys() != row.keys():
        return False
    return all(held[name] >= value if name in table.sums else held[name] == value for name, value in row.items())


async def _different(target: Database, table: TableOf, rows: Sequence[Row]) -> list[Row]:
    """Those of the rows that the target does not have so."""
    different: list[Row] = []
    # A statement may have some tens of thousands of arguments.
    for start in range(0, len(rows), 250):
        part = rows[start : start + 250]
        there = await target.fetch_long(
            f"SELECT * FROM {table.name} WHERE {_any_of(table.key, len(part))}",  # noqa: S608  # names of the schema
            *(row[column] for row in part for column in table.key),
        )
        held = {tuple(row[column] for column in table.key): row for row in there}
        different += [row for row in part if not _holds(table, held.get(tuple(row[key] for key in table.key)), row)]
    return different


def _any_of(key: Sequence[str], count: int) -> str:
    """The condition that a row has one of so many keys, given one after the other."""
    width = len(key)
    if width == 1:
        return f"{key[0]} IN ({', '.join(f'${number}' for number in range(1, count + 1))})"
    each = (
        " AND ".join(f"{column} = ${at * width + index}" for index, column in enumerate(key, 1)) for at in range(count)
    )
    return f"({') OR ('.join(each)})"


async def count(database: Database, table: str) -> int:
    """How many rows a table has."""
    rows = await database.fetch_long(f"SELECT COUNT(*) AS count FROM {table}")  # noqa: S608  # a name of the schema
    return int(rows[0]["count"])
