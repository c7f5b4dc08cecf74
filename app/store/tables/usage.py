"""Usage in the store: each request's record for as long as records are kept, and sums by day, key and model for longer.

Both are written in one transaction, and a record that is there already changes neither: bringing one in again is safe.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias

from msgspec.structs import replace

from app.store.database import Database, Row, Statements, Value
from app.usage.periods import written
from app.usage.record import UsageRecord

DAY_S: Final = 86_400
# Ids in one statement. A statement is prepared once for each number of them, so there are few.
_SIZES: Final = (250, 25, 1)
_DELETED_AT_ONCE: Final = 2000
UPKEEP_EVERY_S: Final = 3600.0
# Of one request; sums of millions of these are still numbers of the store's.
_MOST_TOKENS: Final = 1 << 40

UsageBy: TypeAlias = Literal["key", "model", "day", "team"]
GROUPS: Final[tuple[UsageBy, ...]] = ("key", "model", "day", "team")
# How requests end that are nobody's failure.
FINE: Final = ("ok", "client_left")

_COLUMNS: Final = (
    *("id", "gateway", "day", "at", "key", "key_name", "team", "model", "backend", "serving", "operation", "route"),
    *("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "is_estimated", "money"),
    *("seconds", "first_token_s", "load_s", "queue_s", "attempts", "outcome", "status", "request_id", "is_stream"),
)
SUMS: Final = ("requests", "failed", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "money")
_ADD: Final = (
    f"INSERT INTO usage_days (day, key, key_name, team, model, {', '.join(SUMS)}) "
    f"VALUES ({', '.join(f'${number}' for number in range(1, 6 + len(SUMS)))}) "
    "ON CONFLICT (day, key, key_name, team, model) DO UPDATE SET "
    + ", ".join(f"{name} = usage_days.{name} + excluded.{name}" for name in SUMS)
)
_IS_FINE: Final = " OR ".join(f"outcome = '{each}'" for each in FINE)
# The sums of all records that there are, where they are more than the sums say: records of two stores in one.
COUNT_AGAIN: Final = (
    f"INSERT INTO usage_days (day, key, key_name, team, model, {', '.join(SUMS)}) "
    "SELECT day, key, key_name, COALESCE(team, ''), model, COUNT(*), "
    f"SUM(CASE WHEN {_IS_FINE} THEN 0 ELSE 1 END), "
    f"{', '.join(f'SUM({name})' for name in SUMS[2:])} FROM usage_records WHERE TRUE "
    "GROUP BY day, key, key_name, COALESCE(team, ''), model "
    "ON CONFLICT (day, key, key_name, team, model) DO UPDATE SET "
    + ", ".join(
        f"{name} = CASE WHEN excluded.{name} > usage_days.{name} THEN excluded.{name} ELSE usage_days.{name} END"
        for name in SUMS
    )
)
_INSERT: Final = (
    f"INSERT INTO usage_records ({', '.join(_COLUMNS)}) "
    f"VALUES ({', '.join(f'${number}' for number in range(1, 1 + len(_COLUMNS)))}) ON CONFLICT (id) DO NOTHING"
)
_IS_PAST: Final = f"day * {DAY_S} <= (SELECT store_time()) + {DAY_S}"
_TURN: Final = (
    "INSERT INTO usage_upkeep (task, done) VALUES ($1, store_time()) "
    "ON CONFLICT (task) DO UPDATE SET done = excluded.done"
)
TABLES: Final = (
    "CREATE TABLE usage_records (id TEXT PRIMARY KEY, gateway TEXT NOT NULL, day BIGINT NOT NULL,"
    " at DOUBLE PRECISION NOT NULL, key TEXT NOT NULL, key_name TEXT NOT NULL, team TEXT, model TEXT NOT NULL,"
    " backend TEXT NOT NULL, serving TEXT, operation TEXT NOT NULL, route TEXT NOT NULL,"
    " input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL, cached_tokens BIGINT NOT NULL,"
    " reasoning_tokens BIGINT NOT NULL, is_estimated BIGINT NOT NULL, money DOUBLE PRECISION NOT NULL,"
    " seconds DOUBLE PRECISION NOT NULL, first_token_s DOUBLE PRECISION, load_s DOUBLE PRECISION NOT NULL,"
    " queue_s DOUBLE PRECISION NOT NULL, attempts BIGINT NOT NULL, outcome TEXT NOT NULL, status BIGINT NOT NULL,"
    " request_id TEXT NOT NULL, is_stream BIGINT NOT NULL)",
    "CREATE INDEX usage_records_at ON usage_records (at)",
    "CREATE TABLE usage_days (day BIGINT NOT NULL, key TEXT NOT NULL, key_name TEXT NOT NULL, team TEXT NOT NULL,"
    " model TEXT NOT NULL, requests BIGINT NOT NULL, failed BIGINT NOT NULL, input_tokens BIGINT NOT NULL,"
    " output_tokens BIGINT NOT NULL, cached_tokens BIGINT NOT NULL, reasoning_tokens BIGINT NOT NULL,"
    " money DOUBLE PRECISION NOT NULL, PRIMARY KEY (day, key, key_name, team, model))",
    "CREATE INDEX usage_days_key ON usage_days (key, day)",
    "CREATE TABLE usage_upkeep (task TEXT PRIMARY KEY, done DOUBLE PRECISION NOT NULL)",
    "INSERT INTO usage_upkeep (task, done) VALUES ('retention', 0)",
)


@dataclass(frozen=True, slots=True)
class GroupUsage:
    """What the requests of one group came to. `name`: of the key, the model or the team, or the day (2026-11-28); empty
    where the requests had none. `id`: of a key. `failed`: those that ended neither well nor because the client left.
    """

    name: str
    id: str | None
    requests: int
    failed: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    money: float


@dataclass(frozen=True, slots=True)
class UsageQuestion:
    """Which usage is asked for: of requests that ended from `since` on and before `until` (Unix seconds; None: no
    bound), and of one key (its name or id), model or team, where they are given.
    """

    by: UsageBy
    since: float | None = None
    until: float | None = None
    key: str | None = None
    model: str | None = None
    team: str | None = None

    @property
    def is_of_days(self) -> bool:
        """Whether whole days (UTC) are asked for, so that their sums answer it."""
        return all(time is None or time % DAY_S == 0 for time in (self.since, self.until))


def check(question: UsageQuestion, now: float, retention_days: int) -> None:
    """ValueError for a question that would be answered with less than there was: no whole days, and from when on the
    records may be gone. Pure.
    """
    first = now - retention_days * DAY_S
    if not question.is_of_days and (question.since is None or question.since < first):
        raise ValueError(
            f"records are kept for {retention_days} days, and of earlier ones only sums by day: ask for whole days in "
            f"UTC, or since {written(first)} at the earliest"
        )


async def insert(database: Database, gateway: str, records: Sequence[tuple[str, UsageRecord]]) -> set[str]:
    """Bring in these records, given with their ids. Returns the ids of those that were not there yet."""
    given = {id: _storable(record) for id, record in records}
    if not given:
        return set()
    async with database.transaction() as statements:
        # A transaction of ours that was given up may still come through: what is there is known when it is over.
        await statements.execute(_TURN, f"gateway {gateway}")
        there: set[str] = set()
        for ids in _chunks(list(given)):
            there.update(row["id"] for row in await statements.fetch(_known(len(ids)), *ids))
        fresh = {id: record for id, record in given.items() if id not in there}
        if fresh:
            await statements.many(_INSERT, [_row(gateway, *each) for each in fresh.items()])
            # In the order of their keys, as everybody locks them.
            await statements.many(_ADD, [(*group, *sums) for group, sums in sorted(_added(fresh.values()).items())])
    return set(fresh)


async def report(database: Database, question: UsageQuestion) -> list[GroupUsage]:
    """The sums of each group: days in their order, all others by tokens, most first."""
    sql, args = _report(question)
    sums = [_sum(question.by, row) for row in await database.fetch_long(sql, *args)]
    if question.by == "day":
        return sorted(sums, key=lambda each: each.name)
    return sorted(sums, key=lambda each: (-(each.input_tokens + each.output_tokens), -each.requests, each.name))


def answer(question: UsageQuestion, sums: Sequence[GroupUsage], pending: int = 0) -> dict[str, Any]:
    """A report as programs get it. `pending`: how many records the store does not have yet. Pure."""
    since, until = (written(time) if time is not None else None for time in (question.since, question.until))
    data = [asdict(each) for each in sums]
    return {"object": "list", "by": question.by, "since": since, "until": until, "pending": pending, "data": data}


# Named otherwise, so that the days are found by an index, and not the order of the keys: years of days may be there.
SPENT_OF_ALL: Final = (
    "SELECT key, SUM(tokens) AS tokens, SUM(money) AS money FROM (SELECT key || '' AS key, "
    "input_tokens + output_tokens AS tokens, money FROM usage_days "
    f"WHERE day >= $1 AND {_IS_PAST}) AS days GROUP BY key"
)


async def spent(statements: Statements, since: float, keys: Sequence[str] | None) -> dict[str, tuple[float, float]]:
    """What these keys (by their ids; None: all) have spent since the begin of that day, as (tokens, money). What a
    gateway has recorded whose clock was days ahead of the store's is of no budget, else it would be of every one.
    """
    columns = "SUM(input_tokens + output_tokens) AS tokens, SUM(money) AS money"
    first = int(since // DAY_S)
    if keys is None:
        rows = await statements.fetch(SPENT_OF_ALL, first)
        return {row["key"]: (float(row["tokens"]), float(row["money"])) for row in rows}
    told = {}
    for key in keys:
        rows = await statements.fetch(
            f"SELECT {columns} FROM usage_days WHERE key = $1 AND day >= $2 AND {_IS_PAST}", key, first
        )
        told[key] = (float(rows[0]["tokens"] or 0), float(rows[0]["money"] or 0.0))
    return told


async def count(database: Database) -> int:
    """How many records there are."""
    rows = await database.fetch_long("SELECT COUNT(*) AS count FROM usage_records")
    return int(rows[0]["count"])


async def forget(database: Database, retention_days: int, totals_days: int) -> int:
    """Remove what is older than that by the store's clock, unless another gateway has done so within the hour. Returns
    how many records that were.
    """
    is_ours = await database.execute(
        "UPDATE usage_upkeep SET done = store_time() WHERE task = 'retention' AND done < store_time() - $1",
        UPKEEP_EVERY_S,
    )
    if not is_ours:
        return 0
    removed = 0
    while True:
        now = await database.execute(
            "DELETE FROM usage_records WHERE id IN "
            f"(SELECT id FROM usage_records WHERE at < store_time() - $1 ORDER BY at LIMIT {_DELETED_AT_ONCE})",
            float(retention_days * DAY_S),
        )
        removed += now
        if now < _DELETED_AT_ONCE:
            break
    await database.execute(
        f"DELETE FROM usage_days WHERE day * {DAY_S} < store_time() - $1", float((totals_days + 1) * DAY_S)
    )
    return removed


# -- within


def _storable(record: UsageRecord) -> UsageRecord:
    """PostgreSQL has no texts with a zero byte, and behind a wildcard a client may call a model anything. Engines may
    count anything: one number too large for the store would hold up all others.
    """
    if "\0" in record.model:
        record = replace(record, model=record.model.replace("\0", "\ufffd"))
    counts = (record.input_tokens, record.output_tokens, record.cached_tokens, record.reasoning_tokens)
    if min(counts) >= 0 and max(counts) <= _MOST_TOKENS:
        return record
    inputs, outputs, cached, reasoned = (min(max(0, count), _MOST_TOKENS) for count in counts)
    return replace(record, input_tokens=inputs, output_tokens=outputs, cached_tokens=cached, reasoning_tokens=reasoned)


def _row(gateway: str, id: str, record: UsageRecord) -> tuple[Value, ...]:
    return (
        *(id, gateway, int(record.at // DAY_S), record.at, record.key, record.key_name, record.team, record.model),
        *(record.backend, record.serving, record.operation, record.route, record.input_tokens, record.output_tokens),
        *(record.cached_tokens, record.reasoning_tokens, int(record.is_estimated), record.money, record.seconds),
        *(record.first_token_s, record.load_s, record.queue_s, record.attempts, record.outcome, record.status),
        *(record.request_id, int(record.is_stream)),
    )


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    at = 0
    while at < len(ids):
        size = next(size for size in _SIZES if size <= len(ids) - at)
        yield ids[at : at + size]
        at += size


def _known(count: int) -> str:
    return f"SELECT id FROM usage_records WHERE id IN ({', '.join(f'${number}' for number in range(1, count + 1))})"


_Group: TypeAlias = tuple[int, str, str, str, str]


def _added(records: Iterable[UsageRecord]) -> dict[_Group, list[float]]:
    """What is to be added to the sums of each day, key and model."""
    added: dict[_Group, list[float]] = {}
    for record in records:
        group = (int(record.at // DAY_S), record.key, record.key_name, record.team or "", record.model)
        sums = added.setdefault(group, [0, 0, 0, 0, 0, 0, 0.0])
        sums[0] += 1
        sums[1] += record.outcome not in FINE
        sums[2] += record.input_tokens
        sums[3] += record.output_tokens
        sums[4] += record.cached_tokens
        sums[5] += record.reasoning_tokens
        sums[6] += record.money
    return added


def _report(question: UsageQuestion) -> tuple[str, list[Value]]:
    conditions: list[str] = []
    args: list[Value] = []

    def only(condition: str, value: Value) -> None:
        args.append(value)
        conditions.append(condition.replace("$", f"${len(args)}"))

    column, scale = ("day", DAY_S) if question.is_of_days else ("at", 1)
    if question.since is not None:
        only(f"{column} >= $", int(question.since) // scale if question.is_of_days else float(question.since))
    if question.until is not None:
        only(f"{column} < $", int(question.until) // scale if question.is_of_days else float(question.until))
    if question.key is not None:
        args.append(question.key)
        conditions.append(f"(key = ${len(args)} OR key_name = ${len(args)})")
    if question.model is not None:
        only("model = $", question.model)
    if question.team is not None:
        only("team = $", question.team)
    group = {"key": "key", "model": "model", "day": "day", "team": "COALESCE(team, '')"}[question.by]
    name = "MAX(key_name)" if question.by == "key" else group
    requests, failed = "COUNT(*)", f"SUM(CASE WHEN {_IS_FINE} THEN 0 ELSE 1 END)"
    if question.is_of_days:
        requests, failed = "SUM(requests)", "SUM(failed)"
    sums = [f"{requests} AS requests", f"{failed} AS failed", *(f"SUM({each}) AS {each}" for each in SUMS[2:])]
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    table = "usage_days" if question.is_of_days else "usage_records"
    return f"SELECT {group} AS id, {name} AS name, {', '.join(sums)} FROM {table}{where} GROUP BY {group}", args


def _sum(by: UsageBy, row: Row) -> GroupUsage:
    name = str(row["name"])
    if by == "day":
        name = datetime.date.fromordinal(_EPOCH + int(row["name"])).isoformat()
    counts = {each: int(row[each]) for each in SUMS[:-1]}
    return GroupUsage(name=name, id=str(row["id"]) if by == "key" else None, money=float(row["money"]), **counts)


_EPOCH: Final = datetime.date(1970, 1, 1).toordinal()
