"""The audit in the store, on both databases."""

from __future__ import annotations

import msgspec
import pytest

from app.store.database import Database
from app.store.tables.audit import MOST_READ, AuditQuery, AuditTable
from app.store.tables.audit_entry import AuditEntry

FIRST = AuditEntry("a", 10.0, "Anna", "page", "keys.new", "office", 200, {"rpm": 60}, "gw-1", "req-1", "10.0.0.7")
SECOND = AuditEntry("b", 20.0, "root", "socket", "keys.revoke", "office", 404)
THIRD = AuditEntry("c", 20.0, "Anna", "http", "backends.stop", "demo", 202)
FOURTH = AuditEntry("d", 30.0, "Anna", "http", "keys_of_others", "x", 500)


@pytest.fixture
async def table(database: Database) -> AuditTable:
    table = AuditTable(database)
    await table.add([FIRST, SECOND, THIRD, FOURTH])
    return table


async def test_entries_come_back_whole_and_newest_first(table: AuditTable) -> None:
    assert await table.read(AuditQuery()) == [FOURTH, THIRD, SECOND, FIRST]


async def test_one_more_than_is_shown_at_once_is_read(database: Database) -> None:
    """So that whoever is shown as many as that is told that there are more."""
    table = AuditTable(database)
    await table.add([msgspec.structs.replace(FIRST, id=f"id-{at:05}", at=float(at)) for at in range(MOST_READ + 5)])

    assert len(await table.read(AuditQuery(limit=MOST_READ + 1))) == MOST_READ + 1


async def test_an_entry_that_comes_again_stays_as_it_was(table: AuditTable) -> None:
    await table.add([msgspec.structs.replace(FIRST, actor="Bert"), SECOND])

    assert await table.read(AuditQuery()) == [FOURTH, THIRD, SECOND, FIRST]


QUERIES = {
    "from": (AuditQuery(since=20.0), "dcb"),
    "until": (AuditQuery(until=20.0), "a"),
    "actor": (AuditQuery(actor="Anna"), "dca"),
    "target": (AuditQuery(target="office"), "ba"),
    "one action": (AuditQuery(action="keys.new"), "a"),
    "all actions of a kind": (AuditQuery(action="keys"), "ba"),
    "a wildcard is a letter": (AuditQuery(action="key_"), ""),
    "so many": (AuditQuery(limit=2), "dc"),
    "below one of the same moment": (AuditQuery(before="c"), "ba"),
    "below nothing": (AuditQuery(before="gone"), ""),
    "everything at once": (AuditQuery(5.0, 25.0, "Anna", "keys", "office", "c", 5), "a"),
}


@pytest.mark.parametrize("query", QUERIES)
async def test_what_is_wanted_is_what_comes(table: AuditTable, query: str) -> None:
    wanted, ids = QUERIES[query]

    assert "".join(entry.id for entry in await table.read(wanted)) == ids
    if wanted.before is None and wanted.limit == 100:
        assert "".join(each.id for each in (FOURTH, THIRD, SECOND, FIRST) if wanted.wants(each)) == ids


async def test_what_is_too_old_goes(table: AuditTable) -> None:
    await table.forget(before=20.0)

    assert [entry.id for entry in await table.read(AuditQuery())] == ["d", "c", "b"]
