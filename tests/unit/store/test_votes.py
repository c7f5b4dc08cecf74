"""Votes and runs in the store, on both databases."""

from __future__ import annotations

import msgspec

from app.store.database import Database
from app.store.tables.votes import RunRow, RunTable, VoteRow, VoteTable

VOTE = VoteRow("cmp-1", 1000, '["a","b"]', "0", "pair", None)
RUN = RunRow("gw-1", "20261128-a", "1 2 3", 1000, '{"id":"20261128-a"}', True)


async def test_a_comparison_waits_until_its_vote_and_takes_one(database: Database) -> None:
    table = VoteTable(database)
    await table.seal("cmp-1", 900.0, "{}")
    await table.seal("cmp-1", 901.0, "changed")

    assert await table.sealed("cmp-1", 0.0) == (900.0, "{}")
    assert not await table.has_vote("cmp-1")
    assert await table.cast(VOTE)

    assert await table.sealed("cmp-1", 0.0) is None
    assert await table.has_vote("cmp-1")
    assert not await table.cast(msgspec.structs.replace(VOTE, winner="1"))
    assert await table.read(10) == [VOTE]


async def test_what_has_waited_too_long_is_no_longer_there(database: Database) -> None:
    table = VoteTable(database)
    await table.seal("cmp-1", 900.0, "{}")
    await table.seal("cmp-2", 950.0, "{}")

    assert await table.sealed("cmp-1", 901.0) is None
    await table.forget(before=940.0)

    assert await table.sealed("cmp-1", 0.0) is None
    assert await table.sealed("cmp-2", 0.0) == (950.0, "{}")


async def test_the_latest_votes_are_read_oldest_first(database: Database) -> None:
    table = VoteTable(database)
    votes = [msgspec.structs.replace(VOTE, id=f"cmp-{number}", at=number) for number in range(5)]
    await table.add(reversed(votes))
    await table.add(votes)

    assert await table.read(3) == votes[2:]


async def test_a_run_is_kept_as_it_was_last_with_its_reports(database: Database) -> None:
    table = RunTable(database)
    report = bytes(range(256)) * 1000
    await table.put(msgspec.structs.replace(RUN, has_report=False), {})
    await table.put(RUN, {"report.json": report, "report.html": b"<p>"})

    assert await table.read(10) == [RUN]
    assert await table.one(RUN.id) == RUN
    assert await table.report(RUN, "report.json") == report
    assert await table.report(RUN, "other") is None
    assert await table.one("other") is None


async def test_runs_of_several_gateways_stand_beside_each_other_and_go_alone(database: Database) -> None:
    table = RunTable(database)
    other = msgspec.structs.replace(RUN, gateway="gw-2", created=2000)
    for run in (RUN, other):
        await table.put(run, {"report.json": run.gateway.encode()})

    assert await table.read(10) == [other, RUN]
    assert await table.stamps("gw-2") == {RUN.id: RUN.stamp}
    assert await table.one(RUN.id) == other
    await table.remove("gw-2", [RUN.id, "never"])

    assert await table.read(10) == [RUN]
    assert await table.report(RUN, "report.json") == b"gw-1"
    assert await table.report(other, "report.json") is None
