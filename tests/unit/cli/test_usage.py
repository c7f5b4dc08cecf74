"""`modelport usage` where no gateway runs: the store itself is asked."""

from __future__ import annotations

import asyncio
import csv
import json
import time
from pathlib import Path

import pytest

from app.cli.options import BAD_CONFIG
from app.store import schema
from app.store.sqlite import SqliteDatabase
from app.store.tables import usage
from app.supervisor.team.usage.collector import JOURNAL
from app.supervisor.team.usage.journal import UsageJournal
from app.usage.record import encoded_record
from app.usage.segments import SegmentWriter
from tests.rigs.cli import run
from tests.unit.store.test_usage import made, numbered


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder with a store, and no configuration beside it."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)

    async def filled() -> None:
        store = SqliteDatabase(folder / "store.db", 20.0)
        await schema.migrate(store)
        now = time.time()
        records = [made(now), made(now, input_tokens=1900), made(now, key="", key_name="", team=None, money=0.0)]
        await usage.insert(store, "g", numbered(records))
        await store.aclose()

    asyncio.run(filled())
    return folder


def test_it_is_a_table_with_a_line_for_all(state: Path) -> None:
    result = run(state.parent, "usage", "--state", str(state))

    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0].startswith("usage since 20")
    assert lines[2].split() == ["key", "requests", "input", "cached", "output", "reasoning", "money"]
    assert lines[3].split()[:3] == ["office", "2", "2,000"]
    assert lines[4].startswith("without a key")
    assert lines[5].split()[:3] == ["all", "3", "2,100"]


def test_a_key_that_has_used_nothing_is_one_sentence(state: Path) -> None:
    result = run(state.parent, "usage", "--key", "nobody", "--state", str(state))

    assert result.code == 0, result.err
    assert result.out.splitlines()[2:] == ["Nothing that matches was used in that time."]


def test_it_is_csv_or_json_for_programs(state: Path) -> None:
    rows = list(
        csv.DictReader(run(state.parent, "usage", "--by", "model", "--csv", "--state", str(state)).out.splitlines())
    )
    answer = json.loads(
        run(state.parent, "usage", "--by", "day", "--json", "--since", "12h", "--state", str(state)).out
    )

    assert [(row["model"], row["requests"]) for row in rows] == [("chat", "3")]
    assert [row["requests"] for row in answer["data"]] == [3]


@pytest.mark.parametrize(
    "options",
    [("--by", "colour"), ("--since", "whenever"), ("--until", "7x"), ("--since", "2020-02-03T04:00")],
    ids=lambda each: each[0],
)
def test_what_cannot_be_asked_is_said(state: Path, options: tuple[str, str]) -> None:
    result = run(state.parent, "usage", *options, "--state", str(state))

    assert result.code == BAD_CONFIG
    assert options[0].strip("-") in result.err
    assert options[1] in result.err or "records are kept for 90 days" in result.err


def test_what_a_gateway_has_left_for_the_next_one_is_said(state: Path) -> None:
    writer = SegmentWriter(state / "usage", 7)
    writer.write(encoded_record(made()))
    writer.close()
    journal = UsageJournal(state / "usage" / JOURNAL, 64 << 20)
    journal.add(numbered([made()] * 2, "j"), {})
    journal.close()

    result = run(state.parent, "usage", "--state", str(state))

    assert (result.code, "3 records of this gateway are not in the store yet" in result.err) == (0, True)
    assert len(list((state / "usage").glob("*.segment"))) == 1


@pytest.mark.parametrize("command", ["usage", "audit"])
def test_who_only_reads_leaves_the_tables_as_they_are(tmp_path: Path, command: str) -> None:
    """A report by a newer version must not lock out gateways of this one at their next start."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    (folder / "store.db").touch(mode=0o600)

    result = run(tmp_path, command, "--state", str(folder))

    assert (result.code, "no tables yet: start a gateway" in result.err) == (1, True)


def test_without_a_store_it_says_so(tmp_path: Path) -> None:
    result = run(tmp_path, "usage", "--state", str(tmp_path / "nothing"))

    assert result.code == 1
    assert "is made when a gateway starts" in result.err
