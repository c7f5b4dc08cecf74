"""The audit of one gateway: what is written down where, while the store is there and while it is not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.store.tables.audit import AuditQuery, AuditTable
from app.store.tables.audit_entry import AuditEntry
from app.supervisor.team import audit as audit_module
from app.supervisor.team.audit import DAY_S, Audit, AuditJournal
from tests.rigs.eventually import eventually
from tests.rigs.switched_store import SwitchedDatabase

NOW = 100 * DAY_S


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SwitchedDatabase]:
    made = SwitchedDatabase(tmp_path / "store.db")
    await made.make_ready()
    yield made
    await made.aclose()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "AGAIN_S", 0.01)


def audit_of(database: SwitchedDatabase, path: Path, days: float = 30.0) -> Audit:
    return Audit(path / "audit.jsonl", AuditTable(database), lambda: NOW, "gw-1", lambda: days)


def entry(id_: str, at: float = NOW) -> AuditEntry:
    return AuditEntry(id_, at, "Anna", "page", "keys.new", "office", 200, {"rpm": 60})


@contextlib.asynccontextmanager
async def running(audit: Audit) -> AsyncIterator[None]:
    task = asyncio.create_task(audit.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def has(database: SwitchedDatabase, count: int) -> bool:
    return len(await AuditTable(database).read(AuditQuery())) == count


async def brought(audit: Audit) -> None:
    async def is_empty() -> bool:
        return not audit.pending

    await eventually(is_empty)


async def test_an_entry_is_a_line_of_the_log_and_a_row_of_the_store(tmp_path: Path, database: SwitchedDatabase) -> None:
    audit = audit_of(database, tmp_path)
    async with running(audit):
        with capture_logs() as logs:
            await audit.record(entry("a"))
        await brought(audit)

    (line,) = logs
    assert (line["event"], line["actor"], line["action"], line["target"], line["details"]) == (
        "audit",
        "Anna",
        "keys.new",
        "office",
        {"rpm": 60},
    )
    (kept,) = await AuditTable(database).read(AuditQuery())
    assert (kept.id, kept.gateway) == ("a", "gw-1")


async def test_while_the_store_is_away_the_file_has_them_also_for_the_next_gateway(
    tmp_path: Path, database: SwitchedDatabase
) -> None:
    database.is_down = True
    audit = audit_of(database, tmp_path)
    async with running(audit):
        for id_ in "abc":
            await audit.record(entry(id_))
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(b'{"id": "cut')

    database.is_down = False
    later = audit_of(database, tmp_path)
    async with running(later):
        await later.record(entry("d"))
        await eventually(lambda: has(database, 4))
        await brought(later)

    assert [each.id for each in await later.read(AuditQuery())] == ["d", "c", "b", "a"]
    assert not (tmp_path / "audit.jsonl").exists()


async def test_what_the_store_does_not_have_yet_is_read_with_the_rest(
    tmp_path: Path, database: SwitchedDatabase
) -> None:
    audit = audit_of(database, tmp_path)
    await AuditTable(database).add([entry("a", NOW - 1)])
    await audit.record(entry("b"))

    assert [each.id for each in await audit.read(AuditQuery())] == ["b", "a"]
    assert [each.id for each in await audit.read(AuditQuery(actor="Bert"))] == []
    assert [each.id for each in await audit.read(AuditQuery(limit=1))] == ["b"]
    await audit.aclose()
    assert audit.pending == 0
    assert [each.id for each in await AuditTable(database).read(AuditQuery())] == ["b", "a"]


async def test_a_disk_that_takes_nothing_stops_no_order_and_loses_no_entry(
    tmp_path: Path, database: SwitchedDatabase
) -> None:
    audit = audit_of(database, tmp_path / "gone")
    with capture_logs() as logs:
        await audit.record(entry("a"))
    (tmp_path / "gone").mkdir()

    async with running(audit):
        await brought(audit)

    assert [line["log_level"] for line in logs] == ["info", "error"]
    assert [each.id for each in await audit.read(AuditQuery())] == ["a"]


async def test_entries_go_once_they_are_too_old(tmp_path: Path, database: SwitchedDatabase) -> None:
    await AuditTable(database).add([entry("old", NOW - 31 * DAY_S), entry("new", NOW - 29 * DAY_S)])
    async with running(audit_of(database, tmp_path, days=0)) as _:
        await asyncio.sleep(0.05)
        assert len(await AuditTable(database).read(AuditQuery())) == 2

    async with running(audit_of(database, tmp_path)):
        await eventually(lambda: has(database, 1))

    assert [each.id for each in await AuditTable(database).read(AuditQuery())] == ["new"]


async def test_of_very_many_that_wait_only_the_log_tells(
    tmp_path: Path, database: SwitchedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "MOST_WAITING", 2)
    audit = audit_of(database, tmp_path)
    with capture_logs() as logs:
        for id_ in "abc":
            await audit.record(entry(id_))

    assert audit.pending == 2
    assert [line["event"] for line in logs].count("audit") == 3
    assert [line["log_level"] for line in logs] == ["info", "info", "info", "error"]


def test_a_journal_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert AuditJournal(tmp_path / "audit.jsonl").read() == []
