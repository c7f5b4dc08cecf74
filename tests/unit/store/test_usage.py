"""Usage in the store, the same on SQLite and PostgreSQL: records once each, their sums, what is kept for how long."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from app.store import schema
from app.store.database import Database
from app.store.sqlite import SqliteDatabase
from app.store.tables import usage
from app.store.tables.usage import DAY_S, GroupUsage, UsageBy, UsageQuestion
from app.usage.record import UsageRecord

DAY = 20_000
NOON = DAY * DAY_S + DAY_S / 2


def made(at: float = NOON, **changed: object) -> UsageRecord:
    record = UsageRecord(
        at=at,
        key="k-1",
        key_name="office",
        team="law",
        model="chat",
        backend="gpu0",
        serving="0123456789abcdef",
        operation="chat",
        route="/v1/chat/completions",
        input_tokens=100,
        output_tokens=10,
        cached_tokens=60,
        reasoning_tokens=4,
        is_estimated=False,
        money=0.25,
        seconds=1.5,
        first_token_s=None,
        load_s=0.0,
        queue_s=0.0,
        attempts=1,
        outcome="ok",
        status=200,
        request_id="r",
        is_stream=True,
    )
    return msgspec.structs.replace(record, **changed)


def numbered(records: Sequence[UsageRecord], start: str = "w") -> list[tuple[str, UsageRecord]]:
    return [(f"{start}-{number}", record) for number, record in enumerate(records)]


async def asked(database: Database, by: UsageBy = "key", since: float | None = None) -> list[GroupUsage]:
    return await usage.report(database, UsageQuestion(by, since))


@pytest.mark.parametrize("since", [None, NOON - 1.0])
async def test_a_record_is_in_its_sums(database: Database, since: float | None) -> None:
    fresh = await usage.insert(database, "g", numbered([made(), made(outcome="engine_failed", status=502)]))

    assert fresh == {"w-0", "w-1"}
    assert await asked(database, since=since) == [GroupUsage("office", "k-1", 2, 1, 200, 20, 120, 8, 0.5)]
    assert await usage.count(database) == 2


async def test_bringing_a_record_in_again_changes_nothing(database: Database) -> None:
    await usage.insert(database, "g", numbered([made(), made()]))

    fresh = await usage.insert(database, "g", numbered([made(), made(), made()]))

    assert fresh == {"w-2"}
    assert [each.requests for each in await asked(database)] == [3]


async def test_a_record_that_comes_twice_at_once_is_one(database: Database) -> None:
    await usage.insert(database, "g", [*numbered([made()]), *numbered([made()])])

    assert [each.requests for each in await asked(database)] == [1]
    assert await usage.count(database) == 1


async def test_a_batch_of_any_size_is_brought_in(database: Database) -> None:
    for size in (1, 19, 20, 21, 200, 431):
        await usage.insert(database, "g", numbered([made()] * size, str(size)))

    assert [each.requests for each in await asked(database)] == [1 + 19 + 20 + 21 + 200 + 431]


async def test_nothing_is_no_batch(database: Database) -> None:
    assert await usage.insert(database, "g", []) == set()
    assert await asked(database) == []


async def test_gateways_bring_in_the_same_keys_at_once_and_none_waits_for_another_for_ever(database: Database) -> None:
    keys = [f"k-{number}" for number in range(20)]

    async def brings(gateway: int) -> None:
        order = keys if gateway % 2 else keys[::-1]
        for turn in range(5):
            records = [made(key=key, key_name=key) for key in order]
            await usage.insert(database, str(gateway), numbered(records, f"{gateway}-{turn}"))

    await asyncio.gather(*(brings(gateway) for gateway in range(4)))

    assert {each.requests for each in await asked(database)} == {20}


async def test_a_batch_that_is_brought_in_while_the_last_try_still_runs_is_counted_once(database: Database) -> None:
    batch = numbered([made()] * 50)

    fresh = await asyncio.gather(*(usage.insert(database, "g", batch) for _ in range(3)))

    assert sum(map(len, fresh)) == 50
    assert [each.requests for each in await asked(database)] == [50]
    assert await usage.count(database) == 50


RECORDS = [
    made(),
    made(NOON + DAY_S, key="k-2", key_name="lab", team=None, model="law", input_tokens=1000),
    made(NOON + DAY_S, key="", key_name="", team=None, outcome="client_left", status=499),
    made(NOON + 2 * DAY_S, model="law", money=0.0),
]
GROUPS = {
    "key": [("lab", "k-2", 1), ("office", "k-1", 2), ("", "", 1)],
    "model": [("law", None, 2), ("chat", None, 2)],
    "day": [("2024-10-04", None, 1), ("2024-10-05", None, 2), ("2024-10-06", None, 1)],
    "team": [("", None, 2), ("law", None, 2)],
}


@pytest.mark.parametrize("is_of_days", [True, False])
@pytest.mark.parametrize("by", usage.GROUPS)
async def test_sums_are_by_key_model_day_or_team(database: Database, by: UsageBy, is_of_days: bool) -> None:
    await usage.insert(database, "g", numbered(RECORDS))

    sums = await asked(database, by, since=None if is_of_days else 1.0)

    assert [(each.name, each.id, each.requests) for each in sums] == GROUPS[by]
    assert sum(each.failed for each in sums) == 0


@pytest.mark.parametrize(
    ("bounds", "requests"),
    [
        ({"since": (DAY + 1) * DAY_S}, 3),
        ({"until": (DAY + 1) * DAY_S}, 1),
        ({"since": (DAY + 1) * DAY_S, "until": (DAY + 2) * DAY_S}, 2),
        ({"since": NOON + 1}, 3),
        ({"since": NOON, "until": NOON + 1}, 1),
        ({"key": "office"}, 2),
        ({"key": "k-1", "since": NOON + 1}, 1),
        ({"model": "law"}, 2),
        ({"team": "law", "since": 1.0}, 2),
        ({"team": "nobody"}, 0),
    ],
)
async def test_only_what_is_asked_for_is_summed(database: Database, bounds: dict[str, object], requests: int) -> None:
    await usage.insert(database, "g", numbered(RECORDS))

    question = UsageQuestion("key", **bounds)  # type: ignore[arg-type]
    assert sum([each.requests for each in await usage.report(database, question)]) == requests


async def test_records_go_after_their_days_and_sums_later_and_once_an_hour(database: Database) -> None:
    now = time.time()
    old = [made(now - 100 * DAY_S)] * 2500
    await usage.insert(database, "g", numbered([*old, made(now - 40 * DAY_S), made(now)]))

    removed = await usage.forget(database, 90, 365)
    again = await usage.forget(database, 1, 365)

    assert (removed, again) == (2500, 0)
    assert await usage.count(database) == 2
    assert sum(each.requests for each in await asked(database)) == 2502


async def test_sums_go_after_their_days(database: Database) -> None:
    now = time.time()
    await usage.insert(database, "g", numbered([made(now - 100 * DAY_S), made(now)]))

    await usage.forget(database, 1, 50)

    assert [each.requests for each in await asked(database)] == [1]


async def test_a_name_with_a_zero_byte_stops_nobody(database: Database) -> None:
    await usage.insert(database, "g", numbered([made(model="any/\0")]))

    assert [each.name for each in await asked(database, "model")] == ["any/\ufffd"]


async def test_what_keys_have_spent_since_a_day_began_is_the_sum_over_their_models(database: Database) -> None:
    records = [made(), made(model="other"), made(at=NOON - DAY_S), made(key="k-2", money=1.0)]
    await usage.insert(database, "g", numbered(records))
    async with database.transaction() as statements:
        some = await usage.spent(statements, NOON, ["k-1", "k-3"])
        all_of_two_days = await usage.spent(statements, NOON - DAY_S, None)

    assert some == {"k-1": (220.0, 0.5), "k-3": (0.0, 0.0)}
    assert all_of_two_days == {"k-1": (330.0, 0.75), "k-2": (110.0, 1.0)}


async def test_a_number_that_no_store_takes_stops_nobody(database: Database) -> None:
    """An engine of somebody else's may count anything."""
    odd = made(input_tokens=1 << 63, output_tokens=-5, cached_tokens=(1 << 64) - 1, reasoning_tokens=-1)
    for turn in range(3):
        await usage.insert(database, "g", numbered([odd, made()], str(turn)))

    (sums,) = await asked(database)
    assert (sums.requests, sums.input_tokens, sums.output_tokens) == (6, 3 * (1 << 40) + 300, 30)


async def test_what_a_clock_that_was_ahead_has_recorded_eats_no_budget(database: Database) -> None:
    await usage.insert(database, "g", numbered([made(time.time()), made(time.time() + 40 * DAY_S)]))
    async with database.transaction() as statements:
        some = await usage.spent(statements, time.time() - DAY_S, ["k-1"])
        everything = await usage.spent(statements, time.time() - DAY_S, None)

    assert some == everything == {"k-1": (110.0, 0.25)}


async def test_what_all_keys_have_spent_is_read_from_the_days_that_count_and_not_from_all_there_are(
    tmp_path: Path,
) -> None:
    async with contextlib.aclosing(SqliteDatabase(tmp_path / "store.db", 20.0)) as database:
        await schema.migrate(database)
        plan = await database.fetch(f"EXPLAIN QUERY PLAN {usage.SPENT_OF_ALL}", 20_000)

    assert "SEARCH" in plan[0]["detail"]
    assert "(day>?)" in plan[0]["detail"]
