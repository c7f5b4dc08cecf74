"""Votes and runs of several gateways on one store."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import Problem
from app.ipc import SealedComparison
from app.store.tables.votes import RunTable, VoteTable
from app.supervisor.comparisons import runs, shared_runs, shared_votes
from app.supervisor.comparisons.shared_runs import Runs
from app.supervisor.comparisons.shared_votes import Votes
from app.supervisor.comparisons.votes import VoteStore
from app.table import Key
from tests.rigs.eventually import eventually, is_gone
from tests.rigs.switched_store import SwitchedDatabase

SEALED = SealedComparison("cmp-1", "office", "pair", ["a", "b"], [{"model": "a"}, {"model": "b"}])


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SwitchedDatabase]:
    made = SwitchedDatabase(tmp_path / "store.db")
    await made.make_ready()
    yield made
    await made.aclose()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_votes, "AGAIN_S", 0.01)
    monkeypatch.setattr(shared_runs, "LOOK_S", 0.01)


def gateway(folder: Path, database: SwitchedDatabase | None) -> Votes:
    folder.mkdir(exist_ok=True)
    table = VoteTable(database) if database is not None else None
    return Votes(VoteStore(folder / "votes.jsonl", lambda: 1000.0), table, lambda: 1000.0)


@contextlib.asynccontextmanager
async def running(*parts: Votes | Runs) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(part.run()) for part in parts]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def refused(votes: Votes, key: str | None = "office") -> str | None:
    with pytest.raises(Problem) as problem:
        await votes.cast("cmp-1", 0, key)
    return problem.value.code


async def sealed(database: SwitchedDatabase) -> None:
    await eventually(lambda: VoteTable(database).sealed("cmp-1", 0.0))


async def test_a_vote_may_come_to_another_gateway_and_counts_once(tmp_path: Path, database: SwitchedDatabase) -> None:
    first, second = gateway(tmp_path / "1", database), gateway(tmp_path / "2", database)
    async with running(first, second):
        first.seal(SEALED)
        await sealed(database)

        assert await refused(second, key="other") == "comparison_not_found"
        assert await second.cast("cmp-1", 1, "office") == SEALED
        assert await refused(first) == "already_voted"
        assert await refused(second) == "already_voted"

        with pytest.raises(Problem, match="waits for your vote"):
            await second.cast("cmp\x00", 1, "office")

        (vote,) = await first.read()
        assert (vote.id, vote.winner, vote.models, vote.key) == ("cmp-1", 1, ["a", "b"], "office")
        assert await second.read() == [vote]
        assert not (tmp_path / "2" / "votes.jsonl").exists()


async def test_while_the_store_is_away_the_gateway_that_asked_takes_the_vote(
    tmp_path: Path, database: SwitchedDatabase
) -> None:
    first, second = gateway(tmp_path / "1", database), gateway(tmp_path / "2", database)
    async with running(first, second):
        first.seal(SEALED)
        await sealed(database)
        database.is_down = True

        assert await refused(second) == "votes_unusable"
        assert await first.cast("cmp-1", 1, "office") == SEALED
        assert await refused(first) == "already_voted"
        assert (tmp_path / "1" / "votes.jsonl").exists()
        database.is_down = False

        await eventually(lambda: is_gone(tmp_path / "1" / "votes.jsonl"))
        assert [vote.winner for vote in await second.read()] == [1]
        assert await refused(second) == "already_voted"


async def test_votes_of_a_version_without_a_store_are_brought_in_once(
    tmp_path: Path, database: SwitchedDatabase
) -> None:
    votes = gateway(tmp_path / "1", database)
    path = tmp_path / "1" / "votes.jsonl"
    lines = "".join(f'{{"id":"old-{at}","time":{at},"models":["a","b"],"winner":"tie"}}\n' for at in range(3))
    path.write_text(lines)
    before = await votes.read()

    async with running(votes):
        await eventually(lambda: is_gone(path))

    assert path.with_suffix(".stored.jsonl").read_text() == lines
    assert [vote.id for vote in before] == ["old-0", "old-1", "old-2"]
    assert await votes.read() == before == await gateway(tmp_path / "2", database).read()


async def has(table: RunTable, count: int) -> bool:
    return len(await table.read(10)) == count


async def has_report(of: Runs) -> bool:
    return bool((await of.list_runs(None))[0]["has_report"])


def run_folder(folder: Path, name: str, created: int, models: list[str], report: str | None) -> None:
    (folder / name).mkdir(parents=True)
    entry: dict[str, Any] = {"id": name, "created": created, "models": models, "questions": 5, "state": "finished"}
    (folder / name / "run.json").write_text(json.dumps(entry))
    if report is not None:
        (folder / name / "report.json").write_text(report)


async def test_runs_of_another_gateway_are_shown_as_ones_own(tmp_path: Path, database: SwitchedDatabase) -> None:
    table = RunTable(database)
    first, second = (Runs(tmp_path / name, table, lambda name=name: name) for name in ("1", "2"))  # type: ignore[misc]
    run_folder(tmp_path / "1", "old", 1000, ["a"], '{"of": "old"}')
    run_folder(tmp_path / "1", "new", 2000, ["b"], None)
    async with running(first, second):
        await eventually(lambda: has(table, 2))

        assert await second.list_runs(None) == await first.list_runs(None)
        assert [each["id"] for each in await second.list_runs(None)] == ["new", "old"]
        only_a = Key("office", "", ("a",))
        assert [each["id"] for each in await second.list_runs(only_a)] == ["old"]
        assert await second.read_report("old", runs.REPORT_JSON, only_a) == b'{"of": "old"}'
        for name in ("new", "never", "..", "a\x00"):
            with pytest.raises(Problem) as problem:
                await second.read_report(name, runs.REPORT_JSON, None if name == "new" else only_a)
            assert problem.value.code == "run_not_found"

        database.is_down = True
        assert await second.list_runs(None) == []
        assert await first.read_report("old", runs.REPORT_JSON, None) == b'{"of": "old"}'
        with pytest.raises(Problem, match="cannot be reached"):
            await second.read_report("old", runs.REPORT_JSON, None)


async def test_a_run_that_goes_on_or_goes_away_does_so_everywhere(tmp_path: Path, database: SwitchedDatabase) -> None:
    table = RunTable(database)
    first, second = (Runs(tmp_path / name, table, lambda name=name: name) for name in ("1", "2"))  # type: ignore[misc]
    run_folder(tmp_path / "1", "run", 1000, ["a"], None)
    async with running(first):
        await eventually(lambda: second.list_runs(None))
        (tmp_path / "1" / "run" / "report.json").write_text("{}")
        await eventually(lambda: has_report(second))
        for path in (tmp_path / "1" / "run").iterdir():
            path.unlink()
        (tmp_path / "1" / "run").rmdir()
        await eventually(lambda: has(table, 0))

    assert await table.one("run") is None
