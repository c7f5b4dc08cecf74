"""`modelport audit`, and what commands write down that work without a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
from pathlib import Path

from app.cli.audit import outcome
from app.store import schema
from app.store.sqlite import SqliteDatabase
from app.store.tables.audit import AuditTable
from app.store.tables.audit_entry import AuditEntry
from tests.rigs.cli import run


async def _made(path: Path, entries: int) -> None:
    async with contextlib.aclosing(SqliteDatabase(path, timeout_s=20.0)) as database:
        await schema.migrate(database)
        made = [AuditEntry(f"id-{at:05}", 1_700_000_000.0 + at, "Anna", "http", "reload") for at in range(entries)]
        await AuditTable(database).add(made)


def test_what_a_command_does_to_keys_without_a_gateway_is_written_down(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "lock").touch(mode=0o600)
    asyncio.run(_made(state / "store.db", 0))

    assert run(tmp_path, "audit").out == "Nobody has done anything that matches.\n"
    made = run(tmp_path, "keys", "new", "office", "--rpm", "60", "--json")
    assert run(tmp_path, "keys", "revoke", "office").code == 0

    secret = json.loads(made.out)["key"]
    told = run(tmp_path, "audit", "--json")
    revoked, new = json.loads(told.out)["data"]
    assert secret not in told.out
    assert (new["action"], new["target"], new["details"]) == ("keys.new", "office", {"name": "office", "rpm": 60})
    assert (revoked["action"], revoked["target"]) == ("keys.revoke", "office")
    assert {(each["actor"], each["via"]) for each in (new, revoked)} == {(getpass.getuser(), "command")}


def test_entries_are_read_page_by_page_and_narrowed(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "lock").touch(mode=0o600)
    asyncio.run(_made(state / "store.db", 1203))

    listed = json.loads(run(tmp_path, "audit", "--limit", "1201", "--json").out)["data"]
    later = run(tmp_path, "audit", "--since", "1700001200", TZ="Asia/Shanghai").out.splitlines()
    wrong = run(tmp_path, "audit", "--since", "lately")

    assert [each["id"] for each in listed] == [f"id-{at:05}" for at in range(1202, 1, -1)]
    assert len(later) == 4
    assert later[0].startswith("time (UTC)")
    assert later[1].startswith("2023-11-14 22:33:22"), "as `--since` takes it, whatever the machine's zone"
    assert (wrong.code, "lately" in wrong.err) == (2, True)


def test_where_there_is_no_store_there_is_nothing_to_read(tmp_path: Path) -> None:
    ended = run(tmp_path, "audit")

    assert (ended.code, "store.db" in ended.err) == (1, True)


def test_how_an_order_ended_is_said_in_a_word() -> None:
    assert [outcome(status) for status in (202, 404, 503, 0)] == ["done", "refused (404)", "failed (503)", "unknown"]
