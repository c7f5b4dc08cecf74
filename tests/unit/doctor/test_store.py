"""What the doctor says of the store, and of usage records that wait: pure, and of real files and servers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from pathlib import Path

import pytest

from app.config.team import StoreConfig
from app.doctor.checks.of_store import store, usage
from app.doctor.facts import MachineFacts, StoreFacts, UsageFacts
from app.doctor.looking import store as looking
from app.store import schema
from app.store.checkup import Checkup
from app.store.sqlite import SqliteDatabase
from app.supervisor.state_folder import STORE
from app.usage.segment_reader import DAMAGED
from app.usage.segments import FOLDER

WELL = Checkup(None, 0.0008, schema.VERSION, 0.01, 3, 0, {"keys": 7})
PLACE = "db.internal:5432/modelport"


def said(report: Checkup | None, *, is_server: bool = True, exists: bool = True) -> list[tuple[str, str]]:
    """(severity, text and advice) of each line."""
    facts = MachineFacts(store=StoreFacts(PLACE, is_server, exists, report))
    return [(each.severity, f"{each.text}. {each.fix}") for each in store(facts)]


def test_a_store_that_is_well_is_told_with_its_tables_and_who_uses_it() -> None:
    ((severity, text),) = said(WELL)

    assert severity == "ok"
    assert text.startswith(f"{PLACE}, schema {schema.VERSION}, answers in 0.8 ms, gateways: 3")


def test_a_file_that_no_gateway_has_made_is_no_trouble() -> None:
    assert said(None, is_server=False, exists=False) == [("ok", f"{PLACE}, made at the first start. ")]
    assert [each.severity for each in store(MachineFacts())] == ["ok"]


@pytest.mark.parametrize(
    ("changes", "severity", "words"),
    [
        ({"trouble": f"{PLACE} is not reachable: connection refused"}, "error", "The gateway starts without it"),
        ({"trouble": "the store has schema 99", "schema": 99}, "error", "does not start with it"),
        ({"ahead_s": 12.3}, "warn", "its clock is 12.3 s ahead of this machine's"),
        ({"ahead_s": -3.0}, "warn", "its clock is 3.0 s behind this machine's"),
        ({"took_s": 1.5}, "warn", "it takes 1.5 s to answer"),
        ({"silent": 1}, "warn", "of 3 gateways 1 have not been heard of"),
    ],
)
def test_what_is_wrong_with_a_store_is_told(changes: dict[str, object], severity: str, words: str) -> None:
    lines = said(dataclasses.replace(WELL, **changes))  # type: ignore[arg-type]

    assert lines[0][0] == severity
    assert words in lines[0][1]


def test_a_damaged_file_is_not_to_be_thrown_away() -> None:
    ((severity, text),) = said(Checkup("store.db is damaged"), is_server=False)

    assert severity == "error"
    assert "it holds keys" in text


def test_records_that_wait_are_told_by_their_size_and_what_is_damaged() -> None:
    def lines(facts: UsageFacts | None) -> list[str]:
        return [each.severity for each in usage(MachineFacts(usage=facts))]

    assert lines(None) == ["ok"]
    assert lines(UsageFacts(Path("/s/usage"), 4 << 20)) == ["ok"]
    assert lines(UsageFacts(Path("/s/usage"), 300 << 20)) == ["warn"]
    assert lines(UsageFacts(Path("/s/usage"), 300 << 20, ("a.damaged",))) == ["warn", "warn"]
    assert lines(UsageFacts(Path("/s/usage"), trouble="Permission denied")) == ["error"]


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    facts = looking.store(StoreConfig(), tmp_path)

    assert (facts.exists, facts.report) == (False, None)
    assert list(tmp_path.iterdir()) == []


def test_a_real_file_is_looked_at_and_left_as_it_is(tmp_path: Path) -> None:
    async def made() -> None:
        async with contextlib.aclosing(SqliteDatabase(tmp_path / STORE)) as database:
            await schema.migrate(database)

    asyncio.run(made())

    facts = looking.store(StoreConfig(), tmp_path)

    assert facts.report is not None
    assert (facts.report.trouble, facts.report.schema) == (None, schema.VERSION)
    assert [path.name for path in tmp_path.iterdir()] == [STORE]


def test_a_file_that_is_no_store_is_told(tmp_path: Path) -> None:
    (tmp_path / STORE).write_bytes(b"not a database, whatever its name says" * 100)

    facts = looking.store(StoreConfig(), tmp_path)

    assert facts.report is not None
    assert facts.report.trouble is not None
    assert [each.severity for each in store(MachineFacts(store=facts))] == ["error"]


def test_a_server_that_nobody_runs_is_told_without_its_password(tmp_path: Path) -> None:
    config = StoreConfig.model_validate({"url": "postgresql://office:open-sesame@127.0.0.1:9/modelport"})

    facts = looking.store(config, tmp_path)

    (line,) = store(MachineFacts(store=facts))
    assert line.severity == "error"
    assert "127.0.0.1:9/modelport" in line.text
    assert "sesame" not in repr(facts)


def test_files_of_records_are_added_up_and_the_damaged_are_named(tmp_path: Path) -> None:
    assert looking.usage(tmp_path) is None
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / "0001.segment").write_bytes(b"x" * 8192)
    (folder / f"0002.segment{DAMAGED}").write_bytes(b"x")

    facts = looking.usage(tmp_path)

    assert facts is not None
    assert facts.waiting_bytes >= 8192
    assert facts.damaged == (f"0002.segment{DAMAGED}",)
